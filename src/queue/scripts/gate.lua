-- Shared by the scripts that open and close the gate of the work stream. Behind head.lua.
--
-- With the gate closed the group is told that everything was delivered, so that XREADGROUP brings nothing to anybody, at no
-- cost on the way of a read; `gate` in meta keeps how far the group really was. It is closed while the queue is paused, and
-- while it has limits: then take.lua alone delivers.

local LAST_POSSIBLE = '18446744073709551615-18446744073709551615'

local function close_gate(stream, meta)
  if redis.call('HEXISTS', meta, 'gate') == 1 then
    return
  end
  local last
  for _, info in ipairs(redis.call('XINFO', 'GROUPS', stream)) do
    local fields = {}
    for i = 1, #info, 2 do
      fields[info[i]] = info[i + 1]
    end
    if fields.name == GROUP then
      last = fields['last-delivered-id']
    end
  end
  redis.call('HSET', meta, 'gate', last)
  redis.call('XGROUP', 'SETID', stream, GROUP, LAST_POSSIBLE)
end

local function open_gate(stream, meta)
  local last = redis.call('HGET', meta, 'gate')
  if last then
    redis.call('XGROUP', 'SETID', stream, GROUP, last)
    redis.call('HDEL', meta, 'gate')
    -- An entry that comes and goes wakes the readers that block on the stream; with something to deliver, on Valkey too.
    redis.call('XDEL', stream, redis.call('XADD', stream, '*', 'wake', ''))
  end
end

-- The limits that are set, by their fields in meta, and whether any is in force at `now` (ms).
local LIMIT_FIELDS = {'rate_max', 'rate_duration', 'rate_until', 'concurrency', 'group_rate_max', 'group_rate_duration'}
local function read_limits(meta, now)
  local values, limits = redis.call('HMGET', meta, unpack(LIMIT_FIELDS)), {}
  for i, field in ipairs(LIMIT_FIELDS) do
    limits[field] = values[i] and tonumber(values[i])
  end
  local held_up = limits.rate_until and limits.rate_until > now
  return limits, (limits.rate_max or limits.concurrency or limits.group_rate_max or held_up) and true or false
end

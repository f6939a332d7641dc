-- Shared by the scripts that open and close the gate of the work stream. Behind head.lua.
--
-- With the gate closed the group is told that everything was delivered, so that XREADGROUP brings nothing to anybody, at no
-- cost on the way of a read; `gate` in meta keeps how far the group really was. It is closed while the queue is paused, and
-- while it has limits: then take.lua alone delivers.

local LAST_POSSIBLE = '18446744073709551615-18446744073709551615'
local NO_GROUP = {err = 'NOGROUP the consumer group is missing'} -- what the caller answers by creating it

-- What XINFO says of the group of a stream, by name; nil when it is missing.
local function group_of(stream)
  for _, info in ipairs(redis.pcall('XINFO', 'GROUPS', stream)) do
    local fields = {}
    for i = 1, #info, 2 do
      fields[info[i]] = info[i + 1]
    end
    if fields.name == GROUP then
      return fields
    end
  end
end

-- Returns false when there is no group.
local function close_gate(stream, meta)
  if redis.call('HEXISTS', meta, 'gate') == 0 then
    local group = group_of(stream)
    if not group then
      return false
    end
    redis.call('HSET', meta, 'gate', group['last-delivered-id'])
    redis.call('XGROUP', 'SETID', stream, GROUP, LAST_POSSIBLE)
  end
  return true
end

-- Returns false when there is no group.
local function open_gate(stream, meta)
  local last = redis.call('HGET', meta, 'gate')
  if last then
    if redis.pcall('XGROUP', 'SETID', stream, GROUP, last).err then
      return false
    end
    redis.call('HDEL', meta, 'gate')
    -- An entry that comes and goes wakes the readers that block on the stream; with something to deliver, on Valkey too.
    redis.call('XDEL', stream, redis.call('XADD', stream, '*', 'wake', ''))
  end
  return true
end

-- The limits that are set, by their fields in meta, with `paused` and `gate`, and whether any is in force at `now` (ms):
-- while groups are held up, too, the gate must be closed.
local LIMIT_FIELDS = {'rate_max', 'rate_duration', 'held_until', 'concurrency', 'group_rate_max', 'group_rate_duration'}
local function read_limits(meta, held_groups, now)
  local values, limits = redis.call('HMGET', meta, 'paused', 'gate', unpack(LIMIT_FIELDS)), {}
  for i, field in ipairs(LIMIT_FIELDS) do
    limits[field] = values[i + 2] and tonumber(values[i + 2])
  end
  limits.paused, limits.gate = values[1], values[2]
  limits.rate_max = limits.rate_duration and limits.rate_max
  limits.group_rate_max = limits.group_rate_duration and limits.group_rate_max
  limits.is_held_up = limits.held_until and limits.held_until > now
  limits.has_held_groups = redis.call('ZCARD', held_groups) > 0
  return limits, (limits.rate_max or limits.concurrency or limits.group_rate_max or limits.is_held_up
    or limits.has_held_groups) and true or false
end

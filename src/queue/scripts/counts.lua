-- Counts the jobs of a queue by state, and reads its counters, at one instant.
--
-- KEYS  1-12 as queue.lua · 13 consumers (zset)
-- ARGV  1-4 as queue.lua · 5 age of the last heartbeat from which a consumer is gone (ms)
-- Returns {entries in the stream, those of them that are pending, pending entries of the prioritized lane, prioritized,
--         parked, delayed, dead, completed and kept, consumers alive, age of the oldest waiting entry in ms (-1: none
--         waits), counters of meta as field, value, …}
-- The pending count comes from XINFO GROUPS: the summary of XPENDING takes longer the more consumers there are.

local consumers = KEYS[OWN_KEYS]
local lifetime = tonumber(ARGV[OWN_ARGS])

local now = now_ms()
local function group_of(stream)
  local groups = redis.pcall('XINFO', 'GROUPS', stream)
  for _, info in ipairs(groups) do
    local fields = {}
    for i = 1, #info, 2 do
      fields[info[i]] = info[i + 1]
    end
    if fields.name == GROUP then
      return fields.pending, fields['last-delivered-id']
    end
  end
  return 0, '0-0'
end
local pending, reached = group_of(K.stream)

-- A closed gate pretends that everything was delivered; where the group really was is in meta.
reached = redis.call('HGET', K.meta, 'gate') or reached
local oldest_age = -1
local oldest = redis.pcall('XRANGE', K.stream, '(' .. reached, '+', 'COUNT', 1)
if not oldest.err and oldest[1] then
  oldest_age = math.max(now - tonumber(string.match(oldest[1][1], '^%d+')), 0)
end

return {redis.call('XLEN', K.stream), pending, (group_of(K.prioritized_active)), redis.call('ZCARD', K.prioritized),
  tonumber(redis.call('HGET', K.meta, 'parked') or 0), redis.call('ZCARD', K.delayed), redis.call('XLEN', K.dead),
  redis.call('ZCARD', K.completed), redis.call('ZCOUNT', consumers, whole(now - lifetime), '+inf'), oldest_age,
  unpack(redis.call('HGETALL', K.meta))}

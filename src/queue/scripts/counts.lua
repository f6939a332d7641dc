-- Counts the jobs of a queue by state, and reads its counters, at one instant.
--
-- KEYS  1-12 as queue.lua · 13 consumers (zset) · 14 schedulers (zset)
-- ARGV  1-4 as queue.lua · 5 age of the last heartbeat from which a consumer is gone (ms)
-- Returns {entries in the stream, those of them that are pending, pending entries of the prioritized lane, prioritized,
--         parked, delayed, dead, completed and kept, consumers alive, age of the oldest waiting entry in ms (-1: none
--         waits), entries of the prioritized lane, ms since the earliest delayed job was due, ms since the earliest slot of a
--         scheduler came (each 0: none is late), counters of meta as field, value, …}
-- The pending count comes from XINFO GROUPS: the summary of XPENDING takes longer the more consumers there are.

local consumers, schedulers = KEYS[OWN_KEYS], KEYS[OWN_KEYS + 1]
local lifetime = tonumber(ARGV[OWN_ARGS])

local now = now_ms()
local NO_ENTRIES = {pending = 0, ['last-delivered-id'] = '0-0'}
local stream, lane = group_of(K.stream) or NO_ENTRIES, group_of(K.prioritized_active) or NO_ENTRIES

-- A closed gate pretends that everything was delivered; where the group really was is in meta.
local reached = redis.call('HGET', K.meta, 'gate') or stream['last-delivered-id']
local oldest_age = -1
local oldest = redis.pcall('XRANGE', K.stream, '(' .. reached, '+', 'COUNT', 1)
if not oldest.err and oldest[1] then
  oldest_age = math.max(now - tonumber(string.match(oldest[1][1], '^%d+')), 0)
end

-- How long ago the earliest time in a zset of times came; 0 when it has not.
local function lateness(times)
  local earliest = redis.call('ZRANGE', times, 0, 0, 'WITHSCORES')[2]
  return earliest and math.max(now - tonumber(earliest), 0) or 0
end

return {redis.call('XLEN', K.stream), stream.pending, lane.pending, redis.call('ZCARD', K.prioritized),
  tonumber(redis.call('HGET', K.meta, 'parked') or 0), redis.call('ZCARD', K.delayed), redis.call('XLEN', K.dead),
  redis.call('ZCARD', K.completed), redis.call('ZCOUNT', consumers, whole(now - lifetime), '+inf'), oldest_age,
  redis.call('XLEN', K.prioritized_active), lateness(K.delayed), lateness(schedulers), unpack(redis.call('HGETALL', K.meta))}

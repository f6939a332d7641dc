-- Reads which schedulers are due. Changes nothing.
--
-- KEYS  1 schedulers (zset)
-- ARGV  1 most schedulers to list
-- Returns {time of Redis (ms), number of schedulers, ms until the earliest slot beyond the listed ones or -1,
--         {id, slot (ms), id, slot (ms) …}}: those that are due, earliest first
-- At most 256 schedulers a call: 0 ms until the next slot means that more are due.

local schedulers = KEYS[1]
local limit = tonumber(ARGV[1])

local now = now_ms()
local listed = redis.call('ZRANGEBYSCORE', schedulers, '-inf', now, 'WITHSCORES', 'LIMIT', 0, limit)
local wait = 0
if #listed < 2 * limit then
  local later = redis.call('ZRANGEBYSCORE', schedulers, '(' .. now, '+inf', 'WITHSCORES', 'LIMIT', 0, 1)[2]
  wait = later and math.max(0, tonumber(later) - now) or -1
end
return {now, redis.call('ZCARD', schedulers), wait, listed}

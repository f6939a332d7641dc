-- Says that a consumer is alive.
--
-- KEYS  1 consumers (zset: name by time of the last heartbeat in ms) · 2 consumer:<name> (hash)
-- ARGV  1 name · 2 how long the heartbeat is good for (ms) · then fields of the hash: field, value, …
-- Returns the time of Redis (ms)

local consumers, consumer = KEYS[1], KEYS[2]
local name, lifetime = ARGV[1], ARGV[2]

local now = now_ms()
redis.call('ZADD', consumers, now, name)
redis.call('HSET', consumer, unpack(ARGV, 3))
redis.call('PEXPIRE', consumer, lifetime)
return now

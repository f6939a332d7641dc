-- Says that a consumer is alive, and takes the notes which of its jobs were cancelled.
--
-- KEYS  1 consumers (zset: name by time of the last heartbeat in ms) · 2 consumer:<name> (hash)
--       3 consumer:<name>:cancelled (set)
-- ARGV  1 name · 2 how long the heartbeat is good for (ms) · 3 most notes to take · then fields of the hash: field, value, …
-- Returns {time of Redis (ms), notes…}: of each job the place and the entry id (11 bytes) that it was delivered by

local consumers, consumer, cancelled = KEYS[1], KEYS[2], KEYS[3]
local name, lifetime, notes_max = ARGV[1], ARGV[2], ARGV[3]

local now = now_ms()
redis.call('ZADD', consumers, now, name)
redis.call('HSET', consumer, unpack(ARGV, 4))
redis.call('PEXPIRE', consumer, lifetime)
return {now, unpack(redis.call('SPOP', cancelled, notes_max))}

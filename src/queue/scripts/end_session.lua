-- Notes that a session was ended before its time, until that time has come; notes that are over go.
--
-- KEYS  1 sessions:ended (zset: id of a session by when it would have been over by itself, ms)
-- ARGV  1 id · 2 for how long the session would go on (ms) · 3 most notes that are kept
-- Returns how many notes there are

local ended = KEYS[1]
local id, left, notes_max = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])

local now = now_ms()
redis.call('ZREMRANGEBYSCORE', ended, '-inf', now)
redis.call('ZADD', ended, now + left, id)
-- Those that would be over first: what is lost with them is the least.
redis.call('ZREMRANGEBYRANK', ended, 0, -notes_max - 1)
if redis.call('PTTL', ended) < left then
  redis.call('PEXPIRE', ended, left)
end
return redis.call('ZCARD', ended)

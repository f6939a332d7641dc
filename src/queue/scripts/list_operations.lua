-- Reads the notes of operations on many jobs.
--
-- KEYS  1 operations (hash: id to the time of the note in ms, ' stop' once somebody wants it to stop, ':', and the note)
-- ARGV  1 most operations that are kept: with more, somebody else has written there, and nothing is told
-- Returns {time of Redis (ms), id, note with what stands in front of it, id, …}

local operations = KEYS[1]
local kept_max = tonumber(ARGV[1])

local now = now_ms()
if redis.call('HLEN', operations) > kept_max then
  return {now}
end
return {now, unpack(redis.call('HGETALL', operations))}

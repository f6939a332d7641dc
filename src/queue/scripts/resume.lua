-- Resumes a paused queue: the group goes on from where it was, and waiting readers are woken.
--
-- KEYS  1 stream (stream) · 2 meta (hash) · 3 events (stream)
-- ARGV  1 group · 2 most events kept (0: none are written)
-- Returns 1 resumed · 0 was not paused

local stream, meta, events = KEYS[1], KEYS[2], KEYS[3]
local group, events_max = ARGV[1], tonumber(ARGV[2])

local last = redis.call('HGET', meta, 'paused')
if not last then
  return 0
end
redis.call('XGROUP', 'SETID', stream, group, last)
redis.call('HDEL', meta, 'paused')
-- An entry that comes and goes wakes the readers that block on the stream; with something to deliver, on Valkey too.
redis.call('XDEL', stream, redis.call('XADD', stream, '*', 'wake', ''))
if events_max > 0 then
  redis.call('XADD', events, 'MAXLEN', '~', events_max, '*', 'event', 'resumed')
end
return 1

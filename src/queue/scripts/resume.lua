-- Resumes a paused queue: the group goes on from where it was, and waiting readers are woken. With limits the gate stays
-- closed, and take.lua delivers again.
--
-- KEYS  1 stream (stream) · 2 meta (hash) · 3 events (stream) · 4 wake (stream) · 5 groups:held (zset)
-- ARGV  1 most events kept (0: none are written)
-- Returns 1 resumed · 0 was not paused

local stream, meta, events, wake, held_groups = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local events_max = tonumber(ARGV[1])

local limits, is_limited = read_limits(meta, held_groups, now_ms())
if not limits.paused then
  return 0
end
if not is_limited and not open_gate(stream, meta) then
  return NO_GROUP
end
redis.call('HDEL', meta, 'paused')
redis.call('XADD', wake, 'MAXLEN', 1, '*', 'resumed', '')
if events_max > 0 then
  redis.call('XADD', events, 'MAXLEN', '~', events_max, '*', 'event', 'resumed')
end
return 1

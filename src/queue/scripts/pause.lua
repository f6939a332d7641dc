-- Pauses the queue: closes the gate. What was delivered before runs on. Nothing is delivered once this has returned.
--
-- KEYS  1 stream (stream) · 2 meta (hash) · 3 events (stream) · 4 and 5 those of resume.lua
-- ARGV  1 most events kept (0: none are written)
-- Returns 1 paused · 0 was paused

local stream, meta, events = KEYS[1], KEYS[2], KEYS[3]
local events_max = tonumber(ARGV[1])

if redis.call('HEXISTS', meta, 'paused') == 1 then
  return 0
end
if not close_gate(stream, meta) then
  return NO_GROUP
end
redis.call('HSET', meta, 'paused', 1)
if events_max > 0 then
  redis.call('XADD', events, 'MAXLEN', '~', events_max, '*', 'event', 'paused')
end
return 1

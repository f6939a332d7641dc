-- Pauses the queue: the group is told that everything was delivered, and the place it had reached is kept in meta.
-- What was delivered before runs on. Nothing is delivered once this has returned.
--
-- KEYS  1 stream (stream) · 2 meta (hash) · 3 events (stream)
-- ARGV  1 group · 2 most events kept (0: none are written)
-- Returns 1 paused · 0 was paused

local stream, meta, events = KEYS[1], KEYS[2], KEYS[3]
local group, events_max = ARGV[1], tonumber(ARGV[2])
local LAST_POSSIBLE = '18446744073709551615-18446744073709551615'

if redis.call('HEXISTS', meta, 'paused') == 1 then
  return 0
end
local last
for _, info in ipairs(redis.call('XINFO', 'GROUPS', stream)) do
  local fields = {}
  for i = 1, #info, 2 do
    fields[info[i]] = info[i + 1]
  end
  if fields.name == group then
    last = fields['last-delivered-id']
  end
end
redis.call('HSET', meta, 'paused', last)
redis.call('XGROUP', 'SETID', stream, group, LAST_POSSIBLE)
if events_max > 0 then
  redis.call('XADD', events, 'MAXLEN', '~', events_max, '*', 'event', 'paused')
end
return 1

-- Creates the consumer group where it is missing: at 0, so that nothing that stands in the stream is passed over. A
-- paused queue stays paused.
--
-- KEYS  1 stream (stream) · 2 wake (stream) · 3 meta (hash)
-- ARGV  1 group
-- Returns 1 created · 0 was there

local stream, wake, meta = KEYS[1], KEYS[2], KEYS[3]
local group = ARGV[1]
local LAST_POSSIBLE = '18446744073709551615-18446744073709551615'

local created = redis.pcall('XGROUP', 'CREATE', stream, group, '0', 'MKSTREAM')
redis.pcall('XGROUP', 'CREATE', wake, group, '0', 'MKSTREAM')
if created.err then
  if not string.find(created.err, 'BUSYGROUP', 1, true) then
    return created
  end
  return 0
end
-- A group that was there before went with its stream, or was destroyed: jobs may be lost.
if redis.call('HSETNX', meta, 'had_group', 1) == 0 then
  note_loss(meta)
end
if redis.call('HEXISTS', meta, 'paused') == 1 then
  redis.call('HSET', meta, 'paused', '0-0')
  redis.call('XGROUP', 'SETID', stream, group, LAST_POSSIBLE)
end
return 1

-- Creates the consumer group where it is missing: at 0, so that nothing that stands in the streams is passed over. A queue
-- whose gate is closed (paused, limited) stays closed.
--
-- KEYS  1 stream (stream) · 2 prioritized:active (stream) · 3 wake (stream) · 4 meta (hash)
-- ARGV  1 group
-- Returns 1 created · 0 was there

local stream, prioritized_active, wake, meta = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local group = ARGV[1]

redis.pcall('XGROUP', 'CREATE', prioritized_active, group, '0', 'MKSTREAM')
redis.pcall('XGROUP', 'CREATE', wake, group, '0', 'MKSTREAM')
local created = redis.pcall('XGROUP', 'CREATE', stream, group, '0', 'MKSTREAM')
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
if redis.call('HEXISTS', meta, 'gate') == 1 then
  redis.call('HSET', meta, 'gate', '0-0')
  redis.call('XGROUP', 'SETID', stream, group, LAST_POSSIBLE)
end
return 1

-- Creates the consumer group where it is missing: at 0, so that nothing that stands in the streams is passed over. A queue
-- whose gate is closed (paused, limited) stays closed. One whose gate is closed and nobody knows it any more (meta was
-- deleted) is begun anew too, or nothing would ever be delivered.
--
-- KEYS  1 stream (stream) · 2 prioritized:active (stream) · 3 wake (stream) · 4 meta (hash)
-- ARGV  1 group
-- Returns 1 created · 0 was there

local stream, prioritized_active, wake, meta = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local group = ARGV[1]

local lane_created = redis.pcall('XGROUP', 'CREATE', prioritized_active, group, '0', 'MKSTREAM')
redis.pcall('XGROUP', 'CREATE', wake, group, '0', 'MKSTREAM')
if not lane_created.err and redis.call('XLEN', prioritized_active) > 0 then
  redis.call('XADD', wake, 'MAXLEN', 1, '*', 'due', '') -- no plain read sees what is to be delivered there once more
end
local has_gate = redis.call('HEXISTS', meta, 'gate') == 1
local created = redis.pcall('XGROUP', 'CREATE', stream, group, '0', 'MKSTREAM')
if created.err then
  if not string.find(created.err, 'BUSYGROUP', 1, true) then
    return created
  end
  if not has_gate and group_of(stream)['last-delivered-id'] == LAST_POSSIBLE then
    redis.call('XGROUP', 'SETID', stream, group, '0')
    note_loss(meta)
  end
  return 0
end
-- A group that was there before went with its stream, or was destroyed: jobs may be lost.
if redis.call('HSETNX', meta, 'had_group', 1) == 0 then
  note_loss(meta)
end
if has_gate then
  redis.call('HSET', meta, 'gate', '0-0')
  redis.call('XGROUP', 'SETID', stream, group, LAST_POSSIBLE)
end
return 1

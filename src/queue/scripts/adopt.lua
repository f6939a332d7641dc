-- Adopts an entry that a plain producer added: from now on it is a job as if it had been enqueued here, active at the
-- consumer that read it. The same table as in enqueue.lua, for a version that is the time of the entry.
--
-- KEYS  1 stream (stream) · 2 delayed (zset) · 3 failures (hash) · 4 dead (stream) · 5 meta (hash)
--       6 closing imports (zset) · 7 job:<id> (string)
-- ARGV  1 group · 2 prefix of import keys · 3 entry id · 4 entry id (10 bytes; empty when it does not pack)
--       5 job id · 6 version (8 bytes) · 7 envelope
-- Returns A adopted (the entry is the job's now) · C merged into a job that stood already, or put back as an entry of
--         our own: somebody reads it later · D duplicate · L the entry is no longer pending · X the key is of another type

local stream, delayed, failures, dead, meta, closing, key =
  KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6], KEYS[7]
local group, import_prefix, entry, ref, id, version, envelope = unpack(ARGV)

if #redis.call('XPENDING', stream, group, entry, entry, 1) == 0 then
  return 'L'
end
local head, err = read_head(key)
if err then
  return 'X'
end
local place = head and string.sub(head, 1, 1)
local changes = {}
if head and place ~= 'f' and not is_newer(version, string.sub(head, 14, 21)) then
  drop_entries(stream, group, {entry})
  redis.call('HINCRBY', meta, 'duplicates', 1)
  return 'D'
end
if head then
  redis.call('HDEL', failures, id)
  if place == 'f' then
    redis.call('XDEL', dead, unpacked(string.sub(head, 2, 11)))
  else
    count(changes, string.sub(head, 22, 29), 'open', -1)
    count(changes, string.sub(head, 22, 29), 'superseded', 1)
  end
end

local tail = UNTRIED .. '\0' .. version .. NO_IMPORT .. '\0' .. envelope
local status = 'C'
if head and place == 's' then
  redis.call('SET', key, string.sub(head, 1, 11) .. tail)
  drop_entries(stream, group, {entry})
  redis.call('HINCRBY', meta, 'changed', 1)
elseif ref == '' then
  redis.call('ZREM', delayed, id)
  redis.call('SET', key, 's' .. packed(redis.call('XADD', stream, '*', 'id', id)) .. tail)
  drop_entries(stream, group, {entry})
  redis.call('HINCRBY', meta, 'enqueued', 1)
else
  redis.call('ZREM', delayed, id)
  redis.call('SET', key, 's' .. ref .. tail)
  redis.call('HINCRBY', meta, 'enqueued', 1)
  status = 'A'
end
apply_counts(changes, import_prefix, closing)
return status

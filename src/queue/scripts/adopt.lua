-- Adopts an entry that a plain producer added: it becomes a job as if it had been enqueued here, with an entry of our own
-- at the tail. The same table as in enqueue.lua, for a version that is the time of the plain entry.
--
-- The plain entry goes: it does not say the id of its job, so whoever claimed it could not find the head.
--
-- KEYS  1 stream (stream) · 2 delayed (zset) · 3 failures (hash) · 4 dead (stream) · 5 meta (hash)
--       6 closing imports (zset) · 7 job:<id> (string)
-- ARGV  1 group · 2 prefix of import keys · 3 entry id · 4 job id · 5 version (8 bytes; empty: now, and a job that lives
--         is not replaced) · 6 envelope
-- Returns E enqueued · C a job that stood already got the content · D duplicate · L the entry is no longer pending
--         · X the key is of another type (the entry stays pending)

local stream, delayed, failures, dead, meta, closing, key =
  KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6], KEYS[7]
local group, import_prefix, entry, id, version, envelope = unpack(ARGV)

if #redis.call('XPENDING', stream, group, entry, entry, 1) == 0 then
  return 'L'
end
local head, err = read_head(key)
if err then
  return 'X'
end
local unversioned = version == ''
if unversioned then
  version = struct.pack('>I8', now_us())
end

local place = head and string.sub(head, 1, 1)
local known = head and stands(head, id, {s = stream, d = delayed, f = dead})
local lives = known and place ~= 'f'
local is_older = known and not unversioned and not is_newer(version, string.sub(head, 14, 21))
if is_older or (lives and unversioned) then
  drop_entries(stream, group, {entry})
  redis.call('HINCRBY', meta, 'duplicates', 1)
  return 'D'
end
-- A waiting job keeps its place, an active one runs again when its worker settles.
local keeps_entry = lives and place == 's'
local where = keeps_entry and string.sub(head, 1, 11) or 's' .. add_entry(stream, id)
drop_entries(stream, group, {entry})
local changes = {}
if head then
  redis.call('HDEL', failures, id)
  if place == 'f' then
    redis.call('XDEL', dead, unpacked(string.sub(head, 2, 11)))
  else
    redis.call('ZREM', delayed, id)
    count(changes, string.sub(head, 22, 29), 'open', -1)
    count(changes, string.sub(head, 22, 29), 'superseded', 1)
  end
end
local stalls = lives and string.sub(head, 13, 13) or '\0'
redis.call('SET', key, where .. UNTRIED .. stalls .. version .. NO_IMPORT .. '\0' .. envelope)
redis.call('HINCRBY', meta, lives and 'changed' or 'enqueued', 1)
apply_counts(changes, import_prefix, closing)
return lives and 'C' or 'E'

-- Adopts an entry that a plain producer added: it becomes a job as if it had been enqueued here, with a place of our own.
-- The same table as in enqueue.lua, for a version that is the time of the plain entry.
--
-- The plain entry goes: it does not say the id of its job, so whoever claimed it could not find the head.
--
-- KEYS  1-12 as queue.lua · 13 job:<id> (string)
-- ARGV  1-4 as queue.lua · 5 entry id · 6 job id · 7 version (8 bytes; empty: now, and a job that lives is not replaced)
--       8 envelope · 9 extras as in a head, length first (or empty)
-- Returns E enqueued · C a job that stood already got the content · D duplicate · L the entry is no longer pending
--         · X the key is of another type (the entry stays pending)

local key = KEYS[OWN_KEYS]
local entry, id, version, envelope, extra = unpack(ARGV, OWN_ARGS, OWN_ARGS + 4)

if #redis.call('XPENDING', K.stream, GROUP, entry, entry, 1) == 0 then
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
local known = head and stands(head, id)
local lives = known and place ~= 'f' and place ~= 'c'
local is_older = known and not unversioned and not is_newer(version, string.sub(head, 14, 21))
if is_older or (unversioned and known and place ~= 'f') then
  drop_entries(K.stream, {entry})
  redis.call('HINCRBY', K.meta, 'duplicates', 1)
  if ALL_EVENTS then event('duplicated', id) end
  return 'D'
end
-- What stands keeps its place (an active one runs again when its worker settles), but one in backoff is due now.
local keeps_place = lives and place ~= 'd'
local changes = {}
if head then
  redis.call('HDEL', K.failures, id)
  if not lives then
    redis.call('UNLINK', LOG .. id)
  end
  if known and not keeps_place then
    take_out(id, head)
  end
  if place ~= 'f' and place ~= 'c' then
    count(changes, string.sub(head, 22, 29), 'open', -1)
    count(changes, string.sub(head, 22, 29), 'superseded', 1)
  end
end
if lives then
  extra = string.sub(head, HEAD_LAST + 1)
elseif extra == '' then
  extra = '\0'
end
local front
if keeps_place then
  front = string.sub(head, 1, 11)
else
  local priority, group = 0, ''
  if extra ~= '\0' then
    priority, group = struct.unpack('>I4', string.sub(extra, 2, 5)), string.sub(extra, 6)
  end
  front = enter(id, priority, group, now_us())
end
drop_entries(K.stream, {entry})
drop_left()
apply_groups()
wake_readers()
local stalls = lives and string.sub(head, 13, 13) or '\0'
redis.call('SET', key, front .. UNTRIED .. stalls .. version .. NO_IMPORT .. extra .. envelope)
redis.call('HINCRBY', K.meta, lives and 'changed' or 'enqueued', 1)
apply_counts(changes, IMPORT, K.closing)
if ALL_EVENTS and not lives then
  event('added', id, 'name', '')
  event('waiting', id)
end
return lives and 'C' or 'E'

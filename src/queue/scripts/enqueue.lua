-- Takes jobs in: guard and entry in one step, by what already stands under their ids.
--
--   nowhere                    → enqueued
--   waiting, active, delayed   → older or same version: duplicate; newer: content replaced in place (changed), attempts
--                                reset; one in backoff is due now; an active one runs again when its worker settles
--   dead                       → older or same version: duplicate; newer, or a plain add: taken over, enqueued
--
-- KEYS  1 stream (stream) · 2 delayed (zset) · 3 failures (hash) · 4 dead (stream) · 5 meta (hash)
--       6 closing imports (zset) · 7 seen map of the feed (string; any key of the queue for plain adds)
--       8… job:<id> (string), one per job
-- ARGV  1 prefix of import keys · 2 "item" or "add" · 3 version of the fetch (8 bytes, empty for plain adds)
--       4 import (8 bytes) · then per job: id · version (8 bytes; empty: now) · class ("new" or "changed": what the
--       fetch took it for) · record for the seen map (16 bytes or empty) · envelope
-- Returns {statuses, error…}: one letter per job (E enqueued, C changed, D duplicate, X refused with the next error),
--         or {"stale"} when a newer fetch of the feed has begun, or the import is not this fetch's any more: nothing is
--         taken in then
-- At most 256 jobs or 512 KiB a call.

local stream, delayed, failures, dead, meta, closing, seen =
  KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6], KEYS[7]
local import_prefix, mode, fetch_version, import = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local FIRST_KEY, FIRST_ARG, ARGS = 8, 5, 5

local known_version = ''
if fetch_version ~= '' then
  known_version = redis.call('GETRANGE', seen, 8, 15)
  if (known_version ~= '' and is_newer(known_version, fetch_version)) or
    redis.call('HGET', import_key(import_prefix, import), 'fetch_version') ~= fetch_version then
    return {'stale'}
  end
end

local places = {s = stream, d = delayed, f = dead}
local statuses, errors, records, changes = {}, {}, {}, {}
local n_enqueued, n_changed, n_duplicate = 0, 0, 0
local clock = now_us()

for i = FIRST_KEY, #KEYS do
  local key, at = KEYS[i], FIRST_ARG + (i - FIRST_KEY) * ARGS
  local id, version, class, record, envelope = ARGV[at], ARGV[at + 1], ARGV[at + 2], ARGV[at + 3], ARGV[at + 4]
  local unversioned = version == ''
  if unversioned then
    version = struct.pack('>I8', clock)
  end
  local head, err = read_head(key)
  local place = head and string.sub(head, 1, 1)
  local status
  if err then
    status = 'X'
    errors[#errors + 1] = err
  elseif not head or not stands(head, id, places) then
    status = 'E'
    if head then -- a guard without a job: what it counted for will never settle
      redis.call('HDEL', failures, id)
      if place ~= 'f' then
        count(changes, string.sub(head, 22, 29), 'open', -1)
        count(changes, string.sub(head, 22, 29), 'superseded', 1)
      end
    end
  elseif mode == 'add' and unversioned then
    status = place == 'f' and 'T' or 'D'
  elseif is_newer(version, string.sub(head, 14, 21)) then
    status = place == 'f' and 'T' or 'C'
  else
    status = 'D'
  end

  if status == 'T' then -- a dead letter is taken over; its import has counted it as failed already
    redis.call('XDEL', dead, unpacked(string.sub(head, 2, 11)))
    redis.call('HDEL', failures, id)
    status = 'E'
  end
  if status == 'E' then
    redis.call('SET', key, 's' .. add_entry(stream, id) .. UNTRIED .. '\0' .. version .. import .. '\0' .. envelope)
    n_enqueued = n_enqueued + 1
  elseif status == 'C' then
    local where = string.sub(head, 1, 11)
    if place == 'd' then
      where = 's' .. add_entry(stream, id)
      redis.call('ZREM', delayed, id)
    end
    redis.call('HDEL', failures, id)
    redis.call('SET', key, where .. UNTRIED .. string.sub(head, 13, 13) .. version .. import .. '\0' .. envelope)
    count(changes, string.sub(head, 22, 29), 'open', -1)
    count(changes, string.sub(head, 22, 29), 'superseded', 1)
    n_changed = n_changed + 1
  end

  if status == 'E' or status == 'C' then
    count(changes, import, 'open', 1)
    count(changes, import, (status == 'E' and class == 'new') and 'new' or 'changed', 1)
    records[#records + 1] = record
  elseif status == 'D' then
    count(changes, import, 'duplicate', 1)
    n_duplicate = n_duplicate + 1
  end
  statuses[#statuses + 1] = status
end

-- Without a map (it expired, or was lost while the feed was fetched) there is nothing to append to.
if known_version ~= '' and #records > 0 then
  redis.call('APPEND', seen, table.concat(records))
end
if n_enqueued > 0 then redis.call('HINCRBY', meta, 'enqueued', n_enqueued) end
if n_changed > 0 then redis.call('HINCRBY', meta, 'changed', n_changed) end
if n_duplicate > 0 then redis.call('HINCRBY', meta, 'duplicates', n_duplicate) end
apply_counts(changes, import_prefix, closing)
return {table.concat(statuses), unpack(errors)}

-- Takes jobs in: guard and place in one step, by what already stands under their ids.
--
--   nowhere                       → enqueued: waiting, prioritized, delayed, or parked while its group has no room
--   living (none of the next two) → older or same version: duplicate; newer: content replaced in place (changed), attempts
--                                   reset; one in backoff is due now; an active one runs again when its worker settles
--   dead                          → older or same version: duplicate; newer, or a plain add: taken over, enqueued
--   completed and kept            → older or same version, or a plain add: duplicate; newer: taken over, enqueued
--
-- A job that would be enqueued may be held up by its deduplication id: see `deduplicate`.
--
-- KEYS  1-12 as queue.lua · 13 seen map of the feed (string; any key of the queue for plain adds) · 14… job:<id> (string)
-- ARGV  1-4 as queue.lua · 5 "item" or "add" · 6 version of the fetch (8 bytes, empty for plain adds) · 7 import (8 bytes)
--       then per job: the length of its extras, the extras, its envelope · and what else is to be said of it: of an item, "n"
--       if the fetch took it for new, "c" for changed, and its record for the seen map (16 bytes); of an add nothing, or "v"
--       and its version (8 bytes), or "-" if it has none, and then its options: MessagePack [delay (ms), attempts made,
--       deduplication or nil, name for the event or nil] (or nothing); deduplication: [id, ttl (ms; 0: as long as the job
--       lives), extend, replace, keep_last]
-- Returns {statuses, note…}: one letter per job, and a note for each X and P, in their order:
--         E enqueued · C changed · D duplicate · P deduplicated (note: id of the job that holds the deduplication id)
--         · X refused (note: the error);
--         or {"stale"} when a newer fetch of the feed has begun, or the import is not this fetch's any more: nothing is
--         taken in then
-- At most 256 jobs or 512 KiB a call.

local seen = KEYS[OWN_KEYS]
local mode, fetch_version, import = ARGV[OWN_ARGS], ARGV[OWN_ARGS + 1], ARGV[OWN_ARGS + 2]
local FIRST_KEY, FIRST_ARG, ARGS = OWN_KEYS + 1, OWN_ARGS + 3, 2
local ID_AT = #JOB + 1

local known_version = ''
if fetch_version ~= '' then
  known_version = redis.call('GETRANGE', seen, 8, 15)
  if (known_version ~= '' and is_newer(known_version, fetch_version)) or
    redis.call('HGET', import_key(IMPORT, import), 'fetch_version') ~= fetch_version then
    return {'stale'}
  end
end

local statuses, notes, records, changes = {}, {}, {}, {}
local n_enqueued, n_changed, n_duplicate, n_deduplicated, n_new = 0, 0, 0, 0, 0
local CHANGED = string.byte('c')
local clock = now_us()
local NO_OPTIONS = {0, 0}
local is_item = mode == 'item'
local default_version = is_item and fetch_version or struct.pack('>I8', clock)
local arrival = clock

-- What a job counted for will not settle any more.
local function supersede(head)
  count(changes, string.sub(head, 22, 29), 'open', -1)
  count(changes, string.sub(head, 22, 29), 'superseded', 1)
end

-- Whether another job holds the deduplication id of this one; then returns that job's id. Else the id is this job's from now
-- on. Without a ttl it is held as long as the job lives, which is looked up here: an id whose job is gone blocks nobody.
local function deduplicate(id, version, value, options)
  local key, ttl, extend, replace, keep_last = DEDUP .. options[1], options[2], options[3], options[4], options[5]
  local owner = redis.call('GET', key)
  if owner then
    local owner_key = JOB .. owner
    local head = read_head(owner_key)
    local place = head and string.sub(head, 1, 1)
    local lives = head and place ~= 'f' and place ~= 'c' and stands(head, owner)
    if lives or ttl > 0 then
      if lives and replace and place == 'd' then
        take_out(owner, head)
        redis.call('UNLINK', owner_key)
        redis.call('HDEL', K.failures, owner)
        count(changes, string.sub(head, 22, 29), 'open', -1)
        count(changes, string.sub(head, 22, 29), 'removed', 1)
        if ALL_EVENTS then
          event('removed', owner, 'prev', 'delayed')
          event('deduplicated', id, 'deduplicationId', options[1], 'deduplicatedJobId', owner)
        end
        if ttl > 0 and not extend then
          redis.call('SET', key, id, 'KEEPTTL')
          return
        end
      else
        if ttl > 0 and extend then
          redis.call('PEXPIRE', key, ttl)
        end
        if lives and keep_last and is_active(head) then -- its worker's settle puts it back, as for any newer version
          redis.call('SET', owner_key, string.sub(head, 1, 11) .. UNTRIED .. string.sub(head, 13, 13) .. version
            .. string.sub(head, 22) .. string.sub(value, 2 + string.byte(value)))
        end
        return owner
      end
    end
  end
  if ttl > 0 then
    redis.call('SET', key, id, 'PX', ttl)
  else
    redis.call('SET', key, id)
  end
end

-- Priority and group of a value's extras. Items of a feed have the same ones.
local known_extras, known_priority, known_group = '\0', 0, ''
local function extras_of(value)
  local bytes = string.sub(value, 1, 1 + string.byte(value))
  if bytes ~= known_extras then
    known_extras, known_priority, known_group = bytes, 0, ''
    if #bytes > 1 then
      known_priority, known_group = struct.unpack('>I4', string.sub(bytes, 2, 5)), string.sub(bytes, 6)
    end
  end
  return known_priority, known_group
end

-- What becomes of a job whose key is there already, or which has options: the table above. Returns E, C, D or X; T where
-- something ended is taken over (E in the end).
local function judge(head, err, id, version, unversioned)
  if err then
    return 'X'
  elseif not head then
    return 'E'
  end
  local place = string.sub(head, 1, 1)
  local is_newer_one = not unversioned and is_newer(version, string.sub(head, 14, 21))
  if not stands(head, id) then -- a guard without a job: what it counted for will never settle
    if place ~= 'f' and place ~= 'c' then
      supersede(head)
    end
    return 'E'
  elseif place == 'f' then -- its import has counted it as failed already
    return (unversioned or is_newer_one) and 'T' or 'D'
  elseif place == 'c' then
    return is_newer_one and 'T' or 'D'
  end
  return is_newer_one and 'C' or 'D'
end

-- What stands in a head behind place and entry, of a job that is new.
local function rest_of_head(attempts, version)
  return string.char(attempts) .. '\0' .. version .. import
end
local NEW_REST = rest_of_head(0, default_version)

-- Jobs whose guards say that they are parked, and which are not yet: scores and ids, as ZADD takes them. One command for many
-- costs half of one for each. Whatever looks at where a job stands comes behind `park_all`.
local parking, parking_group = {}, nil
local function park_all()
  if #parking > 0 then
    redis.call('ZADD', PARKED .. parking_group, unpack(parking))
    parked_changed[parking_group] = true
    n_parked = n_parked + #parking / 2
    parking = {}
  end
end

-- What a value begins with, of a new job that is parked.
local NEW_PARKED = 'g' .. NO_ENTRY .. NEW_REST

-- Most jobs are nowhere yet, have no priority, and go to the stream, or are parked: one command finds that out and writes the
-- whole value, and one adds the entry. Returns whether that was so; else nothing was done. A call that dies between the two
-- leaves a guard without a job.
local call, format, pack = redis.call, string.format, struct.pack -- what is called for each job is looked up once
local function enqueue_plainly(key, id, value)
  local group = ''
  if string.byte(value) > 0 then
    local priority
    priority, group = extras_of(value)
    if priority > 0 then
      return false
    elseif not has_room(group) then
      if call('SETNX', key, NEW_PARKED .. value) == 0 then
        return false
      end
      if group ~= parking_group then
        park_all()
        parking_group = group
      end
      arrival = arrival + 1
      parking[#parking + 1] = whole(arrival)
      parking[#parking + 1] = id
      return true
    end
  end
  -- As `next_entry` and `add_next_entry` do it, in one go.
  local seq = added_seq[K.stream]
  if not seq or seq >= SEQ_LAST then
    return false
  end
  seq = seq + 1
  if call('SETNX', key, 's' .. added_ms_bytes[K.stream] .. pack('>I4', seq) .. NEW_REST .. value) == 0 then
    return false
  end
  call('XADD', K.stream, format('%s-%d', added_ms[K.stream], seq), 'id', id)
  added_seq[K.stream] = seq
  join(group)
  return true
end

-- Counts a job that is in.
local function note_enqueued(id, options)
  n_enqueued = n_enqueued + 1
  if ALL_EVENTS then
    event('added', id, 'name', options[4] or '')
    if options[1] > 0 then
      event('delayed', id, 'delay', whole(math.ceil(clock / 1000) + options[1]))
    else
      event('waiting', id)
    end
  end
end

local delays = false

-- Takes in a job of any other kind. Returns its letter.
local function take_in(key, id, value, said)
  local version, options, unversioned = default_version, NO_OPTIONS, not is_item
  if not is_item and said ~= '' then
    local options_at = 2
    if string.sub(said, 1, 1) == 'v' then
      version, unversioned, options_at = string.sub(said, 2, 9), false, 10
    end
    if #said >= options_at then
      options = cmsgpack.unpack(string.sub(said, options_at))
    end
  end
  park_all()
  local head, err = read_head(key)
  local status = judge(head, err, id, version, unversioned)
  if err then
    notes[#notes + 1] = err
  end

  local owner = options[3] and (status == 'E' or status == 'T') and deduplicate(id, version, value, options[3])
  if owner then
    notes[#notes + 1] = owner
    n_deduplicated = n_deduplicated + 1
    if ALL_EVENTS then event('deduplicated', owner, 'deduplicationId', options[3][1], 'deduplicatedJobId', id) end
    return 'P'
  elseif status == 'E' or status == 'T' then
    if head then
      redis.call('HDEL', K.failures, id)
      redis.call('UNLINK', LOG .. id)
      if status == 'T' then
        take_out(id, head)
      end
    end
    local front
    if options[1] > 0 then
      if not delays then
        delays = true
        note_earliest_due()
      end
      front = 'd' .. NO_ENTRY
      delay(id, math.ceil(clock / 1000) + options[1])
    else
      local priority, group = extras_of(value)
      arrival = arrival + 1
      front = enter(id, priority, group, arrival)
    end
    redis.call('SET', key, front .. rest_of_head(options[2], version) .. value)
    note_enqueued(id, options)
    return 'E'
  elseif status == 'C' then
    local front, extra_kept = string.sub(head, 1, 11), string.sub(head, HEAD_LAST + 1)
    local envelope = string.sub(value, 2 + string.byte(value))
    if string.sub(head, 1, 1) == 'd' then
      local priority, group = extras(head)
      redis.call('ZREM', K.delayed, id)
      arrival = arrival + 1
      front = enter(id, priority, group, arrival)
    end
    redis.call('HDEL', K.failures, id)
    redis.call('SET', key, front .. UNTRIED .. string.sub(head, 13, 13) .. version .. import .. extra_kept .. envelope)
    supersede(head)
    n_changed = n_changed + 1
  elseif status == 'D' then
    n_duplicate = n_duplicate + 1
    if ALL_EVENTS then event('duplicated', id) end
  end
  return status
end

local at = FIRST_ARG
for i = FIRST_KEY, #KEYS do
  local key, value, said = KEYS[i], ARGV[at], ARGV[at + 1]
  local id, status = string.sub(key, ID_AT), 'E'
  at = at + ARGS
  if (is_item or said == '') and enqueue_plainly(key, id, value) then
    note_enqueued(id, NO_OPTIONS)
  else
    status = take_in(key, id, value, said)
  end
  if is_item and (status == 'E' or status == 'C') then
    if status == 'E' and string.byte(said) ~= CHANGED then
      n_new = n_new + 1
    end
    records[#records + 1] = string.sub(said, 2)
  end
  statuses[#statuses + 1] = status
end

-- Without a map (it expired, or was lost while the feed was fetched) there is nothing to append to.
if known_version ~= '' and #records > 0 then
  redis.call('APPEND', seen, table.concat(records))
end
park_all()
drop_left()
apply_groups()
wake_readers()
if n_enqueued > 0 then redis.call('HINCRBY', K.meta, 'enqueued', n_enqueued) end
if n_changed > 0 then redis.call('HINCRBY', K.meta, 'changed', n_changed) end
if n_duplicate > 0 then redis.call('HINCRBY', K.meta, 'duplicates', n_duplicate) end
if n_deduplicated > 0 then redis.call('HINCRBY', K.meta, 'deduplicated', n_deduplicated) end
local n_accepted = n_enqueued + n_changed
for field, n in pairs({open = n_accepted, new = n_new, changed = n_accepted - n_new, duplicate = n_duplicate}) do
  if n > 0 then count(changes, import, field, n) end
end
apply_counts(changes, IMPORT, K.closing)
return {table.concat(statuses), unpack(notes)}

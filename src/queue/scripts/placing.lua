-- Shared by the scripts that move jobs: where a job stands, and how it gets there and away. Behind queue.lua and head.lua.
--
-- Of a group with parked jobs at least one stands in a lane or in the prioritized zset, or the group is held up: what leaves,
-- or the end of the hold-up, brings the next ones out, so none of them is forgotten.
--
-- A script collects while it goes through its jobs, and carries out at its end, in one command each: `drop_left()` what left
-- the lanes, `apply_groups()` what groups gained and lost, `wake_readers()` what readers must know.

-- The lanes: streams whose pending entries are the active jobs. In the prioritized one every entry is pending, since jobs
-- with a priority wait in the zset until a worker takes them.
local LANES = {s = K.stream, p = K.prioritized_active}
local PRIORITY_STEP = 4294967296 -- a score is priority × this + arrival
local LARGEST_EXACT = 9007199254740992 -- of the whole numbers that a score can hold

local added_ms, added_seq, added_ms_bytes = {}, {}, {} -- by stream: the entry that this call added last

-- Adds an entry for a job to the tail of a stream; returns its id as the 10 bytes of a head. Once a client has added an entry
-- with an enormous id of its own, Redis numbers on from there, and no head could name the entries: then nothing is added, and
-- the call fails.
--
-- Redis numbers the first entry of a call; the others follow from it, which saves taking each id apart. So whatever else a
-- call adds to a stream of jobs goes through `add_plain_entry`.
local SEQ_LAST = 4294967295 -- that a head can hold

-- The id that the next entry of this call gets, as the 10 bytes of a head and as text; nil if Redis is to number it.
local function next_entry(stream)
  local seq = added_seq[stream]
  if seq and seq < SEQ_LAST then
    return added_ms_bytes[stream] .. struct.pack('>I4', seq + 1), string.format('%s-%d', added_ms[stream], seq + 1)
  end
end

-- Adds the entry for a job that `next_entry` named.
local function add_next_entry(stream, entry, id)
  redis.call('XADD', stream, entry, 'id', id)
  added_seq[stream] = added_seq[stream] + 1
end

local function add_entry(stream, id)
  local ref, entry = next_entry(stream)
  if ref then
    add_next_entry(stream, entry, id)
    return ref
  end
  entry = redis.call('XADD', stream, '*', 'id', id)
  ref = packed(entry)
  if unpacked(ref) ~= entry then
    redis.call('XDEL', stream, entry)
    error('entry id ' .. entry .. ' is beyond what a head can name: a client added an entry with an id of its own')
  end
  local ms, seq = string.match(entry, '^(%d+)-(%d+)$')
  added_ms[stream], added_seq[stream], added_ms_bytes[stream] = ms, tonumber(seq), string.sub(ref, 1, 6)
  return ref
end

-- Adds an entry that is no job's yet: a plain producer's, with these fields and values.
local function add_plain_entry(stream, ...)
  redis.call('XADD', stream, '*', ...)
  added_seq[stream] = nil -- the next one does not follow from the last of ours any more
end

local function has_entry(stream, bytes)
  local entry = unpacked(bytes)
  return #redis.call('XRANGE', stream, entry, entry) > 0
end

-- Whether the structure that the head names really holds the job: a guard whose job is gone must not block its id.
local function stands(head, id)
  local place, entry = string.sub(head, 1, 1), string.sub(head, 2, 11)
  if place == 's' then
    return has_entry(K.stream, entry)
  elseif place == 'd' then
    return redis.call('ZSCORE', K.delayed, id)
  elseif place == 'f' then
    return has_entry(K.dead, entry)
  elseif place == 'p' and entry ~= NO_ENTRY then
    return has_entry(K.prioritized_active, entry)
  elseif place == 'p' then
    return redis.call('ZSCORE', K.prioritized, id)
  elseif place == 'c' then
    return redis.call('ZSCORE', K.completed, id)
  elseif place == 'g' then
    local _, group = extras(head)
    return redis.call('ZSCORE', PARKED .. group, id)
  end
end

-- What XPENDING says of a job that a worker has, {entry, consumer, idle time (ms), deliveries}; nil of any other.
local function pending_of(head)
  local lane, entry = LANES[string.sub(head, 1, 1)], string.sub(head, 2, 11)
  if not lane or entry == NO_ENTRY then
    return nil
  end
  entry = unpacked(entry)
  return redis.pcall('XPENDING', lane, GROUP, entry, entry, 1)[1]
end

local function is_active(head)
  return pending_of(head) ~= nil
end

-- ── what is lost ────────────────────────────────────────────────────────────────────────────────────────────────────────

-- Makes a dead letter of what is left where no job can be made of an entry: `id` of a job whose guard is missing, or
-- `raw` bytes of an entry that says nothing else; the other one is false. A missing guard is a loss: the number of losses
-- tells feeds that what they remember as enqueued may never arrive.
local function bury_remains(id, raw, reason, label, consumer)
  local letter = {'reason', reason, 'attempts', 0, 'at', whole(now_ms()), 'consumer', consumer}
  if id then
    letter[#letter + 1] = 'id'
    letter[#letter + 1] = id
    redis.call('HDEL', K.failures, id)
    note_loss(K.meta)
  end
  if raw then
    letter[#letter + 1] = 'raw'
    letter[#letter + 1] = raw
  end
  redis.call('XADD', K.dead, '*', unpack(letter))
  if EVENTS_MAX > 0 then
    event('failed', label, 'failedReason', reason, 'prev', 'active')
  end
end

local function count_buried(n)
  if n > 0 then
    redis.call('HINCRBY', K.meta, 'failed', n)
    count_minute('failed', n)
  end
end

-- An id that waits, and whose guard is gone (evicted, deleted by hand) or of another type, which `err` says.
local function bury_lost(id, err)
  bury_remains(id, false, err or 'payload lost', id, '')
  count_buried(1)
end

-- ── groups: of each at most WINDOW jobs stand in the lanes or the prioritized zset, the rest is parked ──────────────────

local members, members_before, n_left = {}, {}, {} -- by group: its jobs that are not parked; what they were; how many left
local n_parked = 0 -- parked by this call, less those that came out
local parked_changed = {} -- groups of which jobs were parked or came out
local MINUS = string.byte('-')
local UNPARKED_MAX = 256 -- in one call, beyond one for each job that left

local function n_members(group)
  if not members[group] then
    members[group] = tonumber(redis.call('HGET', K.groups, group) or 0)
    members_before[group] = members[group]
  end
  return members[group]
end

local n_prioritized, must_promote = 0, false -- put into their zset by this call; a group is to be released

local function next_arrival()
  return redis.call('HINCRBY', K.meta, 'prioritized', 1) % PRIORITY_STEP
end

-- Puts a job where it waits for a worker; returns the front of its head. It has room in its group, if it has one.
local function wait(id, priority)
  if priority == 0 then
    return 's' .. add_entry(K.stream, id)
  end
  n_prioritized = n_prioritized + 1
  redis.call('ZADD', K.prioritized, whole(priority * PRIORITY_STEP + next_arrival()), id)
  return 'p' .. NO_ENTRY
end

-- Parks a job; returns the front of its head. Those with a priority come out first, in the order in which they would wait;
-- their scores are below 0. The others are ordered by `arrival` (µs).
local function park(id, priority, group, arrival)
  local score = arrival
  if priority > 0 then
    score = priority * PRIORITY_STEP + next_arrival() - LARGEST_EXACT
  end
  redis.call('ZADD', PARKED .. group, whole(score), id)
  parked_changed[group] = true
  n_parked = n_parked + 1
  return 'g' .. NO_ENTRY
end

local function has_room(group)
  return group == '' or WINDOW == 0 or n_members(group) < WINDOW
end

-- Takes room in a group, if it is one.
local function join(group)
  if group ~= '' then
    members[group] = n_members(group) + 1
  end
end

-- As `wait`, for a job that has no room in its group yet: where there is none it is parked.
local function enter(id, priority, group, arrival)
  if not has_room(group) then
    return park(id, priority, group, arrival)
  end
  join(group)
  return wait(id, priority)
end

-- Puts a job back to waiting that kept its room in its group. `attempts` (one byte) replaces the count.
local function put_back(key, id, head, attempts)
  redis.call('SETRANGE', key, '0', wait(id, (extras(head))) .. (attempts or ''))
  if ALL_EVENTS then event('waiting', id, 'prev', 'active') end
end

-- Notes that a job gave up its room in a group, if it is one.
local function give_up_room(group)
  if group ~= '' then
    members[group] = n_members(group) - 1
    n_left[group] = (n_left[group] or 0) + 1
  end
end
local function leave_group(head)
  local _, group = extras(head)
  give_up_room(group)
end

-- Brings up to `n` parked jobs of a group to where they wait for a worker. Returns how many.
local function unpark(group, n)
  local n_unparked, n_popped = 0, 0
  while n_unparked < n and n_popped < n + UNPARKED_MAX do
    local ids = redis.call('ZPOPMIN', PARKED .. group, n - n_unparked)
    if #ids == 0 then
      return n_unparked
    end
    n_popped = n_popped + #ids / 2
    parked_changed[group] = true
    for i = 1, #ids, 2 do
      local key, score = JOB .. ids[i], ids[i + 1]
      local place = redis.pcall('GETRANGE', key, '0', '0')
      n_parked = n_parked - 1
      if place == 'g' then
        local priority = string.byte(score) == MINUS and extras(read_head(key) or '') or 0
        redis.call('SETRANGE', key, '0', wait(ids[i], priority))
        members[group] = n_members(group) + 1
        n_unparked = n_unparked + 1
      elseif type(place) == 'table' then
        bury_lost(ids[i], place.err)
      elseif place == '' then
        bury_lost(ids[i])
      end -- else it stands elsewhere and this is a leftover
    end
  end
  if n_unparked == 0 and n > 0 and n_members(group) <= 0 then -- so many were lost that promote.lua must go on
    redis.call('ZADD', HELD, whole(now_ms()), group)
    must_promote = true
  end
  return n_unparked
end

-- Fills the room that jobs left, and writes the numbers down. A group that was not full has room for more than what left
-- only when its window grew, or is counted by nobody (WINDOW 0): then its parked jobs come out bit by bit. One that is held
-- up gets nothing until promote.lua releases it, and one with a rate no more than what left.
local function apply_groups()
  local extra, has_held
  for group, n in pairs(n_left) do
    if not extra then
      extra = redis.call('HEXISTS', K.meta, 'group_rate_max') == 1 and 0 or UNPARKED_MAX
      has_held = redis.call('ZCARD', HELD) > 0
    end
    local room = math.min(n + extra, WINDOW > 0 and WINDOW - members[group] or n + extra)
    if room > 0 and not (has_held and redis.call('ZSCORE', HELD, group)) then
      extra = extra - math.max(0, unpark(group, room) - n)
    end
  end
  for group, n in pairs(members) do
    if n <= 0 then
      redis.call('HDEL', K.groups, group)
    elseif n ~= members_before[group] then
      redis.call('HSET', K.groups, group, n)
    end
  end
  if n_parked ~= 0 then
    redis.call('HINCRBY', K.meta, 'parked', n_parked)
  end
  for group in pairs(parked_changed) do
    if redis.call('EXISTS', PARKED .. group) == 1 then
      redis.call('ZADD', PARKED_GROUPS, 0, group)
    else
      redis.call('ZREM', PARKED_GROUPS, group)
    end
  end
end

-- ── leaving ─────────────────────────────────────────────────────────────────────────────────────────────────────────────

local left = {s = {}, p = {}} -- entries that left the lanes, by the place that heads call them

local function leave_lane(place, entry)
  local entries = left[place]
  entries[#entries + 1] = entry
end

-- From how many entries on the front of the stream is looked at: for fewer, that look costs more than it saves.
local FRONT_FROM = 4

local function position(entry)
  local ms, seq = string.match(entry, '^(%d+)-(%d+)$')
  return tonumber(ms), tonumber(seq)
end

local function is_behind(ms, seq, other_ms, other_seq)
  return ms > other_ms or (ms == other_ms and seq > other_seq)
end

-- The id behind the last of these entries.
local function behind_last(entries)
  local last_ms, last_seq = position(entries[1])
  for i = 2, #entries do
    local ms, seq = position(entries[i])
    if is_behind(ms, seq, last_ms, last_seq) then last_ms, last_seq = ms, seq end
  end
  return whole(last_ms) .. '-' .. whole(last_seq + 1)
end

-- Those of these entries that do not stand before `bound`.
local function not_before(entries, bound)
  local bound_ms, bound_seq = position(bound)
  local found = {}
  for i = 1, #entries do
    local ms, seq = position(entries[i])
    if not is_behind(bound_ms, bound_seq, ms, seq) then found[#found + 1] = entries[i] end
  end
  return found
end

-- Acknowledges and deletes entries.
--
-- XDEL looks for each entry from the front of its node, among those that were deleted there. So what ends at the front of the
-- stream, which is most of it, goes with one XTRIM. Nothing else stands there: when all of these were pending, everything
-- in front of them was delivered, and of that, what is not pending was deleted in the call that acknowledged it. Only an entry
-- that another client acknowledged, or moved the group past, can still be there. It goes too: its job keeps its guard, so that
-- `xinfo --fix` puts it back or its feed enqueues it again; a plain producer's that nobody adopted yet has no guard, and is lost.
local function drop_entries(stream, entries)
  if #entries == 0 then return end
  local n_pending = redis.call('XACK', stream, GROUP, unpack(entries))
  if n_pending == #entries and n_pending >= FRONT_FROM then
    local first = redis.call('XPENDING', stream, GROUP, '-', '+', 1)[1]
    local bound = first and first[1] or behind_last(entries)
    local n_trimmed = redis.call('XTRIM', stream, 'MINID', bound)
    if n_trimmed == #entries then return end
    if n_trimmed > #entries then note_loss(K.meta) end
    entries = not_before(entries, bound)
    if #entries == 0 then return end
  end
  redis.call('XDEL', stream, unpack(entries))
end

local function drop_left()
  drop_entries(K.stream, left.s)
  drop_entries(K.prioritized_active, left.p)
end

-- Takes a job out of the structure that its head names. What becomes of its guard is for the caller to say.
local function take_out(id, head)
  local place, entry = string.sub(head, 1, 1), string.sub(head, 2, 11)
  if place == 's' or (place == 'p' and entry ~= NO_ENTRY) then
    leave_lane(place, unpacked(entry))
    leave_group(head)
  elseif place == 'p' then
    redis.call('ZREM', K.prioritized, id)
    leave_group(head)
  elseif place == 'd' then
    redis.call('ZREM', K.delayed, id)
  elseif place == 'f' then
    redis.call('XDEL', K.dead, unpacked(entry))
    date_log(id)
  elseif place == 'c' then
    redis.call('ZREM', K.completed, id)
    date_log(id)
  elseif place == 'g' then
    local _, group = extras(head)
    n_parked = n_parked - redis.call('ZREM', PARKED .. group, id)
    parked_changed[group] = true
  end
end

-- ── waking ──────────────────────────────────────────────────────────────────────────────────────────────────────────────

local earliest_due -- before this call; false: none was

-- To be called before anything is delayed.
local function note_earliest_due()
  earliest_due = redis.call('ZRANGE', K.delayed, 0, 0, 'WITHSCORES')[2] or false
end

local function delay(id, due)
  redis.call('ZADD', K.delayed, whole(due), id)
end

-- Blocked readers see no zset: one of them is woken when a job with a priority waits, or something is due earlier than known.
-- Returns when the earliest is due (ms), if it was noted before and there is one.
local function wake_readers()
  local due
  if earliest_due ~= nil then
    due = redis.call('ZRANGE', K.delayed, 0, 0, 'WITHSCORES')[2]
  end
  if n_prioritized > 0 or must_promote or (due and (not earliest_due or tonumber(due) < tonumber(earliest_due))) then
    redis.call('XADD', K.wake, 'MAXLEN', 1, '*', 'due', due or '')
  end
  return due
end

-- To be called when jobs have ended: BullMQ's event for a queue in which nothing waits or runs any more.
local function note_drained()
  if ALL_EVENTS and redis.call('XLEN', K.stream) == 0 and redis.call('XLEN', K.prioritized_active) == 0
    and redis.call('ZCARD', K.prioritized) == 0 then
    redis.call('XADD', K.events, 'MAXLEN', '~', EVENTS_MAX, '*', 'event', 'drained')
  end
end

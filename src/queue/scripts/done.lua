-- Ends jobs that are done: the entry goes, the guard goes or is kept as completed, the import counts them.
--
-- A job whose content was replaced while it was worked on is not done: it goes back to waiting, at attempt 1, and counts
-- nothing. A job that the worker no longer holds is left alone.
--
-- KEYS  1-12 as queue.lua · 13… job:<id> (string)
-- ARGV  1-4 as queue.lua · 5 "remove" or "keep": what happens to jobs that do not say it themselves · 6 most completed jobs
--       kept (-1: no limit) · 7 longest time they are kept (ms; -1: no limit)
--       then per job: entry id · in one: the head it has if it is plain (30 bytes: place and entry id, no attempt and no stall,
--       version worked on, no import, no extras), ending; which is what the import counts ("inserted", "updated", "stale", or
--       nothing), or MessagePack [that, "remove" or "keep" or nil, most kept or nil, longest kept (ms) or nil, result or nil,
--       deduplication id to free or nil]
-- Returns one letter per job: D done · C changed, runs again · L lost
-- At most 256 jobs a call.

local keep_default, count_default, age_default = ARGV[OWN_ARGS], tonumber(ARGV[OWN_ARGS + 1]), tonumber(ARGV[OWN_ARGS + 2])
local FIRST_ARG, ARGS, ENDING_AT = OWN_ARGS + 3, 2, HEAD_LAST + 2
local ID_AT = #JOB + 1
local VERSION_LAST = 21 -- where the version ends in a head
local PACKED = 0x90 -- an ending that begins with this, or more, is MessagePack
local TRIMMED_MAX = 256

local statuses, gone, healed, changes = {}, {}, {}, {}
local n_done, n_kept, count_kept, age_kept = 0, 0, count_default, age_default

-- Whether a job is as its worker read it, has never failed, and says nothing of its ending but what its import counts.
local function is_as_read(head, told)
  return head and string.sub(head, 1, VERSION_LAST) == string.sub(told, 1, VERSION_LAST)
    and (string.byte(told, ENDING_AT) or 0) < PACKED
end

-- What stands behind the version in a head, and where its import counts: the jobs of a source have the same.
local known_rest, known_group, known_counts
local function know(rest)
  local import = string.sub(rest, 1, #NO_IMPORT)
  local _, group = extras(string.rep('\0', VERSION_LAST) .. rest)
  known_rest, known_group, known_counts = rest, group, nil
  if import ~= NO_IMPORT then
    known_counts = changes[import] or {}
    changes[import] = known_counts
  end
end

-- Makes room in the group of such a job, and counts it for its import.
local function leave_as_read(head, told)
  local rest, tally = string.sub(head, VERSION_LAST + 1), string.sub(told, ENDING_AT)
  if rest ~= known_rest then
    know(rest)
  end
  give_up_room(known_group)
  if known_counts then
    known_counts.open = (known_counts.open or 0) - 1
    if tally ~= '' then known_counts[tally] = (known_counts[tally] or 0) + 1 end
  end
end

local met = {} -- a job that was delivered twice (the group was created anew) counts once
local plain_goes = keep_default ~= 'keep' and not ALL_EVENTS
local at = FIRST_ARG
for i = OWN_KEYS, #KEYS do
  local key, entry, told = KEYS[i], ARGV[at], ARGV[at + 1]
  at = at + ARGS
  local head, status = read_head(key), 'L'
  if met[key] then
    head = false
  end
  if plain_goes and (head == told or is_as_read(head, told)) then -- most jobs
    met[key] = true
    status = 'D'
    n_done = n_done + 1
    leave_lane(string.sub(told, 1, 1), entry)
    gone[#gone + 1] = key
    if head ~= told then -- else there is no more in its head
      leave_as_read(head, told)
    end
  elseif holds(head, string.sub(told, 1, 11)) then
    met[key] = true
    local attempts, version, import = string.byte(head, 12), string.sub(head, 14, 21), string.sub(head, 22, 29)
    local id = string.sub(key, ID_AT)
    leave_lane(string.sub(told, 1, 1), entry)
    if version ~= string.sub(told, 14, 21) then
      status = 'C'
      put_back(key, id, head, UNTRIED)
    else
      status = 'D'
      n_done = n_done + 1
      leave_group(head)
      local keep, tally, result = keep_default, string.sub(told, ENDING_AT), nil
      if tally ~= '' and string.byte(tally) >= PACKED then
        local said = cmsgpack.unpack(tally)
        tally, result = said[1], said[5]
        if said[2] then
          keep, count_kept, age_kept = said[2], said[3] or -1, said[4] or -1
        end
        if said[6] and redis.call('GET', DEDUP .. said[6]) == id and redis.call('PTTL', DEDUP .. said[6]) < 0 then
          redis.call('UNLINK', DEDUP .. said[6])
        end
      end
      local tried = attempts > 0
      if tried then
        healed[#healed + 1] = id
      end
      if keep == 'keep' then
        local now = whole(now_ms())
        n_kept = n_kept + 1
        redis.call('SETRANGE', key, '0', 'c' .. NO_ENTRY)
        redis.call('ZADD', K.completed, now, id)
        redis.call('HSET', LOG .. id, 'finished', now)
        redis.call('PERSIST', LOG .. id)
        if result then redis.call('HSET', LOG .. id, 'result', result) end
      else
        gone[#gone + 1] = key
        if tried or result then gone[#gone + 1] = LOG .. id end
      end
      count(changes, import, 'open', -1)
      if tally ~= '' then
        count(changes, import, tally, 1)
      end
      if ALL_EVENTS then event('completed', id, 'returnvalue', result or 'null', 'prev', 'active') end
    end
  end
  statuses[#statuses + 1] = status
end

drop_left()
apply_groups()
wake_readers()
if #gone > 0 then
  redis.call('UNLINK', unpack(gone))
end
if n_done > 0 then
  redis.call('HINCRBY', K.meta, 'completed', n_done)
  count_minute('completed', n_done)
  note_drained()
end
if n_kept > 0 then
  trim_completed(count_kept, age_kept, TRIMMED_MAX)
end
if #healed > 0 then
  redis.call('HDEL', K.failures, unpack(healed))
end
apply_counts(changes, IMPORT, K.closing)
return table.concat(statuses)

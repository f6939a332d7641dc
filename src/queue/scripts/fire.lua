-- Fires schedulers whose slot has come: adds the jobs of each and sets its next slot, in one step.
--
-- A slot is fired by whoever comes first. The score of a scheduler is its next slot, so whoever comes second finds
-- another one there and changes nothing; so does whoever computed the next slot from a definition that was replaced since.
-- The add is a plain one, without a version:
--
--   nowhere                                → enqueued
--   dead, completed and kept               → taken over, enqueued
--   living                                 → duplicate: nothing is added, the slot passes
--
-- Jobs are added before the slot is set: a call that fails in between is repeated, and finds them.
--
-- KEYS  1-12 as queue.lua · 13 schedulers (zset) · 14… job:<id> (string), one per job
-- ARGV  1-4 as queue.lua · 5 prefix of scheduler keys (hashes) · then per scheduler: id · slot it is believed to have (ms)
--       · when it may be fired (ms) · next slot (ms; empty: there is none, and the scheduler goes) · revision it is believed
--       to have (empty: nothing is stored of it) · most jobs it may ever add (empty: any number) · the last of the slots that
--       get a job (ms; empty: none does) · envelope (empty: the stored template) · its extras as in a head, length first (or
--       empty) · number of jobs · their ids
-- Returns one string per scheduler: N nothing done: it has another slot or revision by now, or it is too early; else a
--         letter per job: E enqueued · D its job lives · X the key of the job is of another type · O not added, the
--         scheduler has had all its jobs
-- At most 256 jobs or 512 KiB a call.

local schedulers, scheduler_prefix = KEYS[OWN_KEYS], ARGV[OWN_ARGS]
local FIRST_KEY, FIRST_ARG, ARGS = OWN_KEYS + 1, OWN_ARGS + 1, 10

local replies, changes = {}, {}
local n_enqueued, n_duplicate = 0, 0
local us = now_us()

-- Adds a job, if none lives under its id.
local function add(key, id, envelope, priority, group)
  local head, err = read_head(key)
  local place = head and string.sub(head, 1, 1)
  local known = head and stands(head, id)
  if err then
    return 'X'
  elseif known and place ~= 'f' and place ~= 'c' then
    n_duplicate = n_duplicate + 1
    if ALL_EVENTS then event('duplicated', id) end
    return 'D'
  end
  n_enqueued = n_enqueued + 1
  if head then
    redis.call('HDEL', K.failures, id)
    redis.call('UNLINK', LOG .. id)
    if known then -- its import has counted it already
      take_out(id, head)
    elseif place ~= 'f' and place ~= 'c' then -- a guard without a job: what it counted for will never settle
      count(changes, string.sub(head, 22, 29), 'open', -1)
      count(changes, string.sub(head, 22, 29), 'superseded', 1)
    end
  end
  -- Time stands still in a script, and no two jobs may have the same version: imports are named after it. A job takes
  -- longer than a microsecond, so the next call is beyond these.
  local version = struct.pack('>I8', us + n_enqueued)
  redis.call('SET', key, enter(id, priority, group, us + n_enqueued) .. UNTRIED .. '\0' .. version .. NO_IMPORT
    .. packed_extras(priority, group) .. envelope)
  if ALL_EVENTS then
    event('added', id)
    event('waiting', id)
  end
  return 'E'
end

local key_at, at = FIRST_KEY, FIRST_ARG
while at <= #ARGV do
  local id, slot, from, next_slot, revision = unpack(ARGV, at, at + 4)
  local limit, last_slot, envelope = tonumber(ARGV[at + 5]), ARGV[at + 6], ARGV[at + 7]
  local extra, n_jobs = ARGV[at + 8], tonumber(ARGV[at + 9])
  local hash = scheduler_prefix .. id
  local stored = redis.pcall('HMGET', hash, 'revision', 'fired', 'template', 'priority', 'group')
  if stored.err then -- the key is of another type: nothing of ours is stored
    stored = {}
  end
  local stands_at = redis.call('ZSCORE', schedulers, id)
  local is_believed = stands_at and tonumber(stands_at) == tonumber(slot) and (stored[1] or '') == revision
  local priority, group = 0, ''
  if envelope == '' then
    envelope, priority = stored[3], tonumber(stored[4] or 0) or 0
    group = WINDOW > 0 and stored[5] or '' -- groups count only on a queue that limits them
  elseif extra ~= '' then
    priority, group = struct.unpack('>I4', string.sub(extra, 2, 5)), string.sub(extra, 6)
  end
  local letters = 'N'
  if is_believed and envelope and tonumber(from) * 1000 <= us then
    letters = ''
    local fired = tonumber(stored[2] or 0) or 0
    for i = 0, n_jobs - 1 do
      local letter = 'O'
      if not limit or fired < limit then
        letter = add(KEYS[key_at + i], ARGV[at + ARGS + i], envelope, priority, group)
      end
      if letter == 'E' then
        fired = fired + 1
      end
      letters = letters .. letter
    end
    if next_slot == '' or (limit and fired >= limit) then
      redis.call('ZREM', schedulers, id)
      if revision ~= '' then
        redis.call('UNLINK', hash)
      end
    else
      redis.call('ZADD', schedulers, next_slot, id)
      if revision ~= '' and n_jobs > 0 then
        redis.call('HSET', hash, 'fired', whole(fired), 'last_slot', last_slot)
      end
    end
  end
  replies[#replies + 1] = letters
  key_at, at = key_at + n_jobs, at + ARGS + n_jobs
end

apply_groups()
wake_readers()
apply_counts(changes, IMPORT, K.closing)
if n_enqueued > 0 then redis.call('HINCRBY', K.meta, 'enqueued', n_enqueued) end
if n_duplicate > 0 then redis.call('HINCRBY', K.meta, 'duplicates', n_duplicate) end
return replies

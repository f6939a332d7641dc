-- Fires schedulers whose slot has come: adds the jobs of each and sets its next slot, in one step.
--
-- A slot is fired by whoever comes first. The score of a scheduler is its next slot, so whoever comes second finds
-- another one there and changes nothing; so does whoever computed the next slot from a definition that was replaced since.
-- The add is a plain one, without a version:
--
--   nowhere                    → enqueued
--   dead                       → taken over, enqueued
--   waiting, active, delayed   → duplicate: nothing is added, the slot passes
--
-- Jobs are added before the slot is set: a call that fails in between is repeated, and finds them.
--
-- KEYS  1 stream (stream) · 2 delayed (zset) · 3 failures (hash) · 4 dead (stream) · 5 meta (hash)
--       6 closing imports (zset) · 7 schedulers (zset) · 8… job:<id> (string), one per job
-- ARGV  1 prefix of import keys · 2 prefix of scheduler keys (hashes) · then per scheduler: id · slot it is believed to have
--       (ms) · when it may be fired (ms) · next slot (ms; empty: there is none, and the scheduler goes) · revision it is
--       believed to have (empty: nothing is stored of it) · most jobs it may ever add (empty: any number) · the last of the
--       slots that pass (ms; empty: none gets a job) · envelope (empty: the stored template) · number of jobs · their ids
-- Returns one string per scheduler: N nothing done: it has another slot or revision by now, or it is too early; else a
--         letter per job: E enqueued · D its job lives · X the key of the job is of another type · O not added, the
--         scheduler has had all its jobs
-- At most 256 jobs or 512 KiB a call.

local stream, delayed, failures, dead, meta, closing, schedulers =
  KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6], KEYS[7]
local import_prefix, scheduler_prefix = ARGV[1], ARGV[2]
local FIRST_KEY, FIRST_ARG, ARGS = 8, 3, 9

local places = {s = stream, d = delayed, f = dead}
local replies, changes = {}, {}
local n_enqueued, n_duplicate = 0, 0
local us = now_us()

-- Adds a job, if none lives under its id.
local function add(key, id, envelope)
  local head, err = read_head(key)
  local place = head and string.sub(head, 1, 1)
  if err then
    return 'X'
  elseif head and place ~= 'f' and stands(head, id, places) then
    n_duplicate = n_duplicate + 1
    return 'D'
  end
  n_enqueued = n_enqueued + 1
  if head then
    redis.call('HDEL', failures, id)
    if place == 'f' then -- its import has counted it as failed already
      redis.call('XDEL', dead, unpacked(string.sub(head, 2, 11)))
    else -- a guard without a job: what it counted for will never settle
      count(changes, string.sub(head, 22, 29), 'open', -1)
      count(changes, string.sub(head, 22, 29), 'superseded', 1)
    end
  end
  -- Time stands still in a script, and no two jobs may have the same version: imports are named after it. A job takes
  -- longer than a microsecond, so the next call is beyond these.
  local version = struct.pack('>I8', us + n_enqueued)
  redis.call('SET', key, 's' .. add_entry(stream, id) .. UNTRIED .. '\0' .. version .. NO_IMPORT .. '\0' .. envelope)
  return 'E'
end

local key_at, at = FIRST_KEY, FIRST_ARG
while at <= #ARGV do
  local id, slot, from, next_slot, revision = unpack(ARGV, at, at + 4)
  local limit, last_slot, envelope, n_jobs = tonumber(ARGV[at + 5]), ARGV[at + 6], ARGV[at + 7], tonumber(ARGV[at + 8])
  local hash = scheduler_prefix .. id
  local stored = redis.pcall('HMGET', hash, 'revision', 'fired', 'template')
  if stored.err then -- the key is of another type: nothing of ours is stored
    stored = {}
  end
  local stands_at = redis.call('ZSCORE', schedulers, id)
  local is_believed = stands_at and tonumber(stands_at) == tonumber(slot) and (stored[1] or '') == revision
  if envelope == '' then
    envelope = stored[3]
  end
  local letters = 'N'
  if is_believed and envelope and tonumber(from) * 1000 <= us then
    letters = ''
    local fired = tonumber(stored[2] or 0) or 0
    for i = 0, n_jobs - 1 do
      local letter = 'O'
      if not limit or fired < limit then
        letter = add(KEYS[key_at + i], ARGV[at + ARGS + i], envelope)
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
        redis.call('HSET', hash, 'fired', string.format('%.0f', fired), 'last_slot', last_slot)
      end
    end
  end
  replies[#replies + 1] = letters
  key_at, at = key_at + n_jobs, at + ARGS + n_jobs
end

apply_counts(changes, import_prefix, closing)
if n_enqueued > 0 then redis.call('HINCRBY', meta, 'enqueued', n_enqueued) end
if n_duplicate > 0 then redis.call('HINCRBY', meta, 'duplicates', n_duplicate) end
return replies

-- Fires schedulers whose slot has come: adds the job of each and sets its next slot, in one step.
--
-- A slot is fired by whoever comes first. The score of a scheduler is its next slot, so whoever comes second finds
-- another one there and changes nothing. The add is a plain one, without a version:
--
--   nowhere                    → enqueued
--   dead                       → taken over, enqueued
--   waiting, active, delayed   → duplicate: nothing is added, the slot passes
--
-- KEYS  1 stream (stream) · 2 delayed (zset) · 3 failures (hash) · 4 dead (stream) · 5 meta (hash)
--       6 closing imports (zset) · 7 schedulers (zset) · 8… job:<id> (string), one per scheduler
-- ARGV  1 prefix of import keys · then per scheduler: id · slot it is believed to have (ms) · when it may be fired (ms)
--       · next slot (ms; empty: there is none, and the scheduler goes) · envelope
-- Returns statuses, one letter per scheduler: E fired, its job is enqueued · D fired, its job lives · N nothing done: it
--         has another slot by now, or it is too early · X its job's key is of another type: the slot passes
-- At most 256 schedulers a call.

local stream, delayed, failures, dead, meta, closing, schedulers =
  KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6], KEYS[7]
local import_prefix = ARGV[1]
local FIRST_KEY, FIRST_ARG, ARGS = 8, 2, 5

local places = {s = stream, d = delayed, f = dead}
local statuses, changes = {}, {}
local n_enqueued, n_duplicate = 0, 0
local us = now_us()

for i = FIRST_KEY, #KEYS do
  local key, at = KEYS[i], FIRST_ARG + (i - FIRST_KEY) * ARGS
  local id, slot, from, next_slot, envelope = ARGV[at], ARGV[at + 1], ARGV[at + 2], ARGV[at + 3], ARGV[at + 4]
  local stands_at = redis.call('ZSCORE', schedulers, id)
  local status = 'N'
  if stands_at and tonumber(stands_at) == tonumber(slot) and tonumber(from) * 1000 <= us then
    if next_slot == '' then
      redis.call('ZREM', schedulers, id)
    else
      redis.call('ZADD', schedulers, next_slot, id)
    end
    local head, err = read_head(key)
    local place = head and string.sub(head, 1, 1)
    if err then
      status = 'X'
    elseif head and place ~= 'f' and stands(head, id, places) then
      status = 'D'
      n_duplicate = n_duplicate + 1
    else
      status = 'E'
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
      redis.call('SET', key,
        's' .. add_entry(stream, id) .. UNTRIED .. '\0' .. version .. NO_IMPORT .. '\0' .. envelope)
    end
  end
  statuses[#statuses + 1] = status
end

apply_counts(changes, import_prefix, closing)
if n_enqueued > 0 then redis.call('HINCRBY', meta, 'enqueued', n_enqueued) end
if n_duplicate > 0 then redis.call('HINCRBY', meta, 'duplicates', n_duplicate) end
return table.concat(statuses)

-- Fires schedulers whose slot has come: adds the job of each and sets its next slot, in one step.
--
-- A slot is fired by whoever comes first. The score of a scheduler is its next slot, so whoever comes second finds
-- another one there and changes nothing. The add is a plain one, without a version:
--
--   nowhere                                → enqueued
--   dead, completed and kept               → taken over, enqueued
--   living                                 → duplicate: nothing is added, the slot passes
--
-- KEYS  1-12 as queue.lua · 13 schedulers (zset) · 14… job:<id> (string), one per scheduler
-- ARGV  1-4 as queue.lua · then per scheduler: id · slot it is believed to have (ms) · when it may be fired (ms)
--       · next slot (ms; empty: there is none, and the scheduler goes) · envelope · extras as in a head, length first (or empty)
-- Returns statuses, one letter per scheduler: E fired, its job is enqueued · D fired, its job lives · N nothing done: it
--         has another slot by now, or it is too early · X its job's key is of another type: the slot passes
-- At most 256 schedulers a call.

local schedulers = KEYS[OWN_KEYS]
local FIRST_KEY, FIRST_ARG, ARGS = OWN_KEYS + 1, OWN_ARGS, 6

local statuses, changes = {}, {}
local n_enqueued, n_duplicate = 0, 0
local us = now_us()

for i = FIRST_KEY, #KEYS do
  local key, at = KEYS[i], FIRST_ARG + (i - FIRST_KEY) * ARGS
  local id, slot, from, next_slot, envelope, extra = unpack(ARGV, at, at + 5)
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
    local known = head and stands(head, id)
    if err then
      status = 'X'
    elseif known and place ~= 'f' and place ~= 'c' then
      status = 'D'
      n_duplicate = n_duplicate + 1
    else
      status = 'E'
      n_enqueued = n_enqueued + 1
      if head then
        redis.call('HDEL', K.failures, id)
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
      local priority, group = 0, ''
      if extra ~= '' then
        priority, group = struct.unpack('>I4', string.sub(extra, 2, 5)), string.sub(extra, 6)
      end
      redis.call('SET', key, enter(id, priority, group, us + n_enqueued) .. UNTRIED .. '\0' .. version .. NO_IMPORT
        .. packed_extras(priority, group) .. envelope)
      if ALL_EVENTS then
        event('added', id)
        event('waiting', id)
      end
    end
  end
  statuses[#statuses + 1] = status
end

apply_groups()
wake_readers()
apply_counts(changes, IMPORT, K.closing)
if n_enqueued > 0 then redis.call('HINCRBY', K.meta, 'enqueued', n_enqueued) end
if n_duplicate > 0 then redis.call('HINCRBY', K.meta, 'duplicates', n_duplicate) end
return table.concat(statuses)

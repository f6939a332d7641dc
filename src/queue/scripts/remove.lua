-- Removes jobs that are not active, with everything that is kept of them: guard, log, errors, deduplication id. The room that
-- they leave in their group is filled, their import counts them as removed, and the feed of an item that did not finish
-- forgets it, so that the next fetch brings it again.
--
-- KEYS  1-12 as queue.lua · 13… job:<id> (string)
-- ARGV  1-4 as queue.lua · 5 place in which a job must stand, as heads call it; empty: any · 6 least age (ms): since it
--       finished, failed, or else was enqueued
--       then per job: id · record that makes the seen map forget (16 bytes, or empty)
-- Returns one letter per job: R removed · Y too young · N no such job · a small one: its state (see states.lua), it was left
-- At most 256 jobs a call.

local wanted, least_age = ARGV[OWN_ARGS], tonumber(ARGV[OWN_ARGS + 1])
local FIRST_ARG, ARGS = OWN_ARGS + 2, 2

local now = now_ms()

-- How long ago a job finished, failed, or was enqueued (ms).
local function age(head, id, said)
  local place, since = string.sub(head, 1, 1), nil
  if place == 'c' then
    since = tonumber(redis.call('ZSCORE', K.completed, id) or 0)
  elseif place == 'f' then
    since = struct.unpack('>I6', string.sub(head, 2, 7))
  else
    since = said.at or math.floor(struct.unpack('>I8', string.sub(head, 14, 21)) / 1000)
  end
  return now - since
end

local statuses, changes, n_removed = {}, {}, 0
for i = OWN_KEYS, #KEYS do
  local key, at = KEYS[i], FIRST_ARG + (i - OWN_KEYS) * ARGS
  local id, record = ARGV[at], ARGV[at + 1]
  local head = read_head(key)
  local place = head and string.sub(head, 1, 1)
  local status = 'N'
  if head then
    status = state_of(head, id)
    if status ~= 'a' and (wanted == '' or wanted == place) then
      local said = read_envelope(key, head)
      if least_age > 0 and age(head, id, said) < least_age then
        status = 'Y'
      else
        if ALL_EVENTS then event('removed', id, 'prev', STATE_NAMES[status]) end
        status = 'R'
        n_removed = n_removed + 1
        take_out(id, head)
        redis.call('UNLINK', key, LOG .. id)
        redis.call('HDEL', K.failures, id)
        free_dedup(said.dedup, id)
        if place ~= 'c' then
          forget(said.feed, record)
        end
        if place ~= 'c' and place ~= 'f' then -- those were counted when they ended
          count(changes, string.sub(head, 22, 29), 'open', -1)
          count(changes, string.sub(head, 22, 29), 'removed', 1)
        end
      end
    end
  end
  statuses[#statuses + 1] = status
end

drop_left()
apply_groups()
wake_readers()
apply_counts(changes, IMPORT, K.closing)
if n_removed > 0 then
  redis.call('HINCRBY', K.meta, 'removed', n_removed)
end
return table.concat(statuses)

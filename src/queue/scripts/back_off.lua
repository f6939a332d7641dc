-- Sends jobs from active to the backoff zset, to be promoted when their wait is over. Their room in their group is free
-- meanwhile.
--
-- A job whose content was replaced while it was worked on goes back to waiting instead, at attempt 1.
--
-- KEYS  1-12 as queue.lua · 13… job:<id> (string)
-- ARGV  1-4 as queue.lua
--       then per job: entry id · place and entry id (11 bytes) · version worked on (8 bytes) · id · wait (ms)
--       · error text (empty: no attempt is used)
-- Returns {statuses, ms until the next due job}; per job: B backs off · C changed, runs again · L lost
-- At most 256 jobs a call.

local FIRST_ARG, ARGS = OWN_ARGS, 6

local us = now_us()
local now, waits_from = math.floor(us / 1000), math.ceil(us / 1000) -- rounded up: no wait is cut short
local statuses, n_retried = {}, 0
note_earliest_due()
for i = OWN_KEYS, #KEYS do
  local key, at = KEYS[i], FIRST_ARG + (i - OWN_KEYS) * ARGS
  local entry, ref, version, id = ARGV[at], ARGV[at + 1], ARGV[at + 2], ARGV[at + 3]
  local span, reason = tonumber(ARGV[at + 4]), ARGV[at + 5]
  local head = read_head(key)
  local status = 'L'
  if holds(head, ref) then
    leave_lane(string.sub(ref, 1, 1), entry)
    if string.sub(head, 14, 21) ~= version then
      status = 'C'
      put_back(key, id, head, UNTRIED)
    else
      status = 'B'
      local due = span == 0 and now or waits_from + span
      local attempts = string.byte(head, 12)
      if reason ~= '' then
        attempts = math.min(attempts + 1, 255)
        n_retried = n_retried + 1
        local first = first_failure(redis.call('HGET', K.failures, id), now)
        redis.call('HSET', K.failures, id, cmsgpack.pack({first, now, reason}))
        log_error(id, attempts, reason)
      end
      if EVENTS_MAX > 0 and (reason ~= '' or ALL_EVENTS) then
        if reason == '' then
          event('delayed', id, 'delay', whole(due))
        else
          event('delayed', id, 'delay', whole(due), 'failedReason', reason)
        end
      end
      redis.call('SETRANGE', key, '0', 'd' .. NO_ENTRY .. string.char(attempts))
      leave_group(head)
      delay(id, due)
    end
  end
  statuses[#statuses + 1] = status
end

drop_left()
apply_groups()
if n_retried > 0 then
  redis.call('HINCRBY', K.meta, 'retried', n_retried)
end
local due = wake_readers()
return {table.concat(statuses), due and math.max(0, tonumber(due) - now) or -1}

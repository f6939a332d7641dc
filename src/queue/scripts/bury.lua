-- Gives up on jobs: from active to the dead letters, with the reason. The guard stays and holds the envelope, unless the job
-- itself says that it is not to be kept.
--
-- A job whose content was replaced while it was worked on goes back to waiting instead, at attempt 1.
--
-- KEYS  1-12 as queue.lua · 13… job:<id> (string)
-- ARGV  1-4 as queue.lua · 5 consumer · 6 most failures an import lists
--       then per job: entry id · place and entry id (11 bytes) · version worked on (8 bytes) · id · reason
--       · "exhausted" when its attempts are used up, else empty · deduplication id to free, or empty
-- Returns one letter per job: F buried · C changed, runs again · L lost
-- At most 256 jobs a call.

local consumer, listed_max = ARGV[OWN_ARGS], tonumber(ARGV[OWN_ARGS + 1])
local FIRST_ARG, ARGS = OWN_ARGS + 2, 7

local statuses, n_buried = {}, 0
for i = OWN_KEYS, #KEYS do
  local key, at = KEYS[i], FIRST_ARG + (i - OWN_KEYS) * ARGS
  local entry, ref, version, id = ARGV[at], ARGV[at + 1], ARGV[at + 2], ARGV[at + 3]
  local reason, exhausted, dedup = ARGV[at + 4], ARGV[at + 5], ARGV[at + 6]
  local head = read_head(key)
  local status = 'L'
  if holds(head, ref) then
    leave_lane(string.sub(ref, 1, 1), entry)
    if string.sub(head, 14, 21) ~= version then
      status = 'C'
      put_back(key, id, head, UNTRIED)
    else
      status = 'F'
      n_buried = n_buried + 1
      leave_group(head)
      local attempts = math.min(string.byte(head, 12) + 1, 255)
      log_error(id, attempts, reason)
      bury(key, head, id, reason, attempts, consumer, exhausted == 'exhausted', listed_max)
      if dedup ~= '' and redis.call('GET', DEDUP .. dedup) == id and redis.call('PTTL', DEDUP .. dedup) < 0 then
        redis.call('UNLINK', DEDUP .. dedup)
      end
      keep_as_told(key, id, read_envelope(key, head))
    end
  end
  statuses[#statuses + 1] = status
end

drop_left()
apply_groups()
wake_readers()
count_buried(n_buried)
if n_buried > 0 then note_drained() end
return table.concat(statuses)

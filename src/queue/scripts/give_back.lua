-- Gives active jobs back to waiting, untouched: neither an attempt nor a stall is counted. They go to the tail.
--
-- KEYS  1-12 as queue.lua · 13… job:<id> (string)
-- ARGV  1-4 as queue.lua · then per job: entry id · place and entry id (11 bytes) · id
-- Returns one letter per job: W waiting again · L lost
-- At most 256 jobs a call.

local FIRST_ARG, ARGS = OWN_ARGS, 3

local statuses = {}
for i = OWN_KEYS, #KEYS do
  local key, at = KEYS[i], FIRST_ARG + (i - OWN_KEYS) * ARGS
  local entry, ref, id = ARGV[at], ARGV[at + 1], ARGV[at + 2]
  local head = read_head(key)
  local status = 'L'
  if holds(head, ref) then
    status = 'W'
    leave_lane(string.sub(ref, 1, 1), entry)
    put_back(key, id, head)
  end
  statuses[#statuses + 1] = status
end
drop_left()
apply_groups()
wake_readers()
return table.concat(statuses)

-- Brings jobs back to waiting, at attempt 1: those that are dead, and those that are completed and kept.
--
-- KEYS  1-12 as queue.lua · 13… job:<id> (string)
-- ARGV  1-4 as queue.lua · then per job: id
-- Returns one letter per job: R waiting again · N no such job · a small one: its state (see states.lua), it was left
-- At most 256 jobs a call.

local statuses, n_dead = {}, 0
local arrival = now_us()
for i = OWN_KEYS, #KEYS do
  local key, id = KEYS[i], ARGV[OWN_ARGS + i - OWN_KEYS]
  local head = read_head(key)
  local status = head and state_of(head, id) or 'N'
  if status == 'f' or status == 'c' then
    n_dead = n_dead + (status == 'f' and 1 or 0)
    status = 'R'
    arrival = arrival + 1
    revive(key, id, head, arrival)
  end
  statuses[#statuses + 1] = status
end
apply_groups()
wake_readers()
count_redriven(n_dead)
return table.concat(statuses)

-- Gives a job another priority, or none (0). One that waits for a worker, or is parked, moves to where it stands now in the
-- order, behind those of the same priority; of any other the head notes it for the next time that it waits.
--
-- KEYS  1-12 as queue.lua · 13 job:<id> (string)
-- ARGV  1-4 as queue.lua · 5 id · 6 priority
-- Returns D done · N no such job · u it stands nowhere, and was left

local key, id, priority = KEYS[OWN_KEYS], ARGV[OWN_ARGS], tonumber(ARGV[OWN_ARGS + 1])

local head = read_head(key)
local state = head and state_of(head, id) or 'N'
if state == 'N' or state == 'u' then
  return state
end
local before, group = extras(head)
if priority == before then
  return 'D'
end
local front, place, entry = string.sub(head, 1, 11), string.sub(head, 1, 1), string.sub(head, 2, 11)
if state == 'p' or (state == 'w' and place == 's') then -- it keeps its room in its group: it leaves its place and not the group
  if entry ~= NO_ENTRY then
    leave_lane(place, unpacked(entry))
  else
    redis.call('ZREM', K.prioritized, id)
  end
  front = wait(id, priority)
elseif place == 'g' then
  n_parked = n_parked - 1
  front = park(id, priority, group, (struct.unpack('>I8', string.sub(head, 14, 21)))) -- in the place of its old score
end
-- The extras may take more or less room than before, and the envelope follows them.
redis.call('SET', key, front .. string.sub(head, 12, HEAD_LAST) .. packed_extras(priority, group)
  .. redis.call('GETRANGE', key, #head, -1))
drop_left()
wake_readers()
return 'D'

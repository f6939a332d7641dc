-- Gives a delayed job another due time.
--
-- KEYS  1-12 as queue.lua · 13 job:<id> (string)
-- ARGV  1-4 as queue.lua · 5 id · 6 wait from now (ms)
-- Returns D done · N no such job · a small letter: its state (see states.lua), it was left

local key, id, span = KEYS[OWN_KEYS], ARGV[OWN_ARGS], tonumber(ARGV[OWN_ARGS + 1])

local head = read_head(key)
local state = head and state_of(head, id) or 'N'
if state ~= 'd' then
  return state
end
local us = now_us()
local due = span == 0 and math.floor(us / 1000) or math.ceil(us / 1000) + span -- rounded up: no wait is cut short
note_earliest_due()
delay(id, due)
wake_readers()
if ALL_EVENTS then event('delayed', id, 'delay', whole(due)) end
return 'D'

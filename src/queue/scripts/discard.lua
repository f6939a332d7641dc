-- Deletes dead letters with their guards, and makes feeds forget their items, so that the next fetch brings them again.
--
-- KEYS  1-12 as queue.lua · 13… job:<id> (string) of each letter (any key of the queue for a letter without an id)
-- ARGV  1-4 as queue.lua · 5 counter of meta that counts them: "discarded" or "removed"
--       then per letter: entry id in the dead letters · id or empty · record that makes the seen map forget (16 bytes, or
--       empty)
-- Returns one letter each: D deleted · G gone already
-- At most 256 letters a call.

local counter = ARGV[OWN_ARGS]
local FIRST_ARG, ARGS = OWN_ARGS + 1, 3

local statuses, n_deleted = {}, 0
for i = OWN_KEYS, #KEYS do
  local at = FIRST_ARG + (i - OWN_KEYS) * ARGS
  local letter, id, record = ARGV[at], ARGV[at + 1], ARGV[at + 2]
  local deleted = discard_letter(letter, id, record)
  if deleted then
    n_deleted = n_deleted + 1
    if ALL_EVENTS and id ~= '' and counter == 'removed' then event('removed', id, 'prev', 'failed') end
  end
  statuses[#statuses + 1] = deleted and 'D' or 'G'
end
if n_deleted > 0 then
  redis.call('HINCRBY', K.meta, counter, n_deleted)
end
return table.concat(statuses)

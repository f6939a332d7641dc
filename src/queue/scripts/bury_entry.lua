-- Makes a dead letter of an entry that no job can be made of: unreadable, or its guard is missing.
--
-- An entry that its job's head does not name (it was taken over) is only dropped. A job whose head is whole and whose
-- envelope is not is buried with its guard, as bury.lua does it.
--
-- KEYS  1-12 as queue.lua · 13 job:<id> (string; any key of the queue when the entry names no job)
-- ARGV  1-4 as queue.lua · 5 consumer · 6 most failures an import lists · 7 place of the entry's lane ("s" or "p")
--       8 entry id · 9 job id or empty · 10 reason · 11 raw bytes of the entry or empty
-- Returns F buried · O dropped, the job stands elsewhere · L the entry is no longer pending

local key = KEYS[OWN_KEYS]
local consumer, listed_max, place, entry = ARGV[OWN_ARGS], tonumber(ARGV[OWN_ARGS + 1]), ARGV[OWN_ARGS + 2], ARGV[OWN_ARGS + 3]
local id, reason, raw = ARGV[OWN_ARGS + 4], ARGV[OWN_ARGS + 5], ARGV[OWN_ARGS + 6]
local lane = LANES[place]

if redis.call('XACK', lane, GROUP, entry) == 0 then
  return 'L'
end
redis.call('XDEL', lane, entry)
local head = id ~= '' and read_head(key)
if head then
  if not holds(head, place .. packed(entry)) then
    return 'O'
  end
  leave_group(head)
  bury(key, head, id, reason, string.byte(head, 12), consumer, false, listed_max)
  apply_groups()
  wake_readers()
else
  bury_remains(id ~= '' and id, raw ~= '' and raw, reason, id ~= '' and id or entry, consumer)
end
count_buried(1)
return 'F'

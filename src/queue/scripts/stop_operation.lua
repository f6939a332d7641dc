-- Says in the note of an operation on many jobs that somebody wants it to stop: whoever runs it reads that when it notes how
-- far it is. The time of the note stays, since that is when its process was last heard of.
--
-- KEYS  1 operations (hash: id to the time of the note in ms, ' stop' once somebody wants it to stop, ':', and the note)
-- ARGV  1 id
-- Returns 1, or 0 when there is no such note

local operations = KEYS[1]
local id = ARGV[1]

local noted = redis.call('HGET', operations, id)
if not noted then
  return 0
end
redis.call('HSET', operations, id, (string.gsub(noted, '^(%d+):', '%1 stop:')))
return 1

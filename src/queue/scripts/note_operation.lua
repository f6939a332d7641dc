-- Notes how far an operation on many jobs is, and forgets the oldest ones.
--
-- KEYS  1 operations (hash: id to the time of the note in ms, ':', and the note)
-- ARGV  1 id; ids of later operations are greater · 2 note · 3 most operations that are kept · 4 how long they are (ms)
-- Returns how many there are

local operations = KEYS[1]
local id, note, kept_max, lifetime = ARGV[1], ARGV[2], tonumber(ARGV[3]), ARGV[4]

redis.call('HSET', operations, id, whole(now_ms()) .. ':' .. note)
redis.call('PEXPIRE', operations, lifetime)
local surplus = redis.call('HLEN', operations) - kept_max
if surplus > 0 then
  local ids = redis.call('HKEYS', operations)
  table.sort(ids)
  redis.call('HDEL', operations, unpack(ids, 1, surplus))
end
return redis.call('HLEN', operations)

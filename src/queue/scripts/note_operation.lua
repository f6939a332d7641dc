-- Notes how far an operation on many jobs is, forgets the oldest ones, and tells whether somebody wants it to stop.
--
-- KEYS  1 operations (hash: id to the time of the note in ms, ' stop' once somebody wants it to stop, ':', and the note)
-- ARGV  1 id; ids of later operations are greater · 2 note · 3 most operations that are kept · 4 how long they are (ms)
-- Returns 1 if somebody wants it to stop, else 0

local operations = KEYS[1]
local id, note, kept_max, lifetime = ARGV[1], ARGV[2], tonumber(ARGV[3]), ARGV[4]

local wanted = string.match(redis.call('HGET', operations, id) or '', '^%d+( stop):') or ''
redis.call('HSET', operations, id, whole(now_ms()) .. wanted .. ':' .. note)
redis.call('PEXPIRE', operations, lifetime)
local surplus = redis.call('HLEN', operations) - kept_max
if surplus > 0 then
  local ids = redis.call('HKEYS', operations)
  table.sort(ids)
  redis.call('HDEL', operations, unpack(ids, 1, surplus))
end
return wanted == '' and 0 or 1

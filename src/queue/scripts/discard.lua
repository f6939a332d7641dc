-- Deletes a dead letter with its guard, and makes its feed forget the item, so that the next fetch brings it again.
--
-- KEYS  1-12 as queue.lua · 13 job:<id> (string) · 14 seen map (string) · 15 feed (hash)
--       (13 to 15: any key of the queue when there is none)
-- ARGV  1-4 as queue.lua · 5 entry id in the dead letters · 6 id or empty · 7 record that makes the seen map forget (16 bytes,
--       or empty)
-- Returns 1 deleted · 0 gone already

local key, seen, feed = KEYS[OWN_KEYS], KEYS[OWN_KEYS + 1], KEYS[OWN_KEYS + 2]
local letter, id, record = ARGV[OWN_ARGS], ARGV[OWN_ARGS + 1], ARGV[OWN_ARGS + 2]

if redis.call('XDEL', K.dead, letter) == 0 then
  return 0
end
local head = id ~= '' and read_head(key)
if head and holds(head, 'f' .. packed(letter)) then
  redis.call('UNLINK', key, LOG .. id)
  redis.call('HDEL', K.failures, id)
  forget(seen, feed, record)
end
redis.call('HINCRBY', K.meta, 'discarded', 1)
return 1

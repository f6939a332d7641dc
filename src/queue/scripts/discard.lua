-- Deletes a dead letter with its guard, and makes its feed forget the item, so that the next fetch brings it again.
--
-- KEYS  1 dead (stream) · 2 failures (hash) · 3 meta (hash) · 4 job:<id> (string) · 5 seen map (string) · 6 feed (hash)
--       (4 to 6: any key of the queue when there is none)
-- ARGV  1 entry id in the dead letters · 2 id or empty · 3 record that makes the seen map forget (16 bytes, or empty)
-- Returns 1 deleted · 0 gone already

local dead, failures, meta, key, seen, feed = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]
local letter, id, forget = ARGV[1], ARGV[2], ARGV[3]

if redis.call('XDEL', dead, letter) == 0 then
  return 0
end
local head = id ~= '' and read_head(key)
if head and string.sub(head, 1, 1) == 'f' and string.sub(head, 2, 11) == packed(letter) then
  redis.call('UNLINK', key)
  redis.call('HDEL', failures, id)
  if forget ~= '' then
    if redis.call('EXISTS', seen) == 1 then
      redis.call('APPEND', seen, forget)
    end
    redis.call('HDEL', feed, 'etag', 'last_modified')
  end
end
redis.call('HINCRBY', meta, 'discarded', 1)
return 1

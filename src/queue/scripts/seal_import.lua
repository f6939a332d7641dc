-- Seals an import whose fetch will not do it: the fetch job is dead, or gone. If the fetch goes on all the same, it is
-- refused from here on: nothing counts for the import any more.
--
-- KEYS  1 closing imports (zset) · 2 import:<id> (hash)
-- ARGV  1 import id as text · 2 error
-- Returns 1 sealed · 0 was sealed, or is gone

local closing, import = KEYS[1], KEYS[2]
local import_id, err = ARGV[1], ARGV[2]

if redis.call('EXISTS', import) == 0 or redis.call('HEXISTS', import, 'sealed') == 1 then
  return 0
end
local counts = redis.call('HMGET', import, 'new', 'changed', 'duplicate')
local items = tonumber(counts[1] or 0) + tonumber(counts[2] or 0) + tonumber(counts[3] or 0)
redis.call('HDEL', import, 'fetch_version')
redis.call('HSET', import, 'sealed', now_ms(), 'status', 'failed', 'error', err, 'items', items)
close_if_through(import, closing, import_id)
return 1

-- Forgets an import: its record is in MongoDB, or it was never begun.
--
-- KEYS  1 imports (zset) · 2 closing imports (zset) · 3 import:<id> (hash)
-- ARGV  1 import id as text · 2 "closed" (only once it is closed) or "unused" (only if nothing has counted for it and its
--       fetch has not begun)
-- Returns 1 forgotten · 0 left alone

local imports, closing, import = KEYS[1], KEYS[2], KEYS[3]
local import_id, condition = ARGV[1], ARGV[2]

if condition == 'closed' and redis.call('HEXISTS', import, 'closed') == 0 and redis.call('EXISTS', import) == 1 then
  return 0
end
if condition == 'unused' and redis.call('HEXISTS', import, 'started') == 1 then
  return 0
end
redis.call('UNLINK', import)
redis.call('ZREM', imports, import_id)
redis.call('ZREM', closing, import_id)
return 1

-- Opens imports, one per feed that is about to be fetched, and gives them their ids.
--
-- KEYS  1 meta (hash) · 2 imports (zset: open imports by time of opening in ms)
-- ARGV  1 prefix of import keys · 2 run (groups imports started together, or empty) · 3 asked ("1": a record is kept
--       even if there was nothing to do)
--       then per import: feed · source
-- Returns the ids (8 bytes each), in the order asked for
-- At most 256 imports a call.

local meta, imports = KEYS[1], KEYS[2]
local import_prefix, run, asked = ARGV[1], ARGV[2], ARGV[3]

local ids = {}
local us = now_us()
local last = redis.call('HGET', meta, 'last_import')
last = last and struct.unpack('>I8', last) or 0
for at = 4, #ARGV, 2 do
  last = math.max(us, last + 1)
  local bytes = struct.pack('>I8', last)
  local key = import_key(import_prefix, bytes)
  redis.call('HSET', key, 'feed', ARGV[at], 'source', ARGV[at + 1], 'run', run, 'asked', asked,
    'opened', math.floor(us / 1000))
  redis.call('ZADD', imports, math.floor(us / 1000), string.sub(key, #import_prefix + 1))
  ids[#ids + 1] = bytes
end
redis.call('HSET', meta, 'last_import', struct.pack('>I8', last))
return ids

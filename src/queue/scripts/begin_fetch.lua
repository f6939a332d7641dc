-- Begins a fetch of a feed: gives it a version and hands over what is remembered of the feed.
--
-- From here on an older fetch of the same feed, whose worker was given up, is refused by enqueue.lua and finish_fetch.lua:
-- the version stands in the seen map and in the import.
--
-- KEYS  1 feed (hash) · 2 seen map (string) · 3 meta (hash) · 4 imports (zset) · 5 import:<id> (hash)
-- ARGV  1 import id as text · 2 first 8 bytes of a seen map · 3 lifetime of the seen map (ms) · 4 feed · 5 source
--       6 asked ("0" or "1") · 7 run (or empty)
-- Returns {"through"} when this very import, or a later one of the feed, was finished before (the worker died between
--         that and settling its job); {"sealed", import the feed was last fetched for} when
--         nobody was believed to finish the import and it was sealed: the fetch needs another one; else
--         {"begun", version (8 bytes), seen map, run id of Redis, losses of the queue so far, field, value, … of the feed}

local feed, seen, meta, imports, import = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local import_id, map_front, lifetime, name, source, asked, run =
  ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6], ARGV[7]

-- Ids grow with time. One that is behind and gone was finished, recorded and released.
local last_import = redis.call('HGET', feed, 'last_import')
local exists = redis.call('EXISTS', import) == 1
if last_import == import_id or
  (last_import and not exists and tonumber(import_id, 16) < tonumber(last_import, 16)) then
  return {'through'}
end
if redis.call('HEXISTS', import, 'sealed') == 1 then
  return {'sealed', redis.call('HGET', feed, 'current_import') or ''}
end
local us = now_us()
local last = redis.call('HGET', meta, 'last_version')
local version = struct.pack('>I8', math.max(us, last and struct.unpack('>I8', last) + 1 or 0))
redis.call('HSET', meta, 'last_version', version)
if redis.call('SETRANGE', seen, 8, version) == 16 then
  redis.call('SETRANGE', seen, '0', map_front)
end
redis.call('PEXPIRE', seen, lifetime)
redis.call('HSET', feed, 'last_fetch', math.floor(us / 1000), 'current_import', import_id)
if not exists then -- a fetch that was redriven
  redis.call('HSET', import, 'feed', name, 'source', source, 'run', run, 'asked', asked,
    'opened', math.floor(us / 1000))
end
redis.call('ZADD', imports, 'NX', math.floor(us / 1000), import_id)
redis.call('HSETNX', import, 'started', math.floor(us / 1000))
redis.call('HSET', import, 'fetch_version', version)
local run_id = string.match(redis.call('INFO', 'server'), 'run_id:(%w+)') or ''
return {'begun', version, redis.call('GET', seen), run_id, redis.call('HGET', meta, 'losses') or '0', unpack(redis.call('HGETALL', feed))}

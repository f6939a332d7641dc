-- Ends a fetch: writes the compacted seen map and the validators if nothing came in between, and seals the import.
--
-- Nothing about the feed is written once a newer fetch has begun, and the import is left to the fetch that owns it now.
-- The map and the validators are written only if the map has the length it should have: a record appended by somebody
-- else (an item to be forgotten) must neither be lost nor be hidden behind a 304.
--
-- KEYS  1 feed (hash) · 2 seen map (string) · 3 closing imports (zset) · 4 import:<id> (hash)
-- ARGV  1 import id as text · 2 version of the fetch (8 bytes) · 3 length the seen map should have (bytes)
--       4 compacted seen map (empty: leave it) · 5 lifetime of the seen map (ms)
--       6 validators: "set", "clear" or "keep" · 7 ETag · 8 Last-Modified · 9 run id of Redis when the fetch began
--       10 number n of fields of the feed · n × (field, value)
--       · then (field, value)… of the import: status, items, repeated (items that stood twice
--         in the feed), refused (items that did not get into the queue: they count as new and failed), recovered, error,
--         failure:<n>
-- Returns {1 the map was as long as expected · 0 not, or a newer fetch has begun; items, unchanged, new, changed,
--         duplicate of the import: zero when it was not sealed here}

local feed, seen, closing, import = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local import_id, version, length, map, lifetime = ARGV[1], ARGV[2], tonumber(ARGV[3]), ARGV[4], ARGV[5]
local validators, etag, last_modified, run_id, n_fields = ARGV[6], ARGV[7], ARGV[8], ARGV[9], tonumber(ARGV[10])
local FIRST_FIELD = 11

local undisturbed = 0
if redis.call('GETRANGE', seen, 8, 15) == version then
  if n_fields > 0 then
    redis.call('HSET', feed, unpack(ARGV, FIRST_FIELD, FIRST_FIELD + 2 * n_fields - 1))
  end
  if redis.call('STRLEN', seen) == length then
    undisturbed = 1
    if map ~= '' then
      redis.call('SET', seen, map)
    end
  end
  redis.call('PEXPIRE', seen, lifetime)
  if validators == 'clear' or (validators == 'set' and undisturbed == 0) then
    redis.call('HDEL', feed, 'etag', 'last_modified', 'run_id')
  elseif validators == 'set' then
    redis.call('HSET', feed, 'etag', etag, 'last_modified', last_modified, 'run_id', run_id)
  end
end

if redis.call('HGET', import, 'fetch_version') ~= version or redis.call('HEXISTS', import, 'sealed') == 1 then
  return {undisturbed, 0, 0, 0, 0, 0}
end
redis.call('HSET', feed, 'last_import', import_id)
redis.call('HSET', import, 'sealed', now_ms(), unpack(ARGV, FIRST_FIELD + 2 * n_fields))
local refused = tonumber(redis.call('HGET', import, 'refused') or 0)
if refused > 0 then
  redis.call('HINCRBY', import, 'new', refused)
  redis.call('HINCRBY', import, 'failed', refused)
end
local counts = redis.call('HMGET', import, 'items', 'new', 'changed', 'duplicate', 'repeated')
for i = 1, 5 do
  counts[i] = tonumber(counts[i] or 0)
end
local items, new, changed, duplicate = counts[1], counts[2], counts[3], counts[4] + counts[5]
-- A fetch that was tried again sees what its first try enqueued as unchanged: what was counted then stands.
local unchanged = math.max(0, items - new - changed - duplicate)
items = new + changed + duplicate + unchanged
redis.call('HSET', import, 'items', items, 'duplicate', duplicate, 'unchanged', unchanged)
close_if_through(import, closing, import_id)
return {undisturbed, items, unchanged, new, changed, duplicate}

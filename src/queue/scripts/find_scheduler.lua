-- Reads one scheduler with all that is stored of it. Changes nothing.
--
-- KEYS  1 schedulers (zset) · 2 scheduler:<id> (hash)
-- ARGV  1 id
-- Returns {time of Redis (ms), slot (ms) or nil, definition, revision, jobs added so far, last slot (ms), created (ms),
--         envelope, priority and group of its template}; nil for what is not there

local schedulers, hash = KEYS[1], KEYS[2]
local id = ARGV[1]

local stored = redis.pcall('HMGET', hash, 'definition', 'revision', 'fired', 'last_slot', 'created', 'template',
  'priority', 'group')
if stored.err then -- the key is of another type
  stored = {false, false, false, false, false, false, false, false}
end
return {now_ms(), redis.call('ZSCORE', schedulers, id) or false, unpack(stored)}

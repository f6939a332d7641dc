-- Stores a scheduler: its slot, its definition and the template of its jobs, in one step; or puts them in the place of the
-- ones that stand. Only if it still stands as the caller knows it: whoever fired or replaced it meanwhile changes what the
-- slot is to be.
--
-- KEYS  1 schedulers (zset) · 2 scheduler:<id> (hash)
-- ARGV  1 id · 2 slot it is believed to have (ms; empty: none) · 3 revision it is believed to have (empty: nothing is
--       stored of it) · 4 slot (ms) · 5 definition (JSON) · 6 "afresh": what it did so far is forgotten, or "on"
--       7 template: envelope · 8 priority (0 for none) · 9 group (or empty)
-- Returns 1 stored · 0 nothing done: it stands otherwise by now

local schedulers, hash = KEYS[1], KEYS[2]
local id, believed_slot, believed_revision, slot, definition, how, envelope, priority, group = unpack(ARGV)

local stored = redis.pcall('HMGET', hash, 'revision', 'created')
local is_broken = stored.err -- the key is of another type
if is_broken then
  stored = {}
end
local stands_at = redis.call('ZSCORE', schedulers, id) or ''
if tonumber(stands_at) ~= tonumber(believed_slot) or (stored[1] or '') ~= believed_revision then
  return 0
end
if is_broken then
  redis.call('UNLINK', hash)
end
-- The time of this change; never the same twice, so that who read another one is told from who read this one.
local revision = math.max(now_us(), (tonumber(stored[1] or 0) or 0) + 1)
redis.call('HSET', hash, 'definition', definition, 'template', envelope, 'priority', priority, 'group', group,
  'revision', whole(revision), 'created', stored[2] or whole(now_ms()))
if how == 'afresh' then
  redis.call('HDEL', hash, 'fired', 'last_slot')
end
redis.call('ZADD', schedulers, slot, id)
return 1

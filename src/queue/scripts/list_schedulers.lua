-- Reads a page of schedulers by their next slots. Changes nothing.
--
-- The page begins behind the one that the cursor names. If that one has been fired or removed since, it begins with the
-- slot of the cursor: those of the same slot that were listed before come again.
--
-- KEYS  1 schedulers (zset)
-- ARGV  1 prefix of scheduler keys (hashes) · 2 "asc": earliest first, or "desc" · 3 slot of the cursor (ms; empty: from the
--       beginning) · 4 id of the cursor · 5 most schedulers to list
-- Returns {number of schedulers, scheduler…}; per scheduler: {id, slot (ms), definition, revision, jobs added so far, last
--         slot (ms), created (ms), bytes of its template}; nil or 0 for what is not there
-- At most 256 schedulers a call.

local schedulers = KEYS[1]
local prefix, order, cursor_slot, cursor_id, limit = ARGV[1], ARGV[2], ARGV[3], ARGV[4], tonumber(ARGV[5])

local is_ascending = order == 'asc'
local first = 0
if cursor_slot ~= '' then
  local slot = redis.call('ZSCORE', schedulers, cursor_id)
  if slot and tonumber(slot) == tonumber(cursor_slot) then
    first = redis.call(is_ascending and 'ZRANK' or 'ZREVRANK', schedulers, cursor_id) + 1
  elseif is_ascending then
    first = redis.call('ZCOUNT', schedulers, '-inf', '(' .. cursor_slot)
  else
    first = redis.call('ZCOUNT', schedulers, '(' .. cursor_slot, '+inf')
  end
end
local page = redis.call(is_ascending and 'ZRANGE' or 'ZREVRANGE', schedulers, first, first + limit - 1, 'WITHSCORES')
local reply = {redis.call('ZCARD', schedulers)}
for i = 1, #page, 2 do
  local key = prefix .. page[i]
  local stored = redis.pcall('HMGET', key, 'definition', 'revision', 'fired', 'last_slot', 'created')
  if stored.err then -- the key is of another type
    stored = {false, false, false, false, false}
  end
  local bytes = stored[1] and redis.call('HSTRLEN', key, 'template') or 0
  reply[#reply + 1] = {page[i], page[i + 1], stored[1], stored[2], stored[3], stored[4], stored[5], bytes}
end
return reply

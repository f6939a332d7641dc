-- Looks at one page of the entries of a lane that were delivered: whether each is pending for somebody, and, if asked, has a
-- job. Changes nothing.
--
-- KEYS  1-12 as queue.lua
-- ARGV  1-4 as queue.lua · 5 place of the lane ("s" or "p") · 6 entry behind which the page begins ("-": from the beginning)
--       7 page size · 8 "g" to look for guards too: a command more for each entry, which who only counts orphans spares
-- Returns {entries looked at, last of them or empty when that were all, then letter, entry id and job id (or empty) of each
--         that is not as it should be}: O an orphan, delivered and pending for nobody · L pending, and its guard is missing
-- At most 128 entries a call.

local place, behind, page, guards = unpack(ARGV, OWN_ARGS, OWN_ARGS + 3)
local lane = LANES[place]

local group = group_of(lane)
if not group then
  return {0, ''}
end
-- A closed gate pretends that everything was delivered.
local reached = place == 's' and redis.call('HGET', K.meta, 'gate') or group['last-delivered-id']
local first = behind == '-' and '-' or '(' .. behind
local entries = redis.call('XRANGE', lane, first, reached, 'COUNT', page)
if #entries == 0 then
  return {0, ''}
end

local pending = {}
for _, row in ipairs(redis.call('XPENDING', lane, GROUP, entries[1][1], entries[#entries][1], page)) do
  pending[row[1]] = true
end
local reply = {#entries, #entries == tonumber(page) and entries[#entries][1] or ''}
for _, found in ipairs(entries) do
  local entry, fields = found[1], found[2]
  local id = fields[1] == 'id' and fields[2] or ''
  local letter
  -- Entries that were deleted while they were pending (Redis 6.2) may have used up the page of pending ones.
  if not pending[entry] and #redis.call('XPENDING', lane, GROUP, entry, entry, 1) == 0 then
    letter = 'O'
  elseif guards == 'g' and id ~= '' and redis.call('EXISTS', JOB .. id) == 0 then
    letter = 'L'
  end
  if letter then
    reply[#reply + 1] = letter
    reply[#reply + 1] = entry
    reply[#reply + 1] = id
  end
end
return reply

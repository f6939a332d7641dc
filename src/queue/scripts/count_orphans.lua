-- Counts, on one page of what was delivered of the work stream, the entries that are pending for nobody: nobody will ever
-- work on them. Changes nothing.
--
-- KEYS  1 stream (stream) · 2 prioritized:active (stream) · 3 meta (hash)
-- ARGV  1 entry behind which the page begins (0-0: from the beginning) · 2 most entries on it
-- Returns {last entry of the page (0-0: it was the last page), orphans on it, orphans of the prioritized lane}
-- At most 256 entries a call.

local stream, lane, meta = KEYS[1], KEYS[2], KEYS[3]
local behind, limit = ARGV[1], tonumber(ARGV[2])

-- All entries of the lane are pending.
local lane_group = group_of(lane)
local lane_orphans = lane_group and math.max(redis.call('XLEN', lane) - lane_group.pending, 0) or 0

local group = group_of(stream)
if not group then -- it is created again at 0: everything waits
  return {'0-0', 0, lane_orphans}
end
-- A closed gate pretends that everything was delivered.
local reached = redis.call('HGET', meta, 'gate') or group['last-delivered-id']
local entries = redis.call('XRANGE', stream, '(' .. behind, reached, 'COUNT', limit)
if #entries == 0 then
  return {'0-0', 0, lane_orphans}
end

local last, orphans, is_pending = entries[#entries][1], 0, {}
for _, row in ipairs(redis.call('XPENDING', stream, GROUP, entries[1][1], last, limit)) do
  is_pending[row[1]] = true
end
for _, entry in ipairs(entries) do
  local id = entry[1]
  -- Entries that were deleted while they were pending (Redis 6.2) may have used up the page of pending ones.
  if not is_pending[id] and #redis.call('XPENDING', stream, GROUP, id, id, 1) == 0 then
    orphans = orphans + 1
  end
end
return {#entries == limit and last or '0-0', orphans, lane_orphans}

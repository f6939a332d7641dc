-- Writes down how many jobs groups have, as somebody counted them, provided that no job moved since the count began; room that a
-- group turns out to have is filled with its parked jobs.
--
-- The fence says whether one moved: whatever gains or loses room in a group adds or deletes an entry of a lane, or a job with a
-- priority.
--
-- KEYS  1-12 as queue.lua
-- ARGV  1-4 as queue.lua · 5 fence as it was when the count began (empty: to learn it) · then per group: group · its jobs
-- Returns {fence now, groups that were corrected}; none are when the fence is another one
-- At most 128 groups a call.

local function lane_fence(lane)
  local info = redis.pcall('XINFO', 'STREAM', lane)
  local fields = {}
  for i = 1, #info, 2 do
    fields[info[i]] = info[i + 1]
  end
  return (fields['last-generated-id'] or '') .. ' ' .. (fields.length or '')
end
local counters = redis.call('HMGET', K.meta, 'prioritized', 'parked')
local fence = table.concat({lane_fence(K.stream), lane_fence(K.prioritized_active), redis.call('ZCARD', K.prioritized),
  counters[1] or '', counters[2] or ''}, ' ')

local n_corrected = 0
if ARGV[OWN_ARGS] == fence then
  for at = OWN_ARGS + 1, #ARGV, 2 do
    local group, n = ARGV[at], tonumber(ARGV[at + 1])
    if n_members(group) ~= n then
      members[group], n_left[group] = n, 0
      n_corrected = n_corrected + 1
    end
  end
  apply_groups()
  wake_readers()
end
return {fence, n_corrected}

-- Reads what consumers say of themselves, and some of the jobs that are pending for each.
--
-- KEYS  1 stream (stream) · 2 prioritized:active (stream)
-- ARGV  1 prefix of consumer keys · 2 most jobs of each · then names
-- Returns per name {{fields of its hash}, {ids of jobs: those with a priority, then the others by entry}}
-- At most 32 consumers and 10 jobs of each a call.

local LANES = {KEYS[2], KEYS[1]}
local prefix, jobs_max = ARGV[1], tonumber(ARGV[2])

local function id_of(lane, entry)
  local found = redis.call('XRANGE', lane, entry, entry)[1]
  return found and found[2][1] == 'id' and found[2][2]
end

local seen = {}
for i = 3, #ARGV do
  local ids = {}
  for _, lane in ipairs(LANES) do
    local wanted = jobs_max - #ids
    -- without the group nothing is pending
    for _, pending in ipairs(wanted > 0 and redis.pcall('XPENDING', lane, GROUP, '-', '+', wanted, ARGV[i]) or {}) do
      ids[#ids + 1] = id_of(lane, pending[1]) or nil
    end
  end
  seen[#seen + 1] = {redis.call('HGETALL', prefix .. ARGV[i]), ids}
end
return seen

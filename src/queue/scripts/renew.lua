-- Renews the leases of jobs that a worker holds: their entries count as just delivered.
--
-- KEYS  1 stream (stream) · 2 prioritized:active (stream) · 3… job:<id> (string)
-- ARGV  1 consumer · then per job: entry id · place and entry id (11 bytes)
-- Returns one letter per job: R renewed · L lost
-- At most 256 jobs a call.

local lanes, consumer = {s = KEYS[1], p = KEYS[2]}, ARGV[1]
local FIRST_KEY, FIRST_ARG, ARGS = 3, 2, 2

local statuses, held = {}, {s = {}, p = {}}
for i = FIRST_KEY, #KEYS do
  local at = FIRST_ARG + (i - FIRST_KEY) * ARGS
  local status = 'L'
  if holds(read_head(KEYS[i]), ARGV[at + 1]) then
    status = 'R'
    local entries = held[string.sub(ARGV[at + 1], 1, 1)]
    entries[#entries + 1] = ARGV[at]
  end
  statuses[#statuses + 1] = status
end
for place, entries in pairs(held) do
  if #entries > 0 then
    entries[#entries + 1] = 'JUSTID' -- leaves Redis's delivery count alone
    redis.call('XCLAIM', lanes[place], GROUP, consumer, 0, unpack(entries))
  end
end
return table.concat(statuses)

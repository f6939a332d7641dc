-- Renews the leases of jobs that a worker holds: their entries count as just delivered.
--
-- KEYS  1 stream (stream) · 2… job:<id> (string)
-- ARGV  1 group · 2 consumer · then per job: entry id · entry id (10 bytes)
-- Returns one letter per job: R renewed · L lost
-- At most 256 jobs a call.

local stream, group, consumer = KEYS[1], ARGV[1], ARGV[2]
local FIRST_KEY, FIRST_ARG, ARGS = 2, 3, 2

local statuses, held = {}, {}
for i = FIRST_KEY, #KEYS do
  local at = FIRST_ARG + (i - FIRST_KEY) * ARGS
  local status = 'L'
  if holds(read_head(KEYS[i]), ARGV[at + 1]) then
    status = 'R'
    held[#held + 1] = ARGV[at]
  end
  statuses[#statuses + 1] = status
end
if #held > 0 then
  held[#held + 1] = 'JUSTID' -- leaves Redis's delivery count alone
  redis.call('XCLAIM', stream, group, consumer, 0, unpack(held))
end
return table.concat(statuses)

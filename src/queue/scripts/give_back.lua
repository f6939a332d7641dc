-- Gives active jobs back to waiting, untouched: neither an attempt nor a stall is counted. They go to the tail.
--
-- KEYS  1 stream (stream) · 2… job:<id> (string)
-- ARGV  1 group · then per job: entry id · entry id (10 bytes) · id
-- Returns one letter per job: W waiting again · L lost
-- At most 256 jobs a call.

local stream, group = KEYS[1], ARGV[1]
local FIRST_KEY, FIRST_ARG, ARGS = 2, 2, 3

local statuses, left = {}, {}
for i = FIRST_KEY, #KEYS do
  local key, at = KEYS[i], FIRST_ARG + (i - FIRST_KEY) * ARGS
  local entry, ref, id = ARGV[at], ARGV[at + 1], ARGV[at + 2]
  local status = 'L'
  if holds(read_head(key), ref) then
    status = 'W'
    left[#left + 1] = entry
    put_on_stream(stream, key, id)
  end
  statuses[#statuses + 1] = status
end
drop_entries(stream, group, left)
return table.concat(statuses)

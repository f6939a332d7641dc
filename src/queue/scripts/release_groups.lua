-- Brings out parked jobs of groups that nothing would bring them out of: none of their jobs stands where it will be read, and
-- they are not held up. The others come out when those leave, as always.
--
-- KEYS  1-12 as queue.lua
-- ARGV  1-4 as queue.lua · 5… groups
-- Returns how many jobs came out
-- At most 256 groups and 256 jobs a call.

local left, n_out = 256, 0
for at = OWN_ARGS, #ARGV do
  local group = ARGV[at]
  if left > 0 and n_members(group) <= 0 and not redis.call('ZSCORE', HELD, group) then
    local n = unpark(group, math.min(left, WINDOW > 0 and WINDOW or left))
    left, n_out = left - n, n_out + n
  end
end
apply_groups()
wake_readers()
return n_out

-- Starts no job of a group for a while, whatever the limits: what a worker reads of it is parked. What is active goes on.
-- Or ends that, and brings out what was parked.
--
-- KEYS  1-12 as queue.lua
-- ARGV  1-4 as queue.lua · 5 group · 6 for how long (ms; 0 ends it)
-- Returns 1 held up, or released · 0 was not held up

local group, span = ARGV[OWN_ARGS], tonumber(ARGV[OWN_ARGS + 1])
local RELEASED_MAX = 256

if span > 0 then
  if not close_gate(K.stream, K.meta) then
    return NO_GROUP
  end
  redis.call('ZADD', HELD, whole(now_ms() + span), group)
  must_promote = true -- the promoter learns when it ends
elseif redis.call('ZREM', HELD, group) == 0 then
  return 0
else
  unpark(group, math.min(RELEASED_MAX, WINDOW > 0 and WINDOW - n_members(group) or RELEASED_MAX))
end
apply_groups()
wake_readers()
return 1

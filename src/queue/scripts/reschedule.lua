-- Sets, moves and removes schedulers, each only if its slot is still the one the caller knows: what somebody fired or
-- moved meanwhile is left alone.
--
-- KEYS  1 schedulers (zset)
-- ARGV  1 number of schedulers · then per scheduler: id · slot it is believed to have (ms; empty: it is believed
--       missing) · new slot (ms; empty: it goes)
-- Returns how many were set, moved or removed
-- At most 256 schedulers a call.

local schedulers = KEYS[1]
local FIRST_ARG, ARGS = 2, 3

local n_moved = 0
for i = 0, tonumber(ARGV[1]) - 1 do
  local at = FIRST_ARG + i * ARGS
  local id, believed, new = ARGV[at], ARGV[at + 1], ARGV[at + 2]
  local slot = redis.call('ZSCORE', schedulers, id)
  if (not slot and believed == '') or (slot and tonumber(slot) == tonumber(believed)) then
    n_moved = n_moved + 1
    if new == '' then
      redis.call('ZREM', schedulers, id)
    else
      redis.call('ZADD', schedulers, new, id)
    end
  end
end
return n_moved

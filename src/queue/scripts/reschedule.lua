-- Sets, moves and removes schedulers of which nothing is stored, each only if its slot is still the one the caller knows:
-- what somebody fired or moved meanwhile is left alone, and so is what has a stored definition.
--
-- KEYS  1 schedulers (zset)
-- ARGV  1 prefix of scheduler keys (hashes) · then per scheduler: id · slot it is believed to have (ms; empty: it is
--       believed missing) · new slot (ms; empty: it goes)
-- Returns one letter per scheduler: M set, moved or removed · L left: it has another slot by now · S left: its definition
--         is stored
-- At most 256 schedulers a call.

local schedulers = KEYS[1]
local prefix = ARGV[1]
local FIRST_ARG, ARGS = 2, 3

local letters = {}
for at = FIRST_ARG, #ARGV, ARGS do
  local id, believed, new = ARGV[at], ARGV[at + 1], ARGV[at + 2]
  local slot = redis.call('ZSCORE', schedulers, id)
  local letter = 'L'
  if redis.pcall('HEXISTS', prefix .. id, 'definition') == 1 then
    letter = 'S'
  elseif (not slot and believed == '') or (slot and tonumber(slot) == tonumber(believed)) then
    letter = 'M'
    if new == '' then
      redis.call('ZREM', schedulers, id)
    else
      redis.call('ZADD', schedulers, new, id)
    end
  end
  letters[#letters + 1] = letter
end
return table.concat(letters)

-- Removes a scheduler with all that is stored of it. Jobs that it added stay.
--
-- KEYS  1 schedulers (zset) · 2 scheduler:<id> (hash)
-- ARGV  1 id
-- Returns 1 removed · 0 there was none

local schedulers, hash = KEYS[1], KEYS[2]
local id = ARGV[1]

local n_slots = redis.call('ZREM', schedulers, id)
local n_hashes = redis.call('UNLINK', hash)
return n_slots + n_hashes > 0 and 1 or 0

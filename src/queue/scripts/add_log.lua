-- Adds a line to the log of a job; of more than are kept the oldest goes.
--
-- KEYS  1-12 as queue.lua · 13 job:<id> (string) · 14 log:<id> (hash)
-- ARGV  1-4 as queue.lua · 5 id · 6 place and entry id of the lease (11 bytes; empty: whoever has the job) · 7 most lines
--       kept · 8 line
-- Returns how many lines are kept now; -1 lost: the lease is, or there is no such job; nothing was written

local key, log, id, ref, kept, line = KEYS[OWN_KEYS], KEYS[OWN_KEYS + 1], unpack(ARGV, OWN_ARGS, OWN_ARGS + 3)
local DROPPED_MAX = 256 -- a call

local head = read_head(key)
if not head or (ref ~= '' and not holds(head, ref)) then
  return -1
end
kept = tonumber(kept)
local n = redis.call('HINCRBY', log, 'lines', 1)
redis.call('HSET', log, 'line:' .. n, line)
-- Usually one; more where fewer are kept than before.
local dropped = 0
while dropped < DROPPED_MAX and redis.call('HDEL', log, 'line:' .. (n - kept - dropped)) == 1 do
  dropped = dropped + 1
end
if not is_kept(head) then
  date_log(id)
end
return math.min(n, kept)

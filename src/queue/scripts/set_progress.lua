-- Sets how far a job is.
--
-- KEYS  1-12 as queue.lua · 13 job:<id> (string) · 14 log:<id> (hash)
-- ARGV  1-4 as queue.lua · 5 id · 6 place and entry id of the lease (11 bytes; empty: whoever has the job) · 7 progress
-- Returns K kept · L lost: the lease is, or there is no such job; nothing was written

local key, log, id, ref, progress = KEYS[OWN_KEYS], KEYS[OWN_KEYS + 1], unpack(ARGV, OWN_ARGS, OWN_ARGS + 2)

local head = read_head(key)
if not head or (ref ~= '' and not holds(head, ref)) then
  return 'L'
end
redis.call('HSET', log, 'progress', progress)
if not is_kept(head) then
  date_log(id)
end
if ALL_EVENTS then event('progress', id, 'data', progress) end
return 'K'

-- Closes a sealed import that waits for jobs which do not exist any more: their guards were evicted or deleted by hand,
-- and with the guards went the knowledge of their import. They count as failed.
--
-- Only while the queue has no live job at all is it certain that none of them is the import's.
--
-- KEYS  1-12 as queue.lua · 13 import:<id> (hash)
-- ARGV  1-4 as queue.lua · 5 import id as text
-- Returns the number of jobs that were missing; 0 when there is nothing to close

local import, import_id = KEYS[OWN_KEYS], ARGV[OWN_ARGS]

if redis.call('XLEN', K.stream) > 0 or redis.call('ZCARD', K.delayed) > 0 or redis.call('ZCARD', K.prioritized) > 0 or
  redis.call('XLEN', K.prioritized_active) > 0 or tonumber(redis.call('HGET', K.meta, 'parked') or 0) > 0 then
  return 0
end
local state = redis.call('HMGET', import, 'sealed', 'closed', 'open')
local missing = tonumber(state[3] or 0)
if not state[1] or state[2] or missing <= 0 then
  return 0
end
redis.call('HINCRBY', import, 'failed', missing)
redis.call('HINCRBY', import, 'open', -missing)
close_if_through(import, K.closing, import_id)
return missing

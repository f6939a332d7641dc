-- Closes a sealed import that waits for jobs which do not exist any more: their guards were evicted or deleted by hand,
-- and with the guards went the knowledge of their import. They count as failed.
--
-- Only while the queue has no live job at all is it certain that none of them is the import's.
--
-- KEYS  1 stream (stream) · 2 delayed (zset) · 3 closing imports (zset) · 4 import:<id> (hash)
-- ARGV  1 import id as text
-- Returns the number of jobs that were missing; 0 when there is nothing to close

local stream, delayed, closing, import = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local import_id = ARGV[1]

if redis.call('XLEN', stream) > 0 or redis.call('ZCARD', delayed) > 0 then
  return 0
end
local state = redis.call('HMGET', import, 'sealed', 'closed', 'open')
local missing = tonumber(state[3] or 0)
if not state[1] or state[2] or missing <= 0 then
  return 0
end
redis.call('HINCRBY', import, 'failed', missing)
redis.call('HINCRBY', import, 'open', -missing)
close_if_through(import, closing, import_id)
return missing

-- Moves jobs whose wait is over from the backoff zset to the stream.
--
-- An id without a guard (evicted, deleted by hand) becomes a dead letter, since there is nothing left to work on.
--
-- KEYS  1 stream (stream) · 2 delayed (zset) · 3 dead (stream) · 4 meta (hash) · 5 failures (hash)
-- ARGV  1 prefix of job keys · 2 most jobs to move
-- Returns {moved, buried, ms until the next due job or -1}
-- At most 256 jobs a call: 0 until the next due job means that more are due.

local stream, delayed, dead, meta, failures = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local job_prefix, limit = ARGV[1], tonumber(ARGV[2])

local now = now_ms()
local ids = redis.call('ZRANGEBYSCORE', delayed, '-inf', now, 'LIMIT', 0, limit)
local n_moved, n_buried = 0, 0
for _, id in ipairs(ids) do
  local key = job_prefix .. id
  local head = read_head(key)
  if head and string.sub(head, 1, 1) == 'd' then
    put_on_stream(stream, key, id)
    n_moved = n_moved + 1
  elseif not head then
    redis.call('XADD', dead, '*', 'id', id, 'reason', 'payload lost', 'attempts', 0, 'at', now, 'consumer', '')
    redis.call('HDEL', failures, id)
    n_buried = n_buried + 1
  end
end
if #ids > 0 then
  redis.call('ZREM', delayed, unpack(ids))
end
if n_buried > 0 then
  redis.call('HINCRBY', meta, 'failed', n_buried)
end
local due = redis.call('ZRANGE', delayed, 0, 0, 'WITHSCORES')[2]
return {n_moved, n_buried, due and math.max(0, tonumber(due) - now) or -1}

-- Moves jobs whose wait is over from the backoff zset to the stream.
--
-- An id without a guard (evicted, deleted by hand) becomes a dead letter, since there is nothing left to work on.
--
-- KEYS  1 stream (stream) · 2 delayed (zset) · 3 dead (stream) · 4 meta (hash) · 5 failures (hash)
--       6 events (stream)
-- ARGV  1 prefix of job keys · 2 most jobs to move · 3 most events kept (0: none are written)
-- Returns {moved, buried, ms until the next due job or -1}
-- At most 256 jobs a call: 0 until the next due job means that more are due.

local stream, delayed, dead, meta, failures, events = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]
local job_prefix, limit, events_max = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])

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
    bury_remains(id, false, 'payload lost', id, '', {dead = dead, failures = failures, events = events, meta = meta},
      events_max)
    n_buried = n_buried + 1
  end
end
if #ids > 0 then
  redis.call('ZREM', delayed, unpack(ids))
end
local due = redis.call('ZRANGE', delayed, 0, 0, 'WITHSCORES')[2]
return {n_moved, n_buried, due and math.max(0, tonumber(due) - now) or -1}

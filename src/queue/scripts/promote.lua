-- Moves jobs whose wait is over from the backoff zset to where they wait for a worker; in a group without room they are
-- parked, in front of what came later.
--
-- An id without a guard (evicted, deleted by hand) becomes a dead letter, since there is nothing left to work on.
--
-- KEYS  1-12 as queue.lua
-- ARGV  1-4 as queue.lua · 5 most jobs to move
-- Returns {moved, buried, ms until the next due job or -1}
-- At most 256 jobs a call: 0 until the next due job means that more are due.

local limit = tonumber(ARGV[OWN_ARGS])

local now = now_ms()
local ids = redis.call('ZRANGEBYSCORE', K.delayed, '-inf', now, 'LIMIT', 0, limit)
local n_moved, n_buried = 0, 0
for _, id in ipairs(ids) do
  local key = JOB .. id
  local head = read_head(key)
  if head and string.sub(head, 1, 1) == 'd' then
    local priority, group = extras(head)
    redis.call('SETRANGE', key, '0', enter(id, priority, group, (struct.unpack('>I8', string.sub(head, 14, 21)))))
    n_moved = n_moved + 1
    if ALL_EVENTS then event('waiting', id, 'prev', 'delayed') end
  elseif not head then
    bury_remains(id, false, 'payload lost', id, '')
    n_buried = n_buried + 1
  end
end
if #ids > 0 then
  redis.call('ZREM', K.delayed, unpack(ids))
end
apply_groups()
wake_readers()
count_buried(n_buried)
local due = redis.call('ZRANGE', K.delayed, 0, 0, 'WITHSCORES')[2]
return {n_moved, n_buried, due and math.max(0, tonumber(due) - now) or -1}

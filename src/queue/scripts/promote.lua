-- Moves what is due to where it waits for a worker: jobs from the backoff zset, and parked jobs of groups whose hold-up is
-- over. A job of a group without room is parked, in front of what came later.
--
-- An id without a guard (evicted, deleted by hand) becomes a dead letter, since there is nothing left to work on.
--
-- KEYS  1-12 as queue.lua
-- ARGV  1-4 as queue.lua · 5 most jobs to move
-- Returns {moved, buried, ms until something else is due or -1}
-- At most 256 jobs a call: 0 until something is due means that more is.

local limit = tonumber(ARGV[OWN_ARGS])

local now = now_ms()
local ids = redis.call('ZRANGEBYSCORE', K.delayed, '-inf', now, 'LIMIT', 0, limit)
local n_moved, n_buried = 0, 0
for _, id in ipairs(ids) do
  local key = JOB .. id
  local head, err = read_head(key)
  if head and string.sub(head, 1, 1) == 'd' then
    local priority, group = extras(head)
    redis.call('SETRANGE', key, '0', enter(id, priority, group, (struct.unpack('>I8', string.sub(head, 14, 21)))))
    n_moved = n_moved + 1
    if ALL_EVENTS then event('waiting', id, 'prev', 'delayed') end
  elseif not head then
    bury_lost(id, err)
    n_buried = n_buried + 1
  end
end
if #ids > 0 then
  redis.call('ZREM', K.delayed, unpack(ids))
end

-- With a rate a group gets out what may start in its next window: the rest would only be parked again.
local left = limit - #ids
local groups = left > 0 and redis.call('ZRANGEBYSCORE', HELD, '-inf', now, 'LIMIT', 0, left) or {}
if #groups > 0 then
  local rate = tonumber(redis.call('HGET', K.meta, 'group_rate_max')) or limit
  for _, group in ipairs(groups) do
    if left <= 0 then
      break
    end
    redis.call('ZREM', HELD, group)
    local n = unpark(group, math.min(left, rate, WINDOW > 0 and WINDOW - n_members(group) or left))
    left, n_moved = left - n, n_moved + n
  end
end
apply_groups()
wake_readers()

local next_due
for _, zset in ipairs({K.delayed, HELD}) do
  local due = tonumber(redis.call('ZRANGE', zset, 0, 0, 'WITHSCORES')[2])
  next_due = due and math.min(due, next_due or due) or next_due
end
return {n_moved, n_buried, next_due and math.max(0, next_due - now) or -1}

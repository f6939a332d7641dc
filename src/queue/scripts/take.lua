-- Hands jobs to a consumer where a plain read cannot: jobs with a priority, and all jobs of a queue with limits.
--
-- A job with a priority gets an entry in its own lane and is delivered in this very call, so the order is that of the zset at
-- this instant. Plain jobs are not starved: when the oldest of them has waited for `ageing`, half of what is handed out, and
-- every second job, is left to them.
--
-- With limits (rate per fixed window of Redis's clock, jobs active at once, both over all workers) this opens the gate for as
-- long as it reads, and charges the window what was read. Over a limit jobs stay where they wait.
--
-- KEYS  1-12 as queue.lua · 13 limiter (string: starts in this window, expires with it)
-- ARGV  1-4 as queue.lua · 5 consumer · 6 jobs wanted · 7 ageing (ms) · 8 prefix of group limiters
-- Returns {"free" (no limits: what else waits is read plainly) or "limited" or "paused", ms to wait before the next try (0: at
--         once; -1: until something is added), last generated id of the stream, reply of XREADGROUP or empty for the
--         prioritized lane, the same for the stream}
-- At most 256 jobs a call.

local limiter = KEYS[OWN_KEYS]
local consumer, wanted, ageing, group_limiter =
  ARGV[OWN_ARGS], tonumber(ARGV[OWN_ARGS + 1]), tonumber(ARGV[OWN_ARGS + 2]), ARGV[OWN_ARGS + 3]

local now = now_ms()
if redis.call('HEXISTS', K.meta, 'paused') == 1 then
  return {'paused', -1, '', {}, {}}
end
local limits, is_limited = read_limits(K.meta, now)
if not is_limited then
  open_gate(K.stream, K.meta) -- a hold-up that is over
end

local function pending(stream)
  for _, info in ipairs(redis.call('XINFO', 'GROUPS', stream)) do
    local fields = {}
    for i = 1, #info, 2 do
      fields[info[i]] = info[i + 1]
    end
    if fields.name == GROUP then
      return fields.pending
    end
  end
  return 0
end

local allowed, pause = wanted, -1
if limits.rate_until and limits.rate_until > now then
  allowed, pause = 0, limits.rate_until - now
end
if limits.rate_max then
  local free = limits.rate_max - tonumber(redis.call('GET', limiter) or 0)
  if free <= 0 then
    pause = math.max(pause, redis.call('PTTL', limiter), 1)
  end
  allowed = math.min(allowed, free)
end
if limits.concurrency then
  local free = limits.concurrency - pending(K.stream) - pending(K.prioritized_active)
  if free <= 0 and pause < 0 then
    pause = 1000
  end
  allowed = math.min(allowed, free)
end

local function last_generated()
  local info = redis.call('XINFO', 'STREAM', K.stream)
  for i = 1, #info, 2 do
    if info[i] == 'last-generated-id' then
      return info[i + 1]
    end
  end
end
if allowed <= 0 then
  return {is_limited and 'limited' or 'free', pause, '', {}, {}}
end

-- Jobs with a priority, by priority and arrival.
local function take_prioritized(n)
  local ids = redis.call('ZPOPMIN', K.prioritized, n)
  local n_taken = 0
  for i = 1, #ids, 2 do
    local id = ids[i]
    local key = JOB .. id
    local head = read_head(key)
    if head and holds(head, 'p' .. NO_ENTRY) then
      redis.call('SETRANGE', key, '0', 'p' .. add_entry(K.prioritized_active, id))
      n_taken = n_taken + 1
    else
      note_loss(K.meta)
    end
  end
  if n_taken == 0 then
    return {}
  end
  return redis.call('XREADGROUP', 'GROUP', GROUP, consumer, 'COUNT', n_taken, 'STREAMS', K.prioritized_active, '>') or {}
end

local function oldest_age()
  local reached = redis.call('HGET', K.meta, 'gate')
  if not reached then
    for _, info in ipairs(redis.call('XINFO', 'GROUPS', K.stream)) do
      local fields = {}
      for i = 1, #info, 2 do
        fields[info[i]] = info[i + 1]
      end
      if fields.name == GROUP then
        reached = fields['last-delivered-id']
      end
    end
  end
  local oldest = redis.call('XRANGE', K.stream, '(' .. (reached or '0-0'), '+', 'COUNT', 1)[1]
  return oldest and now - tonumber(string.match(oldest[1], '^%d+')) or -1
end

local prioritized, n_prioritized_taken = {}, 0
if redis.call('ZCARD', K.prioritized) > 0 then
  local share = allowed
  if oldest_age() >= ageing then
    share = math.floor(allowed / 2) + redis.call('HINCRBY', K.meta, 'turn', 1) % 2 * (allowed % 2)
  end
  if share > 0 then
    prioritized = take_prioritized(share)
    n_prioritized_taken = prioritized[1] and #prioritized[1][2] or 0
  end
  if redis.call('ZCARD', K.prioritized) > 0 then -- the next reader goes on
    redis.call('XADD', K.wake, 'MAXLEN', 1, '*', 'due', '')
  end
end

-- Sends back, to the end of the window, what is over the limit of its group.
local function keep_group_limit(delivered)
  local kept = {}
  note_earliest_due()
  for _, found in ipairs(delivered) do
    local id = found[2][1] == 'id' and found[2][2]
    local key = id and JOB .. id
    local head = key and read_head(key)
    local _, group = extras(head or '')
    local over = false
    if head and group ~= '' and holds(head, 's' .. packed(found[1])) then
      local window = group_limiter .. group
      local starts = redis.call('INCR', window)
      if starts == 1 then
        redis.call('PEXPIRE', window, limits.group_rate_duration)
      end
      if starts > limits.group_rate_max then
        over = true
        leave_lane('s', found[1])
        leave_group(head)
        redis.call('SETRANGE', key, '0', 'd' .. NO_ENTRY)
        delay(id, now + math.max(redis.call('PTTL', window), 1))
      end
    end
    if not over then
      kept[#kept + 1] = found
    end
  end
  drop_left()
  apply_groups()
  wake_readers()
  return kept
end

local plain, n_plain = {}, 0
if is_limited and allowed > n_prioritized_taken then
  redis.call('XGROUP', 'SETID', K.stream, GROUP, redis.call('HGET', K.meta, 'gate'))
  plain = redis.call('XREADGROUP', 'GROUP', GROUP, consumer, 'COUNT', allowed - n_prioritized_taken, 'STREAMS', K.stream, '>')
    or {}
  local delivered = plain[1] and plain[1][2] or {}
  if #delivered > 0 then
    redis.call('HSET', K.meta, 'gate', delivered[#delivered][1])
    if limits.group_rate_max then
      delivered = keep_group_limit(delivered)
      plain[1][2] = delivered
      pause = 0 -- what follows may be of other groups
    end
  end
  n_plain = #delivered
  redis.call('XGROUP', 'SETID', K.stream, GROUP, LAST_POSSIBLE)
end

local n = n_prioritized_taken + n_plain
if limits.rate_max and n > 0 then
  if redis.call('INCRBY', limiter, n) == n then
    redis.call('PEXPIRE', limiter, limits.rate_duration)
  end
end
return {is_limited and 'limited' or 'free', n > 0 and 0 or pause, is_limited and last_generated() or '', prioritized, plain}

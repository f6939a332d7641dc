-- Hands jobs to a consumer where a plain read cannot: jobs with a priority, and all jobs of a queue with limits.
--
-- A job with a priority gets an entry in its own lane and is delivered in this very call, so the order is that of the zset at
-- this instant. Plain jobs are not starved: when the oldest of them has waited for `ageing`, half of what is handed out, and
-- every second job, is left to them.
--
-- With limits (rate per fixed window of Redis's clock, jobs active at once, both over all workers) this opens the gate for as
-- long as it reads, and charges the window what was read. Over a limit jobs stay where they wait; what is over the limit of
-- its group is parked, and the group is held up until its window ends (see promote.lua).
--
-- KEYS  1-12 as queue.lua · 13 limiter (string: starts in this window, expires with it)
-- ARGV  1-4 as queue.lua · 5 consumer · 6 jobs wanted · 7 ageing (ms) · 8 prefix of group limiters
--       9 "limited" if the caller knows that the queue has limits, else empty
-- Returns {"free" (no limits: what else waits is read plainly), "limited", "full" (as many jobs are active as may be) or
--         "paused"; ms to wait before the next try (0: at once; -1: until something is added); last generated id of the
--         stream, empty unless that is waited for; last generated id of the wake stream, empty without limits; entries of the
--         prioritized lane, as XRANGE answers; the same of the stream}
-- At most 256 jobs a call.

local limiter = KEYS[OWN_KEYS]
local consumer, wanted, ageing, group_limiter, knows_limits =
  ARGV[OWN_ARGS], tonumber(ARGV[OWN_ARGS + 1]), tonumber(ARGV[OWN_ARGS + 2]), ARGV[OWN_ARGS + 3], ARGV[OWN_ARGS + 4]
local FULL_RETRY_MS = 1000 -- whoever settles takes again at once; this is for the workers that hold nothing
local LOOKED_AT_MAX = 256

local now = now_ms()
local limits, is_limited = read_limits(K.meta, HELD, now)
if limits.paused then
  return {'paused', -1, '', '', {}, {}}
end
local n_in_lane, n_waiting = redis.call('XLEN', K.prioritized_active), redis.call('ZCARD', K.prioritized)
local stream_group, lane_group
if is_limited or n_in_lane + n_waiting > 0 then
  stream_group, lane_group = group_of(K.stream), group_of(K.prioritized_active)
  if not stream_group or not lane_group then
    return NO_GROUP
  end
end
if is_limited then
  close_gate(K.stream, K.meta)
elseif limits.gate and not open_gate(K.stream, K.meta) then
  return NO_GROUP
end

local function wake_one()
  redis.call('XADD', K.wake, 'MAXLEN', 1, '*', 'due', '')
end

if is_limited and knows_limits == '' then
  wake_one() -- another reader that blocks on the closed gate: it learns it in the same way, and wakes the next
end

local function last_generated(stream)
  local info = redis.pcall('XINFO', 'STREAM', stream)
  for i = 1, #info, 2 do
    if info[i] == 'last-generated-id' then
      return info[i + 1]
    end
  end
  return '0-0'
end

-- ── what is allowed ─────────────────────────────────────────────────────────────────────────────────────────────────────

-- Starts in the window of a limiter so far, and how long it lasts (ms). One without an end (a client took it away), or with
-- one too far off (the clock was set back, the limit was changed), ends `duration` from now.
local function window_of(key, duration)
  local value = redis.pcall('GET', key)
  local starts = type(value) == 'string' and tonumber(value) or 0
  if starts <= 0 then
    if value then redis.call('UNLINK', key) end
    return 0, duration
  end
  local left = redis.call('PTTL', key)
  if left < 0 or left > duration then
    redis.call('PEXPIRE', key, duration)
    left = duration
  end
  return starts, left
end

local function charge(key, duration, before, n)
  redis.call('INCRBY', key, n)
  if before == 0 then
    redis.call('PEXPIRE', key, duration)
  end
end

local allowed, pause, is_full, starts_before = wanted, -1, false, 0
if limits.is_held_up then
  allowed, pause = 0, limits.held_until - now
end
if limits.rate_max then
  local left
  starts_before, left = window_of(limiter, limits.rate_duration)
  if starts_before >= limits.rate_max then
    pause = math.max(pause, left, 1)
  end
  allowed = math.min(allowed, limits.rate_max - starts_before)
end
if limits.concurrency then
  local free = limits.concurrency - stream_group.pending - lane_group.pending
  if free <= 0 and pause < 0 then
    is_full, pause = true, FULL_RETRY_MS
  end
  allowed = math.min(allowed, free)
end
if allowed <= 0 then
  return {is_full and 'full' or 'limited', pause, '', last_generated(K.wake), {}, {}}
end

-- ── groups ──────────────────────────────────────────────────────────────────────────────────────────────────────────────

local checks_groups = limits.group_rate_max or limits.has_held_groups
local states, n_parked_again, holds_up = {}, 0, false

local function hold_up(group, state)
  state.is_held_up, holds_up = true, true
  redis.call('ZADD', HELD, whole(now + state.left + 1), group)
end

-- Whether a job of this group may start; then it is counted. The last one that may holds the group up at once: what leaves
-- would only be replaced by jobs that must be parked again.
local function may_start(group)
  local state = states[group]
  if not state then
    local until_ms = tonumber(redis.call('ZSCORE', HELD, group) or 0)
    state = {is_held_up = until_ms > now, n = 0}
    if limits.group_rate_max then
      state.before, state.left = window_of(group_limiter .. group, limits.group_rate_duration)
    end
    states[group] = state
  end
  local is_over = state.is_held_up
  if limits.group_rate_max and not is_over then
    is_over = state.before + state.n >= limits.group_rate_max
    if not is_over then
      state.n = state.n + 1
    end
    if state.before + state.n >= limits.group_rate_max then
      hold_up(group, state)
    end
  end
  return not is_over
end

-- A job that is over the limit of its group gives up its room and is parked, in front of what came later.
local function park_again(id, key, head, priority, group)
  members[group] = n_members(group) - 1
  redis.call('SETRANGE', key, '0', park(id, priority, group, (struct.unpack('>I8', string.sub(head, 14, 21)))))
  n_parked_again = n_parked_again + 1
end

-- ── jobs with a priority ────────────────────────────────────────────────────────────────────────────────────────────────

-- Gives an entry in their lane to up to `n` of them, by priority and arrival. Returns how many.
local function move_to_lane(n)
  local n_moved, n_popped = 0, 0
  while n_moved < n and n_popped < LOOKED_AT_MAX do
    local ids = redis.call('ZPOPMIN', K.prioritized, math.min(n - n_moved, LOOKED_AT_MAX - n_popped))
    if #ids == 0 then
      break
    end
    n_popped = n_popped + #ids / 2
    for i = 1, #ids, 2 do
      local id = ids[i]
      local key = JOB .. id
      local head, err = read_head(key)
      if not head then
        bury_lost(id, err)
      elseif holds(head, 'p' .. NO_ENTRY) then -- else it stands elsewhere and this is a leftover
        local priority, group = extras(head)
        if checks_groups and group ~= '' and not may_start(group) then
          park_again(id, key, head, priority, group)
        else
          redis.call('SETRANGE', key, '0', 'p' .. add_entry(K.prioritized_active, id))
          n_moved = n_moved + 1
        end
      end
    end
  end
  return n_moved
end

-- How long the oldest plain job has waited (ms); -1 when none waits.
local function oldest_age()
  local reached = redis.call('HGET', K.meta, 'gate') or stream_group['last-delivered-id']
  local oldest = redis.call('XRANGE', K.stream, '(' .. reached, '+', 'COUNT', 1)[1]
  return oldest and now - tonumber(string.match(oldest[1], '^%d+')) or -1
end

local prioritized = {}
-- Every entry of the lane is pending, unless its group was lost and created anew: then the rest comes first.
local n_left_behind = lane_group and n_in_lane - lane_group.pending or 0
if n_waiting + n_left_behind > 0 then
  local share = allowed
  if oldest_age() >= ageing then
    share = math.floor(allowed / 2) + redis.call('HINCRBY', K.meta, 'turn', 1) % 2 * (allowed % 2)
  end
  local n = math.min(n_left_behind, share)
  n = n + move_to_lane(share - n)
  if n > 0 then
    local read = redis.call('XREADGROUP', 'GROUP', GROUP, consumer, 'COUNT', n, 'STREAMS', K.prioritized_active, '>')
    prioritized = read and read[1] and read[1][2] or {}
  end
  if not is_limited and redis.call('ZCARD', K.prioritized) > 0 then
    wake_one() -- the next reader goes on; with limits they all look for themselves
  end
end

-- ── plain jobs of a queue with limits ───────────────────────────────────────────────────────────────────────────────────

-- Parks again what is over the limit of its group; returns the rest.
local function keep_group_limits(delivered)
  local kept = {}
  for _, found in ipairs(delivered) do
    local id = found[2][1] == 'id' and found[2][2]
    local head = id and read_head(JOB .. id)
    local priority, group = extras(head or '')
    if group ~= '' and holds(head, 's' .. packed(found[1])) and not may_start(group) then
      leave_lane('s', found[1])
      park_again(id, JOB .. id, head, priority, group)
    else
      kept[#kept + 1] = found
    end
  end
  return kept
end

local plain, n_looked_at = {}, 0
local n_wanted = is_limited and allowed - #prioritized or 0
while #plain < n_wanted and n_looked_at < LOOKED_AT_MAX do
  redis.call('XGROUP', 'SETID', K.stream, GROUP, redis.call('HGET', K.meta, 'gate'))
  local read = redis.pcall('XREADGROUP', 'GROUP', GROUP, consumer, 'COUNT', n_wanted - #plain, 'STREAMS', K.stream, '>')
  -- Closed again before anything that may fail: left open, what is read now would be delivered once more.
  redis.call('XGROUP', 'SETID', K.stream, GROUP, LAST_POSSIBLE)
  if read and read.err then
    return read
  end
  local delivered = read and read[1] and read[1][2] or {}
  if #delivered == 0 then
    break
  end
  redis.call('HSET', K.meta, 'gate', delivered[#delivered][1])
  n_looked_at = n_looked_at + #delivered
  for _, entry in ipairs(checks_groups and keep_group_limits(delivered) or delivered) do
    plain[#plain + 1] = entry
  end
  if not checks_groups then
    break
  end
end

local n = #prioritized + #plain
if limits.rate_max and n > 0 then
  charge(limiter, limits.rate_duration, starts_before, n)
end
for group, state in pairs(states) do
  if state.n > 0 then
    charge(group_limiter .. group, limits.group_rate_duration, state.before, state.n)
  end
end
drop_left()
apply_groups()
if holds_up then
  wake_one() -- for the promoter: a group is to be released
end
if n > 0 or n_parked_again > 0 then
  pause = 0 -- what follows may be of other groups
end
return {is_limited and 'limited' or 'free', pause, is_limited and pause < 0 and last_generated(K.stream) or '',
  is_limited and last_generated(K.wake) or '', prioritized, plain}

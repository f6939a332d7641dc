-- Sets and removes limits of a queue, for all of its workers, from the next delivery on.
--
-- KEYS  1 stream (stream) · 2 meta (hash) · 3 wake (stream) · 4 groups:held (zset)
-- ARGV  1 "config", which is passed over where an operator has set limits; "operator"; or "reset": as "config", and the
--       operator's are forgotten · then field, value, … of meta: rate_max, rate_duration (ms), concurrency, group_rate_max,
--       group_rate_duration (ms); an empty value removes a limit. hold_up (ms) holds up every start for so long.
-- Returns 1 set · 0 passed over

local stream, meta, wake, held_groups = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local by = ARGV[1]

if by == 'config' and redis.call('HEXISTS', meta, 'limits_by') == 1 then
  return 0
elseif by == 'reset' then
  redis.call('HDEL', meta, 'limits_by')
end
local now = now_ms()
for at = 2, #ARGV, 2 do
  local field, value = ARGV[at], ARGV[at + 1]
  if field == 'hold_up' then
    redis.call('HSET', meta, 'held_until', whole(now + tonumber(value)))
  else
    if value == '' then
      redis.call('HDEL', meta, field)
    else
      redis.call('HSET', meta, field, value)
    end
    if by == 'operator' then
      redis.call('HSET', meta, 'limits_by', by)
    end
  end
end
local limits, is_limited = read_limits(meta, held_groups, now)
if is_limited and not close_gate(stream, meta) or
  not is_limited and not limits.paused and not open_gate(stream, meta) then
  return NO_GROUP
end
redis.call('XADD', wake, 'MAXLEN', 1, '*', 'limits', '')
return 1

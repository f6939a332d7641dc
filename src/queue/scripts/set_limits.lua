-- Sets and removes limits of a queue, for all of its workers, from the next delivery on.
--
-- KEYS  1 stream (stream) · 2 meta (hash) · 3 wake (stream) · 4 limiter (string)
-- ARGV  1 "config", which is passed over where "operator" has set limits, or "operator" · then field, value, … of meta:
--       rate_max, rate_duration (ms), concurrency, group_rate_max, group_rate_duration (ms); an empty value removes a limit.
--       rate_for (ms) holds up every start for so long.
-- Returns 1 set · 0 passed over

local stream, meta, wake, limiter = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local by = ARGV[1]

local now = now_ms()
if by == 'config' then
  if redis.call('HGET', meta, 'limits_by') == 'operator' then
    return 0
  end
end
for at = 2, #ARGV, 2 do
  local field, value = ARGV[at], ARGV[at + 1]
  if field == 'rate_for' then
    redis.call('HSET', meta, 'rate_until', whole(now + tonumber(value)))
  elseif value == '' then
    redis.call('HDEL', meta, field)
  else
    redis.call('HSET', meta, field, value)
  end
  if by == 'operator' and field ~= 'rate_for' then
    redis.call('HSET', meta, 'limits_by', by)
  end
  if field == 'rate_duration' then
    local left = redis.call('PTTL', limiter)
    if value == '' or left > tonumber(value) then
      redis.call('UNLINK', limiter)
    end
  end
end
local _, is_limited = read_limits(meta, now)
if is_limited then
  close_gate(stream, meta)
elseif redis.call('HEXISTS', meta, 'paused') == 0 then
  open_gate(stream, meta)
end
redis.call('XADD', wake, 'MAXLEN', 1, '*', 'limits', '')
return 1

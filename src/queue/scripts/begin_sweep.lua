-- Decides whether this process sweeps for stalled jobs now: one sweep per queue and interval.
--
-- KEYS  1 sweep (string: whose turn it is, expires) · 2 meta (hash)
-- ARGV  1 interval (ms) · 2 consumer
-- Returns {1 sweep now, 0 not now (swept lately, or paused); time of Redis (ms)}

local sweep, meta = KEYS[1], KEYS[2]
local interval, consumer = ARGV[1], ARGV[2]

if redis.call('HEXISTS', meta, 'paused') == 1 then
  return {0, now_ms()}
end
return {redis.call('SET', sweep, consumer, 'NX', 'PX', interval) and 1 or 0, now_ms()}

-- Counts the jobs of a queue by state, and reads its counters, at one instant.
--
-- KEYS  1 stream (stream) · 2 delayed (zset) · 3 dead (stream) · 4 meta (hash) · 5 consumers (zset)
-- ARGV  1 group · 2 age of the last heartbeat from which a consumer is gone (ms)
-- Returns {entries in the stream, pending entries, delayed, dead, consumers alive, age of the oldest waiting entry in ms
--         (-1: none waits), counters of meta as field, value, …}
-- The pending count comes from XINFO GROUPS: the summary of XPENDING takes longer the more consumers there are.

local stream, delayed, dead, meta, consumers = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local group, lifetime = ARGV[1], tonumber(ARGV[2])

local now = now_ms()
local pending, reached = 0, '0-0'
local groups = redis.pcall('XINFO', 'GROUPS', stream)
for _, info in ipairs(groups) do
  local fields = {}
  for i = 1, #info, 2 do
    fields[info[i]] = info[i + 1]
  end
  if fields.name == group then
    pending, reached = fields.pending, fields['last-delivered-id']
  end
end

-- A paused group pretends that everything was delivered; where it really was is in meta.
reached = redis.call('HGET', meta, 'paused') or reached
local oldest_age = -1
local oldest = redis.pcall('XRANGE', stream, '(' .. reached, '+', 'COUNT', 1)
if not oldest.err and oldest[1] then
  oldest_age = math.max(now - tonumber(string.match(oldest[1][1], '^%d+')), 0)
end

return {redis.call('XLEN', stream), pending, redis.call('ZCARD', delayed), redis.call('XLEN', dead),
  redis.call('ZCOUNT', consumers, string.format('%.0f', now - lifetime), '+inf'), oldest_age,
  unpack(redis.call('HGETALL', meta))}

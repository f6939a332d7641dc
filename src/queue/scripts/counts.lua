-- Counts the jobs of a queue by state, and reads its counters, at one instant.
--
-- KEYS  1 stream (stream) · 2 delayed (zset) · 3 dead (stream) · 4 meta (hash)
-- ARGV  1 group
-- Returns {entries in the stream, pending entries, delayed, dead, counters of meta as field, value, …}
-- The pending count comes from XINFO GROUPS: the summary of XPENDING takes longer the more consumers there are.

local stream, delayed, dead, meta = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local group = ARGV[1]

local pending = 0
local groups = redis.pcall('XINFO', 'GROUPS', stream)
for _, info in ipairs(groups) do
  local fields = {}
  for i = 1, #info, 2 do
    fields[info[i]] = info[i + 1]
  end
  if fields.name == group then
    pending = fields.pending
  end
end
return {redis.call('XLEN', stream), pending, redis.call('ZCARD', delayed), redis.call('XLEN', dead),
  unpack(redis.call('HGETALL', meta))}

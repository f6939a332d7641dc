-- Reads one job and its state.
--
-- KEYS  1 stream (stream) · 2 delayed (zset) · 3 failures (hash) · 4 dead (stream) · 5 job:<id> (string)
-- ARGV  1 group · 2 id
-- Returns nil when there is no such job, else {value, "waiting" | "active" | "delayed" | "failed" | "unknown",
--         due (ms) or empty, row of failures or empty, fields of the dead letter…}

local stream, delayed, failures, dead, key = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local group, id = ARGV[1], ARGV[2]

local head = read_head(key)
if not head then
  return false
end
local place, entry = string.sub(head, 1, 1), unpacked(string.sub(head, 2, 11))
local state, due, letter = 'unknown', '', {}
if place == 's' and #redis.call('XRANGE', stream, entry, entry) == 1 then
  local pending = redis.pcall('XPENDING', stream, group, entry, entry, 1)
  state = #pending > 0 and 'active' or 'waiting'
elseif place == 'd' then
  due = redis.call('ZSCORE', delayed, id) or ''
  state = due ~= '' and 'delayed' or state
elseif place == 'f' then
  local found = redis.call('XRANGE', dead, entry, entry)[1]
  if found then
    state, letter = 'failed', found[2]
  end
end
return {redis.call('GET', key), state, due, redis.call('HGET', failures, id) or '', unpack(letter)}

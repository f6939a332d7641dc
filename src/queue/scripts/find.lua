-- Reads one job and its state.
--
-- KEYS  1-12 as queue.lua · 13 job:<id> (string) · 14 log:<id> (hash)
-- ARGV  1-4 as queue.lua · 5 id
-- Returns nil when there is no such job, else {value, "waiting" | "active" | "prioritized" | "delayed" | "completed" |
--         "failed" | "unknown", due or finished (ms) or empty, row of failures or empty, {fields of the dead letter…},
--         {fields of the log…}}

local key, log, id = KEYS[OWN_KEYS], KEYS[OWN_KEYS + 1], ARGV[OWN_ARGS]

local head = read_head(key)
if not head then
  return false
end
local STATES = {s = 'waiting', p = 'prioritized', g = 'waiting', d = 'delayed', f = 'failed', c = 'completed'}
local place = string.sub(head, 1, 1)
local state, at, letter = 'unknown', '', {}
if stands(head, id) then
  state = is_active(head) and 'active' or STATES[place]
  if place == 'd' then
    at = redis.call('ZSCORE', K.delayed, id)
  elseif place == 'c' then
    at = redis.call('ZSCORE', K.completed, id)
  elseif place == 'f' then
    local entry = unpacked(string.sub(head, 2, 11))
    letter = redis.call('XRANGE', K.dead, entry, entry)[1][2]
  end
end
return {redis.call('GET', key), state, at, redis.call('HGET', K.failures, id) or '', letter, redis.call('HGETALL', log)}

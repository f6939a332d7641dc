-- Reads one job and its state.
--
-- KEYS  1-12 as queue.lua · 13 job:<id> (string) · 14 log:<id> (hash)
-- ARGV  1-4 as queue.lua · 5 id · 6 most lines of its log
-- Returns nil when there is no such job, else {value, "waiting" | "active" | "prioritized" | "delayed" | "completed" |
--         "failed" | "unknown", due or finished (ms) or empty, row of failures or empty, {fields of the dead letter…},
--         {fields of the log…, of its lines the newest}, {consumer and idle time (ms) of an active one}}

local key, log, id, lines_max = KEYS[OWN_KEYS], KEYS[OWN_KEYS + 1], ARGV[OWN_ARGS], tonumber(ARGV[OWN_ARGS + 1])

local head = read_head(key)
if not head then
  return false
end
local STATES = {s = 'waiting', p = 'prioritized', g = 'waiting', d = 'delayed', f = 'failed', c = 'completed'}
local place = string.sub(head, 1, 1)
local state, at, letter, holder = 'unknown', '', {}, {}
if stands(head, id) then
  local pending = pending_of(head)
  state = pending and 'active' or STATES[place]
  if pending then
    holder = {pending[2], pending[3]}
  elseif place == 'd' then
    at = redis.call('ZSCORE', K.delayed, id)
  elseif place == 'c' then
    at = redis.call('ZSCORE', K.completed, id)
  elseif place == 'f' then
    local entry = unpacked(string.sub(head, 2, 11))
    letter = redis.call('XRANGE', K.dead, entry, entry)[1][2]
  end
end

-- Not the whole hash: it may hold a thousand lines.
local function read_log()
  if redis.call('EXISTS', log) == 0 then
    return {}
  end
  local names, lines = {'progress', 'result', 'finished', 'lines'}, tonumber(redis.call('HGET', log, 'lines') or 0)
  for n = math.max(lines - lines_max + 1, 1), lines do
    names[#names + 1] = 'line:' .. n
  end
  local attempts = string.byte(head, 12)
  for n = math.max(attempts - ERRORS_KEPT + 1, 1), attempts do
    names[#names + 1] = 'error:' .. n
  end
  local fields = {}
  for i, value in ipairs(redis.call('HMGET', log, unpack(names))) do
    if value then
      fields[#fields + 1] = names[i]
      fields[#fields + 1] = value
    end
  end
  return fields
end
return {redis.call('GET', key), state, at, redis.call('HGET', K.failures, id) or '', letter, read_log(), holder}

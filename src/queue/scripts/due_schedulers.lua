-- Reads which schedulers are due, with what is stored of them. Changes nothing.
--
-- KEYS  1 schedulers (zset)
-- ARGV  1 prefix of scheduler keys (hashes) · 2 how many of those that are due to pass over, earliest first
--       3 most schedulers to list
-- Returns {time of Redis (ms), ms until the earliest slot that has not come or -1, scheduler…}; per scheduler: {id,
--         slot (ms), definition, revision, jobs added so far, bytes of its template}; the definition and what follows are nil
--         or 0 where nothing is stored
-- At most 256 schedulers a call: 0 ms until the next slot means that more are due.

local schedulers = KEYS[1]
local prefix, passed_over, limit = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])

local now = now_ms()
local due = redis.call('ZRANGEBYSCORE', schedulers, '-inf', now, 'WITHSCORES', 'LIMIT', passed_over, limit)
local reply = {now, 0}
for i = 1, #due, 2 do
  local key = prefix .. due[i]
  local stored = redis.pcall('HMGET', key, 'definition', 'revision', 'fired')
  if stored.err then -- the key is of another type
    stored = {}
  end
  local bytes = stored[1] and redis.call('HSTRLEN', key, 'template') or 0
  reply[#reply + 1] = {due[i], due[i + 1], stored[1] or false, stored[2] or false, stored[3] or false, bytes}
end
if #due < 2 * limit then
  local later = redis.call('ZRANGEBYSCORE', schedulers, '(' .. now, '+inf', 'WITHSCORES', 'LIMIT', 0, 1)[2]
  reply[2] = later and math.max(0, tonumber(later) - now) or -1
end
return reply

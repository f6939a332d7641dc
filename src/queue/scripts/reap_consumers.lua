-- Deletes consumers that are gone: no heartbeat for a while, and nothing pending. Deleting one with pending entries
-- would lose them, so those wait until the entries are claimed.
--
-- KEYS  1 stream (stream) · 2 prioritized:active (stream) · 3 wake (stream) · 4 consumers (zset)
-- ARGV  1 age of the last heartbeat from which a consumer is gone (ms) · 2 prefix of consumer keys
--       3 a consumer that leaves now, or empty: it is deleted whatever its heartbeat · 4 ending of the key that notes its
--       cancelled jobs
-- Returns {deleted from the group, forgotten in the registry}

local wake, consumers = KEYS[3], KEYS[4]
local lifetime, consumer_prefix, leaving, cancelled = tonumber(ARGV[1]), ARGV[2], ARGV[3], ARGV[4]

local oldest_alive = now_ms() - lifetime
local n_deleted, n_forgotten, has_pending = 0, 0, {}
local function delete_from(lane)
  local n = 0
  for _, info in ipairs(redis.pcall('XINFO', 'CONSUMERS', lane, GROUP)) do
    local fields = {}
    for i = 1, #info, 2 do
      fields[info[i]] = info[i + 1]
    end
    local heartbeat = redis.call('ZSCORE', consumers, fields.name)
    local gone = not heartbeat or tonumber(heartbeat) < oldest_alive or fields.name == leaving
    if gone and fields.pending == 0 then
      redis.call('XGROUP', 'DELCONSUMER', lane, GROUP, fields.name)
      n = n + 1
    else
      has_pending[fields.name] = true
    end
  end
  return n
end
n_deleted = delete_from(KEYS[1])
delete_from(KEYS[2])
-- The wake stream carries no work: what is pending there may go.
local function forget(name)
  if not has_pending[name] then
    redis.pcall('XGROUP', 'DELCONSUMER', wake, GROUP, name)
    redis.call('ZREM', consumers, name)
    redis.call('UNLINK', consumer_prefix .. name, consumer_prefix .. name .. cancelled)
    n_forgotten = n_forgotten + 1
  end
end
if leaving ~= '' then
  forget(leaving)
end
for _, name in ipairs(redis.call('ZRANGEBYSCORE', consumers, '-inf', '(' .. whole(oldest_alive), 'LIMIT', 0, 256)) do
  forget(name)
end
return {n_deleted, n_forgotten}

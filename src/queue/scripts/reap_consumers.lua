-- Deletes consumers that are gone: no heartbeat for a while, and nothing pending. Deleting one with pending entries
-- would lose them, so those wait until the entries are claimed.
--
-- KEYS  1 stream (stream) · 2 wake (stream) · 3 consumers (zset)
-- ARGV  1 group · 2 age of the last heartbeat from which a consumer is gone (ms) · 3 prefix of consumer keys
--       4 a consumer that leaves now, or empty: it is deleted whatever its heartbeat
-- Returns {deleted from the group, forgotten in the registry}

local stream, wake, consumers = KEYS[1], KEYS[2], KEYS[3]
local group, lifetime, consumer_prefix, leaving = ARGV[1], tonumber(ARGV[2]), ARGV[3], ARGV[4]

local oldest_alive = now_ms() - lifetime
local n_deleted, n_forgotten, pending_of = 0, 0, {}
local groups = redis.pcall('XINFO', 'CONSUMERS', stream, group)
for _, info in ipairs(groups) do
  local fields = {}
  for i = 1, #info, 2 do
    fields[info[i]] = info[i + 1]
  end
  local heartbeat = redis.call('ZSCORE', consumers, fields.name)
  local gone = not heartbeat or tonumber(heartbeat) < oldest_alive or fields.name == leaving
  if gone and fields.pending == 0 then
    redis.call('XGROUP', 'DELCONSUMER', stream, group, fields.name)
    n_deleted = n_deleted + 1
  else
    pending_of[fields.name] = fields.pending
  end
end
-- The wake stream carries no work: what is pending there may go.
local function forget(name)
  if not pending_of[name] then
    redis.pcall('XGROUP', 'DELCONSUMER', wake, group, name)
    redis.call('ZREM', consumers, name)
    redis.call('UNLINK', consumer_prefix .. name)
    n_forgotten = n_forgotten + 1
  end
end
if leaving ~= '' then
  forget(leaving)
end
for _, name in ipairs(redis.call('ZRANGEBYSCORE', consumers, '-inf', '(' .. string.format('%.0f', oldest_alive),
  'LIMIT', 0, 256)) do
  forget(name)
end
return {n_deleted, n_forgotten}

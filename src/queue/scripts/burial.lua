-- Shared by the scripts that give up on jobs. Behind imports.lua and placing.lua.

-- Makes a dead letter of a job with a head. The caller takes it out of where it stood and counts it; `prev` is the state it
-- was in, active unless said.
local function bury(key, head, id, reason, attempts, consumer, exhausted, listed_max, prev)
  local now = now_ms()
  local letter = redis.call('XADD', K.dead, '*', 'id', id, 'reason', reason, 'attempts', attempts,
    'at', whole(now), 'consumer', consumer)
  redis.call('SETRANGE', key, '0', 'f' .. packed(letter) .. string.char(attempts))
  local first = first_failure(redis.call('HGET', K.failures, id), now)
  redis.call('HSET', K.failures, id, cmsgpack.pack({first, now, reason}))
  keep_log(id)
  if EVENTS_MAX > 0 then
    event('failed', id, 'failedReason', reason, 'prev', prev or 'active')
    if exhausted then
      event('retries-exhausted', id, 'attemptsMade', attempts)
    end
  end
  local import = string.sub(head, 22, 29)
  if import ~= NO_IMPORT then
    local import_hash = import_key(IMPORT, import)
    if redis.call('EXISTS', import_hash) == 1 then
      local listed = redis.call('HINCRBY', import_hash, 'failures', 1)
      if listed <= listed_max then
        redis.call('HSET', import_hash, 'failure:' .. listed, cmsgpack.pack({id, reason}))
      end
    end
    local changes = {}
    count(changes, import, 'open', -1)
    count(changes, import, 'failed', 1)
    apply_counts(changes, IMPORT, K.closing)
  end
end

-- Shared by the scripts that give up on jobs (bury.lua, bury_entry.lua, claim.lua): put behind imports.lua when they are loaded.

-- Makes a dead letter of a job with a head. The caller drops its entry and counts it.
local function bury(key, head, id, reason, attempts, consumer, exhausted, keys, options)
  local now = now_ms()
  local letter = redis.call('XADD', keys.dead, '*', 'id', id, 'reason', reason, 'attempts', attempts,
    'at', string.format('%.0f', now), 'consumer', consumer)
  redis.call('SETRANGE', key, 0, 'f' .. packed(letter) .. string.char(attempts))
  local row = redis.call('HGET', keys.failures, id)
  local first = row and cmsgpack.unpack(row)[1] or now
  redis.call('HSET', keys.failures, id, cmsgpack.pack({first, now, reason}))
  if options.events_max > 0 then
    redis.call('XADD', keys.events, 'MAXLEN', '~', options.events_max, '*', 'event', 'failed', 'jobId', id,
      'failedReason', reason, 'prev', 'active')
    if exhausted then
      redis.call('XADD', keys.events, 'MAXLEN', '~', options.events_max, '*', 'event', 'retries-exhausted',
        'jobId', id, 'attemptsMade', attempts)
    end
  end
  local import = string.sub(head, 22, 29)
  if import ~= NO_IMPORT then
    local import_hash = import_key(options.import_prefix, import)
    if redis.call('EXISTS', import_hash) == 1 then
      local listed = redis.call('HINCRBY', import_hash, 'failures', 1)
      if listed <= options.listed_max then
        redis.call('HSET', import_hash, 'failure:' .. listed, cmsgpack.pack({id, reason}))
      end
    end
    local changes = {}
    count(changes, import, 'open', -1)
    count(changes, import, 'failed', 1)
    apply_counts(changes, options.import_prefix, keys.closing)
  end
end

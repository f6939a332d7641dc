-- Shared by the scripts that give up on jobs: put in front of them, behind imports.lua, when they are loaded.

-- Makes a dead letter of a job with a head. The caller drops its entry and counts it.
local function bury(key, head, id, reason, attempts, consumer, exhausted, keys, options)
  local now = now_ms()
  local letter = redis.call('XADD', keys.dead, '*', 'id', id, 'reason', reason, 'attempts', attempts,
    'at', string.format('%.0f', now), 'consumer', consumer)
  redis.call('SETRANGE', key, 0, 'f' .. packed(letter) .. string.char(attempts))
  local row = redis.call('HGET', keys.failures, id)
  local first = first_failure(row, now)
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

-- Makes a dead letter of what is left where no job can be made of an entry: `id` of a job whose guard is missing, or
-- `raw` bytes of an entry that says nothing else; the other one is false. A missing guard is a loss: the number of losses
-- tells feeds that what they remember as enqueued may never arrive.
local function bury_remains(id, raw, reason, label, consumer, keys, events_max)
  local letter = {'reason', reason, 'attempts', 0, 'at', string.format('%.0f', now_ms()), 'consumer', consumer}
  if id then
    letter[#letter + 1] = 'id'
    letter[#letter + 1] = id
    redis.call('HDEL', keys.failures, id)
    note_loss(keys.meta)
  end
  if raw then
    letter[#letter + 1] = 'raw'
    letter[#letter + 1] = raw
  end
  redis.call('XADD', keys.dead, '*', unpack(letter))
  redis.call('HINCRBY', keys.meta, 'failed', 1)
  if events_max > 0 then
    redis.call('XADD', keys.events, 'MAXLEN', '~', events_max, '*', 'event', 'failed', 'jobId', label,
      'failedReason', reason, 'prev', 'active')
  end
end

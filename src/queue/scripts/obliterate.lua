-- Deletes keys of a paused queue, whatever is in them. Refuses while the queue is not paused, or a worker has a job.
--
-- KEYS  1-12 as queue.lua · 13… keys of the queue, of any type
-- ARGV  1-4 as queue.lua · 5 "force", to delete active jobs too, or empty
-- Returns {"deleted", how many}; or {"running", 0}: the queue is not paused; or {"active", n}: workers have n jobs
-- At most 256 keys a call.

if redis.call('HEXISTS', K.meta, 'paused') == 0 then
  return {'running', 0}
end
if ARGV[OWN_ARGS] ~= 'force' then
  local n = 0
  for _, lane in pairs(LANES) do
    local pending = redis.pcall('XPENDING', lane, GROUP)
    n = n + (pending.err and 0 or pending[1])
  end
  if n > 0 then
    return {'active', n}
  end
end
return {'deleted', #KEYS >= OWN_KEYS and redis.call('UNLINK', unpack(KEYS, OWN_KEYS)) or 0}

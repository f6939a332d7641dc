-- Shared by the scripts that bring back jobs which had ended. Behind imports.lua and placing.lua.

-- Puts a job that is dead, or completed and kept, back to waiting at attempt 1. `arrival` (µs) orders it in its group.
--
-- Before the import of a dead job has closed, it counts the job as open again. Afterwards, and where it has counted the job as
-- done, the job counts for no import.
local function revive(key, id, head, arrival)
  local is_dead = string.sub(head, 1, 1) == 'f'
  take_out(id, head)
  redis.call('HDEL', K.failures, id)
  local import = string.sub(head, 22, 29)
  if import ~= NO_IMPORT then
    local import_hash = import_key(IMPORT, import)
    if is_dead and redis.call('EXISTS', import_hash) == 1 and redis.call('HEXISTS', import_hash, 'closed') == 0 then
      redis.call('HINCRBY', import_hash, 'failed', -1)
      redis.call('HINCRBY', import_hash, 'open', 1)
    else
      redis.call('SETRANGE', key, 21, NO_IMPORT)
    end
  end
  if not is_dead then
    redis.call('UNLINK', LOG .. id) -- its result is none any more
  end
  local priority, group = extras(head)
  -- stalls start afresh as well
  redis.call('SETRANGE', key, '0', enter(id, priority, group, arrival) .. UNTRIED .. '\0')
  if ALL_EVENTS then event('waiting', id, 'prev', is_dead and 'failed' or 'completed') end
end

local function count_redriven(n)
  if n > 0 then
    redis.call('HINCRBY', K.meta, 'redriven', n)
  end
end

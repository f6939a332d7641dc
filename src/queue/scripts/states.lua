-- Shared by the scripts by which somebody operates on single jobs. Behind placing.lua.
--
-- They answer with one letter per job: a capital one says what was done, N that there is no such job, and a small one names
-- the state in which the job was left as it is.

local STATE_LETTERS = {s = 'w', p = 'p', g = 'w', d = 'd', f = 'f', c = 'c'}
local STATE_NAMES = {w = 'waiting', p = 'prioritized', a = 'active', d = 'delayed', f = 'failed', c = 'completed',
  u = 'unknown'}

-- The letter of a job's state: w waiting · p prioritized · a active · d delayed · f failed · c completed · u unknown: its
-- head names a place where it does not stand.
local function state_of(head, id)
  if not stands(head, id) then
    return 'u'
  end
  return is_active(head) and 'a' or STATE_LETTERS[string.sub(head, 1, 1)]
end

-- Shared by the scripts that let go of dead letters. Behind placing.lua, envelope.lua and forgetting.lua.

-- Deletes a dead letter, and the job with it if the job is dead by this very letter. `id` may be empty. Returns whether the
-- letter was still there.
local function discard_letter(letter, id, record)
  if redis.call('XDEL', K.dead, letter) == 0 then
    return false
  end
  local key = JOB .. id
  local head = id ~= '' and read_head(key)
  if head and holds(head, 'f' .. packed(letter)) then
    forget(read_envelope(key, head).feed, record)
    redis.call('UNLINK', key, LOG .. id)
    redis.call('HDEL', K.failures, id)
  end
  return true
end

local TRIMMED_LETTERS_MAX = 64

-- The id of the job that a letter is about; nil when it is none that could be discarded here: only a caller outside knows by
-- which record a feed forgets an item.
local function id_to_trim(fields)
  for i = 1, #fields, 2 do
    if fields[i] == 'id' then
      local key = JOB .. fields[i + 1]
      local head = read_head(key)
      return not (head and read_envelope(key, head).feed) and fields[i + 1] or nil
    end
  end
  return ''
end

-- Does what a job that has just been buried wants to become of dead letters, its own or the oldest: BullMQ's
-- `removeOnFail` of one job. A job of a feed has no such wish. `said` is what its envelope says.
local function keep_as_told(key, id, said)
  local on_fail = said.on_fail
  if not on_fail or said.feed then
    return
  end
  local n = 0
  if on_fail == 'nothing' then
    local letter = unpacked(redis.call('GETRANGE', key, 1, 10))
    n = discard_letter(letter, id, '') and 1 or 0
  elseif type(on_fail) == 'table' then
    local newest = on_fail.newest or {}
    local over = newest.count and redis.call('XLEN', K.dead) - newest.count or 0
    local oldest_kept = newest.age and now_ms() - newest.age or 0
    local looks = (over > 0 or newest.age) and TRIMMED_LETTERS_MAX or 1
    for at, letter in ipairs(redis.call('XRANGE', K.dead, '-', '+', 'COUNT', looks)) do
      local is_old = tonumber(string.match(letter[1], '^%d+')) < oldest_kept
      if at > over and not is_old then
        break
      end
      local of = id_to_trim(letter[2])
      if of and discard_letter(letter[1], of, '') then
        n = n + 1
      end
    end
  end
  if n > 0 then
    redis.call('HINCRBY', K.meta, 'discarded', n)
  end
end

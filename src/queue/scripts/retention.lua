-- Shared by the scripts that let go of completed jobs that were kept. Behind placing.lua.

local function remove_completed(ids)
  if #ids == 0 then
    return
  end
  local keys = {}
  for i, id in ipairs(ids) do
    keys[i] = JOB .. id
    keys[#ids + i] = LOG .. id
  end
  redis.call('UNLINK', unpack(keys))
  redis.call('ZREM', K.completed, unpack(ids))
end

-- Removes the oldest of the completed jobs beyond `count`, and those that are older than `age` ms (-1: no such limit), up to
-- `budget` of them. Returns how many.
local function trim_completed(count, age, budget)
  local n = 0
  if age >= 0 then
    local old = redis.call('ZRANGEBYSCORE', K.completed, '-inf', '(' .. whole(now_ms() - age), 'LIMIT', 0, budget)
    remove_completed(old)
    n = #old
  end
  local over = count >= 0 and math.min(redis.call('ZCARD', K.completed) - count, budget - n) or 0
  if over > 0 then
    remove_completed(redis.call('ZRANGE', K.completed, 0, over - 1))
    n = n + over
  end
  return n
end

-- Shared by the scripts that count for imports: put in front of them, behind head.lua, when they are loaded.
--
-- An import is open until its fetch has sealed it and the last of its jobs has left; then the same script that brought
-- this about marks it closed and puts it in the zset of closing imports, for the turn that writes its record.

local function import_key(prefix, import)
  return prefix .. string.format('%x', struct.unpack('>I8', import))
end

local function close_if_through(key, closing, id)
  local state = redis.call('HMGET', key, 'sealed', 'open', 'closed')
  if state[1] and not state[3] and tonumber(state[2] or 0) <= 0 then
    local at = now_ms()
    redis.call('HSET', key, 'closed', at)
    redis.call('ZADD', closing, at, id)
  end
end

-- Collects what is to be added to the counts of imports: changes[import][field] = amount
local function count(changes, import, field, amount)
  if import ~= NO_IMPORT then
    local fields = changes[import] or {}
    fields[field] = (fields[field] or 0) + amount
    changes[import] = fields
  end
end

-- Carries the changes out. An import that is gone (closed and recorded) is not brought back.
local function apply_counts(changes, prefix, closing)
  for import, fields in pairs(changes) do
    local key = import_key(prefix, import)
    if redis.call('EXISTS', key) == 1 then
      for field, amount in pairs(fields) do
        redis.call('HINCRBY', key, field, amount)
      end
      close_if_through(key, closing, string.sub(key, #prefix + 1))
    end
  end
end

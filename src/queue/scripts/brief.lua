-- Shared by the scripts that look at many jobs: what there is of a job, but its payload. Behind head.lua.

local TAIL_MAX = 8192 -- what follows the payload: name, feed, options

-- Length of the bytes that begin at the front of `text` in MessagePack, and of what says so; nil when it is something else.
local function bytes_length(text)
  local kind = string.byte(text)
  if kind == 0xc4 and #text >= 2 then
    return string.byte(text, 2), 2
  elseif kind == 0xc5 and #text >= 3 then
    return struct.unpack('>I2', string.sub(text, 2)), 3
  elseif kind == 0xc6 and #text >= 5 then
    return struct.unpack('>I4', string.sub(text, 2)), 5
  end
end

-- The value of a job's key with no bytes where its payload is, and how many there are. The head alone where the envelope is
-- none that is known here; '' where there is no head.
local FRONT_READ = 159 -- far enough for most heads and the beginning of the envelope: one command for most jobs
local function brief(key)
  local front = redis.pcall('GETRANGE', key, 0, FRONT_READ)
  if type(front) == 'table' or #front <= HEAD_LAST then
    return '', 0
  end
  local from = HEAD_LAST + 1 + string.byte(front, HEAD_LAST + 1) -- of the envelope
  local intro = string.sub(front, from + 1, from + 6)
  if #intro < 6 and #front > FRONT_READ then
    front = redis.call('GETRANGE', key, 0, from + 5)
    intro = string.sub(front, from + 1)
  end
  local head = string.sub(front, 1, from)
  local length, said_in = bytes_length(string.sub(intro, 2))
  if not length then
    return head, 0
  end
  local tail = ''
  if string.byte(intro) > 0x91 then
    local tail_from = from + 1 + said_in + length
    tail = redis.call('GETRANGE', key, tail_from, tail_from + TAIL_MAX - 1)
  end
  return head .. string.sub(intro, 1, 1) .. '\196\0' .. tail, length
end

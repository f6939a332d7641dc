-- Shared by the scripts that read heads: put in front of each of them when it is loaded.
--
-- Layout of a head (0-based offsets as GETRANGE takes them; see src/job/head.rs):
--   0 place · 1-10 entry id (ms in 6 bytes, seq in 4) · 11 attempts · 12 stalls · 13-20 version · 21-28 import
--   29 length of the extras · 30-33 priority · 34… group          (the extras are there only if the job has one of them)
-- Numbers are big-endian. Versions and import ids are handled as bytes: as Lua numbers turned into text they lose digits.

local GROUP = 'workers' -- the one consumer group of a work stream
local HEAD_LAST = 29
local HEAD_READ_LAST = 93 -- far enough for most groups
local HEAD_READ = tostring(HEAD_READ_LAST) -- Redis turns each number of a call into text first
local NO_ENTRY = string.rep('\0', 10)
local NO_IMPORT = string.rep('\0', 8)
local UNTRIED = '\0' -- attempts of a job that starts afresh

local function now_us()
  local time = redis.call('TIME')
  return time[1] * 1000000 + time[2]
end

local function now_ms()
  return math.floor(now_us() / 1000)
end

-- A whole number as text: Lua's own way loses digits beyond 14.
local function whole(number)
  return string.format('%.0f', number)
end

-- "1795492693614-0" as the 10 bytes of a head
local function packed(entry)
  local ms, seq = string.match(entry, '^(%d+)-(%d+)$')
  return struct.pack('>I6I4', ms, seq)
end

-- the 10 bytes of a head as "1795492693614-0"
local function unpacked(bytes)
  local ms, seq = struct.unpack('>I6I4', bytes)
  return string.format('%.0f-%.0f', ms, seq)
end

-- Not `a > b`: Lua compares strings by the locale of the server.
local function is_newer(a, b)
  local a_high, a_low = struct.unpack('>I4I4', a)
  local b_high, b_low = struct.unpack('>I4I4', b)
  return a_high > b_high or (a_high == b_high and a_low > b_low)
end

-- The head in a job's key with its extras; false when there is none, an error text when the key is of another type.
local function read_head(key)
  local head = redis.pcall('GETRANGE', key, '0', HEAD_READ)
  if type(head) == 'table' then
    return false, head.err
  end
  if #head <= HEAD_LAST then
    return false
  end
  local last = HEAD_LAST + string.byte(head, HEAD_LAST + 1)
  if last > HEAD_READ_LAST then
    head = redis.call('GETRANGE', key, '0', last)
  end
  return #head > last and string.sub(head, 1, last + 1)
end

-- Priority and group of a job, from its head: 0 and '' when it has none.
local function extras(head)
  if #head <= HEAD_LAST + 1 then
    return 0, ''
  end
  return struct.unpack('>I4', string.sub(head, HEAD_LAST + 2, HEAD_LAST + 5)), string.sub(head, HEAD_LAST + 6)
end

-- The length and the extras, as they stand in a head.
local function packed_extras(priority, group)
  if priority == 0 and group == '' then
    return '\0'
  end
  return string.char(4 + #group) .. struct.pack('>I4', priority) .. group
end

-- Whether a worker still holds the job that it read with `ref` (the place and the packed entry): the head names them only as
-- long as nobody took the job over.
local function holds(head, ref)
  return head and string.sub(head, 1, 11) == ref
end

-- Since when a job fails: from its row in the hash of failures, or `now` for its first failure (or a damaged row).
local function first_failure(row, now)
  local read, values = pcall(cmsgpack.unpack, row or '')
  return read and type(values) == 'table' and tonumber(values[1]) or now
end

-- Notes that jobs were lost: feeds that remember them as enqueued are taken in whole once more. At most once in ten
-- minutes, so that neither a burst of losses nor what it brings about goes on for ever.
local LOSSES_APART_MS = 600000
local function note_loss(meta)
  local now, last = now_ms(), tonumber(redis.call('HGET', meta, 'lost_at') or 0)
  if now - last > LOSSES_APART_MS then
    redis.call('HSET', meta, 'lost_at', now)
    redis.call('HINCRBY', meta, 'losses', 1)
  end
end

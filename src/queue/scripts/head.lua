-- Shared by the scripts that move jobs: put in front of each of them when it is loaded.
--
-- Layout of a head (0-based offsets as GETRANGE takes them; see src/job/head.rs):
--   0 place · 1-10 entry id (ms in 6 bytes, seq in 4) · 11 attempts · 12 stalls · 13-20 version · 21-28 import · 29 group length
-- Numbers are big-endian. Versions and import ids are handled as bytes: as Lua numbers turned into text they lose digits.

local HEAD_LAST = 29
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

-- The head in a job's key; false when there is none, an error text when the key is of another type.
local function read_head(key)
  local head = redis.pcall('GETRANGE', key, 0, HEAD_LAST)
  if type(head) == 'table' then
    return false, head.err
  end
  return #head > HEAD_LAST and head
end

-- Whether a worker that read `entry` (packed: `ref`) still holds the job: the head names the entry only as long as
-- nobody took it over.
local function holds(head, ref)
  return head and string.sub(head, 1, 1) == 's' and string.sub(head, 2, 11) == ref
end

-- Whether the structure that the head names really holds the job: a guard whose job is gone must not block its id.
-- `places`: the keys by the byte of the place.
local function stands(head, id, places)
  local place = string.sub(head, 1, 1)
  if place == 'd' then
    return redis.call('ZSCORE', places.d, id)
  end
  local entry = unpacked(string.sub(head, 2, 11))
  return places[place] and #redis.call('XRANGE', places[place], entry, entry) > 0
end

-- Adds an entry for a job to the tail of the stream; returns its id as the 10 bytes of a head. Once a client has added an
-- entry with an enormous id of its own, Redis numbers on from there, and no head could name the entries: then nothing is
-- added, and the call fails.
local function add_entry(stream, id)
  local entry = redis.call('XADD', stream, '*', 'id', id)
  local ref = packed(entry)
  if unpacked(ref) ~= entry then
    redis.call('XDEL', stream, entry)
    error('entry id ' .. entry .. ' is beyond what a head can name: a client added an entry with an id of its own')
  end
  return ref
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

-- Puts a job (back) on the stream: new entry at the tail, head in the stream. `attempts` (one byte) replaces the count.
local function put_on_stream(stream, key, id, attempts)
  redis.call('SETRANGE', key, 0, 's' .. add_entry(stream, id) .. (attempts or ''))
end

local function drop_entries(stream, group, entries)
  if #entries > 0 then
    redis.call('XACK', stream, group, unpack(entries))
    redis.call('XDEL', stream, unpack(entries))
  end
end

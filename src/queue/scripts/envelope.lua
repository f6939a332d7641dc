-- Shared by the scripts that must know what only the envelope of a job says. Behind head.lua.
--
-- Layout (see src/job/envelope.rs): a MessagePack array whose first element is the payload, a byte string. The payload is
-- passed over unread, however long it is: only its length is looked at.

local BIN_LENGTHS = {[0xc4] = 1, [0xc5] = 2, [0xc6] = 4} -- bytes of the length, by the byte in front of it

-- Where the bytes of a byte string begin and end (1-based, as `string.sub` takes them) that stands at a position; nil if none
-- does. Redis's own cmsgpack reads no byte strings.
local function bin_at(packed, at)
  local width = BIN_LENGTHS[string.byte(packed, at)]
  if width and #packed >= at + width then
    local first = at + 1 + width
    return first, first + struct.unpack('>I' .. width, string.sub(packed, at + 1, at + width)) - 1
  end
end

-- Where the payload of an envelope ends (1-based), from its first bytes; nil if it is none.
local function payload_end(front)
  local _, last = bin_at(front, 2)
  return last
end

-- What stands behind the payload: [fingerprint, at, name, feed, options, traceparent], less at its end.
local function read_rest(rest)
  local _, last = bin_at(rest, 1)
  local at, _, feed, offset
  if #rest > (last or 1) then -- a fingerprint that is nil takes one byte
    offset, at, _, feed = cmsgpack.unpack_limit(rest, 3, last or 1)
  end
  local first, options = nil, {}
  if offset and offset > 0 then
    first, last = bin_at(rest, offset + 1)
    options = first and cmsgpack.unpack(string.sub(rest, first, last)) or {}
  end
  return {at = at, feed = feed, dedup = options.dedup, on_fail = options.on_fail}
end

-- What the envelope of a job says: `at` (when the job was enqueued, ms), `feed`, `dedup`, `on_fail`; each nil when it is
-- absent, and all of them when the envelope is damaged.
local function read_envelope(key, head)
  local payload = payload_end(redis.call('GETRANGE', key, #head, #head + 5))
  local rest = payload and redis.call('GETRANGE', key, #head + payload, -1) or ''
  local read, said = true, {}
  if rest ~= '' then
    read, said = pcall(read_rest, rest)
  end
  return read and said or {}
end

-- Frees the deduplication id of a job that ends, if the job still holds it.
local function free_dedup(dedup, id)
  if dedup and redis.call('GET', DEDUP .. dedup) == id then
    redis.call('UNLINK', DEDUP .. dedup)
  end
end

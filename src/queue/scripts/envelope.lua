-- Shared by the scripts that must know what only the envelope of a job says. Behind head.lua.
--
-- Layout (see src/job/envelope.rs): a MessagePack array whose first element is the payload, a byte string. The payload is
-- passed over unread, however long it is: only its length is looked at.

local BIN_LENGTHS = {[0xc4] = 1, [0xc5] = 2, [0xc6] = 4} -- bytes of the length, by the byte in front of it

-- Where the payload of an envelope ends (0-based, counted from its beginning), from its first bytes; nil if it is none.
local function payload_end(front)
  local width = BIN_LENGTHS[string.byte(front, 2)]
  if width and #front >= 2 + width then
    return 2 + width + struct.unpack('>I' .. width, string.sub(front, 3, 2 + width))
  end
end

-- What stands behind the payload: `at` (when the job was enqueued, ms), `feed`, `dedup`, `on_fail`; each nil when it is
-- absent, and all of them when the envelope is damaged.
local function read_envelope(key, head)
  local payload = payload_end(redis.call('GETRANGE', key, #head, #head + 5))
  local rest = payload and redis.call('GETRANGE', key, #head + payload, -1) or ''
  if rest == '' then
    return {}
  end
  local read, _, at, _, feed, packed_options = pcall(cmsgpack.unpack, rest)
  if not read then
    return {}
  end
  local unpacked_options, options = pcall(cmsgpack.unpack, packed_options or '\128') -- an empty map
  if not unpacked_options or type(options) ~= 'table' then
    options = {}
  end
  return {at = at, feed = feed, dedup = options.dedup, on_fail = options.on_fail}
end

-- Frees the deduplication id of a job that ends, if the job still holds it.
local function free_dedup(dedup, id)
  if dedup and redis.call('GET', DEDUP .. dedup) == id then
    redis.call('UNLINK', DEDUP .. dedup)
  end
end

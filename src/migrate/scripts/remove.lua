-- Removes jobs from a structure of a BullMQ queue that feedmill has taken over, with everything that belongs to them.
--
-- KEYS  1 structure (list or zset) · 2 active (list)
-- ARGV  1 type of the structure: list or zset · 2 what the keys of the jobs begin with · 3… ids
-- Keys of jobs are made of ARGV 2 and the ids, as BullMQ's own scripts do.
-- Returns an array: how many jobs are active (if any is, nothing was removed), and a letter per id: R removed;
--   G gone: it stands in the structure no more, so nothing of it was touched.

local structure, active = KEYS[1], KEYS[2]
local kind, prefix = ARGV[1], ARGV[2]

local n_active = redis.call('LLEN', active)
if n_active > 0 then
  return {n_active, ''}
end

local function remove_from_structure(id)
  if kind == 'zset' then
    return redis.call('ZREM', structure, id)
  end
  return redis.call('LREM', structure, -1, id) -- from the end at which jobs are taken: that is where it stands
end

-- A deduplication key that outlives its job would turn away every later one.
local function release_deduplication(id, deduplication)
  local key = prefix .. 'de:' .. deduplication
  if redis.call('GET', key) == id then
    redis.call('DEL', key, prefix .. 'dn:' .. deduplication)
  end
end

local letters = {}
for at = 3, #ARGV do
  local id, key = ARGV[at], prefix .. ARGV[at]
  local letter = 'G'
  if remove_from_structure(id) > 0 then
    letter = 'R'
    local deduplication = redis.call('HGET', key, 'deid')
    if deduplication then
      release_deduplication(id, deduplication)
    end
    redis.call('DEL', key, key .. ':logs')
  end
  letters[#letters + 1] = letter
end
return {0, table.concat(letters)}

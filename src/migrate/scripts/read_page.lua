-- Reads a page of the jobs that stand in one structure of a BullMQ queue, in the order in which they would be worked
-- on. Changes nothing.
--
-- KEYS  1 structure (list, worked on from its right end; or zset, from its lowest score)
--       2 repeat (zset): schedulers by their next slot (ms)
-- ARGV  1 type of the structure: list or zset · 2 what the keys of the jobs begin with · 3 jobs to pass over
--       4 most jobs · 5 most bytes of data; the first job may have more
-- Keys of jobs are made of ARGV 2 and the ids in the structure, as BullMQ's own scripts do.
-- Returns an array: the time of Redis (ms), then for each job an array: id, score ('' in a list), 1 or nil (it belongs
--   to a flow), 1 or nil (it is the next run of a scheduler), and the values of FIELDS, nil for those it does not have
--   (all of them, when its hash is gone).

local FIELDS = {
  'name', 'data', 'opts', 'timestamp', 'priority', 'atm', 'attemptsMade', 'failedReason', 'defa', 'parentKey', 'rjk',
}
local structure, schedulers = KEYS[1], KEYS[2]
local kind, prefix, skip = ARGV[1], ARGV[2], tonumber(ARGV[3])
local most_jobs, most_bytes = tonumber(ARGV[4]), tonumber(ARGV[5])

-- pairs of id and score, in order
local function members()
  if kind == 'zset' then
    return redis.call('ZRANGE', structure, skip, skip + most_jobs - 1, 'WITHSCORES')
  end
  local ids, pairs_of = redis.call('LRANGE', structure, -(skip + most_jobs), -(skip + 1)), {}
  for at = #ids, 1, -1 do
    pairs_of[#pairs_of + 1] = ids[at]
    pairs_of[#pairs_of + 1] = ''
  end
  return pairs_of
end

-- Its parent waits for it, or it has children or had them.
local function belongs_to_a_flow(key, parent)
  return parent or redis.call('EXISTS', key .. ':dependencies', key .. ':processed', key .. ':failed',
    key .. ':unsuccessful') > 0
end

-- As BullMQ tells the run that its scheduler waits for from earlier ones.
local function is_next_run(id, scheduler)
  local slot = scheduler and redis.call('ZSCORE', schedulers, scheduler)
  return slot and id == 'repeat:' .. scheduler .. ':' .. slot
end

local time = redis.call('TIME')
local page, bytes = {string.format('%.0f', time[1] * 1000 + math.floor(time[2] / 1000))}, 0
local found = members()
for at = 1, #found, 2 do
  local id, key = found[at], prefix .. found[at]
  local values = redis.pcall('HMGET', key, unpack(FIELDS))
  if values.err then -- a key of another type is no job
    values = {}
  end
  bytes = bytes + #(values[2] or '')
  if at > 1 and bytes > most_bytes then
    break
  end
  local row = {id, found[at + 1]}
  row[3] = values[2] and belongs_to_a_flow(key, values[10]) and '1' or false
  row[4] = values[11] and is_next_run(id, values[11]) and '1' or false
  for field = 1, #FIELDS do
    row[4 + field] = values[field] or false
  end
  page[#page + 1] = row
end
return page

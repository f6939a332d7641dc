-- Takes over one page of entries whose consumer stopped working on them: each job goes back to waiting with one stall
-- more, or, over the limit, to the dead letters.
--
-- Claims with JUSTID and reads the entries itself, so that both replies of XAUTOCLAIM work: Redis 6.2 answers two
-- elements and leaves deleted entries pending, 7.0 and later answer three and drop them.
--
-- KEYS  1-12 as queue.lua
-- ARGV  1-4 as queue.lua · 5 place of the lane ("s" or "p") · 6 consumer that claims · 7 idle time from which an entry is
--       stalled (ms) · 8 cursor · 9 page size · 10 most stalls · 11 most failures an import lists · 12 longest job id (bytes)
-- Returns {next cursor ("0-0": the lane is through), waiting again, buried, dropped, ids of the stalled jobs…}

local place, consumer, min_idle, cursor, page = unpack(ARGV, OWN_ARGS, OWN_ARGS + 4)
local stalls_max, listed_max, id_max =
  tonumber(ARGV[OWN_ARGS + 5]), tonumber(ARGV[OWN_ARGS + 6]), tonumber(ARGV[OWN_ARGS + 7])
local REASON = 'job stalled more than allowable limit'
local lane = LANES[place]

if redis.call('HEXISTS', K.meta, 'paused') == 1 then
  return {'0-0', 0, 0, 0}
end

local n_waiting, n_buried, n_dropped, stalled = 0, 0, 0, {}

local function stall_event(id)
  stalled[#stalled + 1] = id
  if EVENTS_MAX > 0 then
    event('stalled', id)
  end
end

local function bury_unreadable(entry, reason, id, raw)
  bury_remains(id, raw, reason, id or entry, consumer)
  n_buried = n_buried + 1
end

-- One stalled job: back to waiting, or buried.
local function take_over_job(entry, id)
  local key = JOB .. id
  local head, err = read_head(key)
  if err then
    bury_unreadable(entry, err, id)
  elseif not head then
    bury_unreadable(entry, 'payload lost', id)
  elseif holds(head, place .. packed(entry)) then
    local stalls = math.min(string.byte(head, 13) + 1, 255)
    redis.call('SETRANGE', key, 12, string.char(stalls))
    if stalls > stalls_max then
      stall_event(id)
      leave_group(head)
      bury(key, head, id, REASON, string.byte(head, 12), consumer, false, listed_max)
      keep_as_told(key, id, read_envelope(key, head))
      n_buried = n_buried + 1
    else
      put_back(key, id, head)
      stall_event(id)
      n_waiting = n_waiting + 1
    end
  else -- the job stands elsewhere and this entry is a leftover
    n_dropped = n_dropped + 1
  end
end

-- One entry of a plain producer that no worker lived to adopt: it has no head, so it carries along its stalls and the
-- entry id it was added with, which is its version.
local function take_over_plain(entry, fields)
  local stalls = (tonumber(fields.stalls) or 0) + 1
  stall_event(entry)
  if stalls > stalls_max then
    bury_unreadable(entry, REASON, nil, fields.json)
  else
    add_plain_entry(lane, 'json', fields.json, 'stalls', stalls, 'added', fields.added or entry)
    n_waiting = n_waiting + 1
  end
end

local reply = redis.call('XAUTOCLAIM', lane, GROUP, consumer, min_idle, cursor, 'COUNT', page, 'JUSTID')
for _, entry in ipairs(reply[2]) do
  leave_lane(place, entry)
  local found = redis.call('XRANGE', lane, entry, entry)[1]
  if found then
    local fields = {}
    for i = 1, #found[2], 2 do
      fields[found[2][i]] = found[2][i + 1]
    end
    if fields.id and (fields.id == '' or #fields.id > id_max) then
      bury_unreadable(entry, 'an entry with an id that no job can have', nil, fields.id)
    elseif fields.id then
      take_over_job(entry, fields.id)
    elseif fields.json then
      take_over_plain(entry, fields)
    else
      bury_unreadable(entry, 'an entry with neither an id nor json', nil, cmsgpack.pack(found[2]))
    end
  else
    n_dropped = n_dropped + 1
  end
end
drop_left()
apply_groups()
wake_readers()
if #stalled > 0 then
  redis.call('HINCRBY', K.meta, 'stalled', #stalled)
end
count_buried(n_buried)
return {reply[1], n_waiting, n_buried, n_dropped, unpack(stalled)}

-- Takes over one page of entries whose consumer stopped working on them: each job goes back to waiting with one stall
-- more, or, over the limit, to the dead letters.
--
-- Claims with JUSTID and reads the entries itself, so that both replies of XAUTOCLAIM work: Redis 6.2 answers two
-- elements and leaves deleted entries pending, 7.0 and later answer three and drop them.
--
-- KEYS  1 stream (stream) · 2 dead (stream) · 3 failures (hash) · 4 meta (hash) · 5 closing imports (zset)
--       6 events (stream)
-- ARGV  1 group · 2 consumer that claims · 3 idle time from which an entry is stalled (ms) · 4 cursor · 5 page size
--       6 most stalls · 7 prefix of job keys · 8 prefix of import keys · 9 most events kept (0: none are written)
--       10 most failures an import lists · 11 longest job id (bytes)
-- Returns {next cursor ("0-0": the sweep is through), waiting again, buried, dropped, ids of the stalled jobs…}

local stream, dead, failures, meta, closing, events = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]
local group, consumer, min_idle, cursor, page = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local stalls_max, job_prefix, import_prefix = tonumber(ARGV[6]), ARGV[7], ARGV[8]
local events_max, listed_max, id_max = tonumber(ARGV[9]), tonumber(ARGV[10]), tonumber(ARGV[11])
local REASON = 'job stalled more than allowable limit'
local burial_keys = {dead = dead, failures = failures, events = events, closing = closing, meta = meta}
local burial_options = {import_prefix = import_prefix, events_max = events_max, listed_max = listed_max}

if redis.call('HEXISTS', meta, 'paused') == 1 then
  return {'0-0', 0, 0, 0}
end

local n_waiting, n_buried, n_unreadable, left, stalled = 0, 0, 0, {}, {}

local function stall_event(id)
  stalled[#stalled + 1] = id
  if events_max > 0 then
    redis.call('XADD', events, 'MAXLEN', '~', events_max, '*', 'event', 'stalled', 'jobId', id)
  end
end

local function bury_unreadable(entry, reason, id, raw)
  bury_remains(id, raw, reason, id or entry, consumer, burial_keys, events_max)
  n_unreadable = n_unreadable + 1
end

-- One stalled job: back to waiting, or buried.
local function take_over_job(entry, id)
  local key = job_prefix .. id
  local head, err = read_head(key)
  if err then
    bury_unreadable(entry, err, id)
  elseif not head then
    bury_unreadable(entry, 'payload lost', id)
  elseif holds(head, packed(entry)) then
    local stalls = math.min(string.byte(head, 13) + 1, 255)
    redis.call('SETRANGE', key, 12, string.char(stalls))
    stall_event(id)
    if stalls > stalls_max then
      bury(key, head, id, REASON, string.byte(head, 12), consumer, false, burial_keys, burial_options)
      n_buried = n_buried + 1
    else
      put_on_stream(stream, key, id)
      n_waiting = n_waiting + 1
    end
  end -- else the job stands elsewhere and this entry is a leftover
end

-- One entry of a plain producer that no worker lived to adopt: it has no head, so it carries along its stalls and the
-- entry id it was added with, which is its version.
local function take_over_plain(entry, fields)
  local stalls = (tonumber(fields.stalls) or 0) + 1
  stall_event(entry)
  if stalls > stalls_max then
    bury_unreadable(entry, REASON, nil, fields.json)
  else
    redis.call('XADD', stream, '*', 'json', fields.json, 'stalls', stalls, 'added', fields.added or entry)
    n_waiting = n_waiting + 1
  end
end

local reply = redis.call('XAUTOCLAIM', stream, group, consumer, min_idle, cursor, 'COUNT', page, 'JUSTID')
for _, entry in ipairs(reply[2]) do
  left[#left + 1] = entry
  local found = redis.call('XRANGE', stream, entry, entry)[1]
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
  end
end
drop_entries(stream, group, left)
if #stalled > 0 then
  redis.call('HINCRBY', meta, 'stalled', #stalled)
end
if n_buried > 0 then
  redis.call('HINCRBY', meta, 'failed', n_buried)
end
n_buried = n_buried + n_unreadable
return {reply[1], n_waiting, n_buried, #left - n_waiting - n_buried, unpack(stalled)}

-- Reads one page of the jobs in a state: of each what there is but its payload.
--
-- A list has sections, each a stream or a zset: the waiting are the stream beyond what was delivered, then what is parked,
-- group by group; the active are the lane of prioritized jobs, then the stream as far as it was delivered; every other state
-- is one section. Downwards everything is the other way round. A page begins behind a position, which is where a job stood:
-- what moved meanwhile shifts nothing.
--
-- KEYS  1-12 as queue.lua
-- ARGV  1-4 as queue.lua · 5 state · 6 "asc" or "desc" · 7 most jobs of the page · the position behind which it begins:
--       8 section (empty: from the beginning) · 9 entry, or score in a zset · 10 job id in a zset · 11 group, if parked
-- Returns {{position behind which the next page begins, as in ARGV 8-11; its section is empty when that was all},
--         then per job {section · entry, or score in a zset · job id (empty: an entry without one) · group, if parked · value
--         of its key without the payload (empty: none) · bytes of its payload · row of failures (empty: none) · {consumer and
--         idle time (ms) of an active one; fields of a dead letter, or of an entry without an id, long ones cut}}}
-- At most 128 jobs or 512 KiB a call; a page may be shorter than asked for though it is not the last.

local state, is_asc, limit = ARGV[OWN_ARGS], ARGV[OWN_ARGS + 1] == 'asc', tonumber(ARGV[OWN_ARGS + 2])
local start = {unpack(ARGV, OWN_ARGS + 3, OWN_ARGS + 6)}
local BYTES_MAX, LOOKED_MAX = 524288, 1024
local CHUNK_FIRST, CHUNK_LAST = 8, 256 -- entries of one XRANGE: those that hold json may be large
local FIELD_MAX = 1024

local rows, n_bytes, n_looked, last, is_cut = {}, 0, 0, start, false

-- Whether the page has room for one more; if not, the next page begins behind what was looked at last.
local function has_room()
  is_cut = #rows >= limit or n_bytes >= BYTES_MAX or n_looked >= LOOKED_MAX
  return not is_cut
end

local function add(section, at, id, group, more)
  local value, payload_bytes, failure = '', 0, ''
  if id ~= '' then
    value, payload_bytes = brief(JOB .. id)
    if (string.byte(value, 12) or 0) > 0 then
      failure = redis.call('HGET', K.failures, id) or ''
    end
  end
  rows[#rows + 1] = {section, at, id, group, value, payload_bytes, failure, more}
  n_bytes = n_bytes + #id + #value + #failure
end

-- The fields of an entry, long ones cut: what could not be read may be of any size.
local function cut_fields(fields)
  for i = 1, #fields do
    n_bytes = n_bytes + #fields[i]
    fields[i] = string.sub(fields[i], 1, FIELD_MAX)
  end
  return fields
end

-- ── streams ─────────────────────────────────────────────────────────────────────────────────────────────────────────────

local function field(fields, name)
  for i = 1, #fields, 2 do
    if fields[i] == name then
      return fields[i + 1]
    end
  end
  return ''
end

-- Goes through the entries of a stream between two bounds as XRANGE takes them; `visit` adds those that belong to the list.
local function walk_stream(section, stream, low, high, visit)
  local chunk = CHUNK_FIRST
  while true do
    local entries
    if is_asc then
      entries = redis.call('XRANGE', stream, low, high, 'COUNT', chunk)
    else
      entries = redis.call('XREVRANGE', stream, high, low, 'COUNT', chunk)
    end
    for _, found in ipairs(entries) do
      if not has_room() then
        return
      end
      n_looked = n_looked + 1
      last = {section, found[1], '', ''}
      visit(found[1], field(found[2], 'id'), found[2])
    end
    if #entries < chunk then
      return
    end
    if is_asc then
      low = '(' .. last[2]
    else
      high = '(' .. last[2]
    end
    if n_bytes < BYTES_MAX / 8 then
      chunk = math.min(chunk * 4, CHUNK_LAST)
    end
  end
end

-- How far the group is. A closed gate pretends that everything was delivered; where the group really was is in meta.
local function read_reached()
  local reached = redis.call('HGET', K.meta, 'gate')
  if reached then
    return reached
  end
  for _, info in ipairs(redis.pcall('XINFO', 'GROUPS', K.stream)) do
    local fields = {}
    for i = 1, #info, 2 do
      fields[info[i]] = info[i + 1]
    end
    if fields.name == GROUP then
      return fields['last-delivered-id']
    end
  end
  return '0-0'
end
local reached = (state == 'waiting' or state == 'active') and read_reached()

local function is_behind(a, b)
  local a_ms, a_seq = string.match(a, '^(%d+)-(%d+)$')
  local b_ms, b_seq = string.match(b, '^(%d+)-(%d+)$')
  a_ms, b_ms = tonumber(a_ms), tonumber(b_ms)
  return a_ms > b_ms or (a_ms == b_ms and tonumber(a_seq) > tonumber(b_seq))
end

local function walk_waiting(from)
  local low, high = reached, '+'
  if from and is_asc then
    low = is_behind(from[2], reached) and from[2] or reached
  elseif from then
    high = '(' .. from[2]
  end
  walk_stream('stream', K.stream, '(' .. low, high, function(entry, id, fields)
    add('stream', entry, id, '', id == '' and cut_fields(fields) or {})
  end)
end

-- Those of a lane that are pending: up to `reached` all of them are, but for what a client acknowledged by hand.
local function walk_lane(section, lane, to, from)
  local low, high = '-', to
  if from and is_asc then
    low = '(' .. from[2]
  elseif from then
    high = '(' .. from[2]
  end
  walk_stream(section, lane, low, high, function(entry, id)
    local pending = redis.pcall('XPENDING', lane, GROUP, entry, entry, 1)
    if not pending.err and pending[1] then
      add(section, entry, id, '', {pending[1][2], pending[1][3]})
    end
  end)
end

local function walk_dead(from)
  local low, high = '-', '+'
  if from and is_asc then
    low = '(' .. from[2]
  elseif from then
    high = '(' .. from[2]
  end
  walk_stream('dead', K.dead, low, high, function(entry, id, fields)
    add('dead', entry, id, '', cut_fields(fields))
  end)
end

-- ── zsets ───────────────────────────────────────────────────────────────────────────────────────────────────────────────

-- Redis's order of members with one score. Not `a < b`: Lua compares strings by the locale of the server.
local function is_before(a, b)
  for i = 1, math.min(#a, #b) do
    local x, y = string.byte(a, i), string.byte(b, i)
    if x ~= y then
      return x < y
    end
  end
  return #a < #b
end

-- How many members stand in front of where (score, member) stands or stood, and whether it stands there.
local function n_before(zset, score, member)
  local found = redis.call('ZSCORE', zset, member)
  if found and tonumber(found) == tonumber(score) then
    return redis.call('ZRANK', zset, member), true
  end
  local low = redis.call('ZCOUNT', zset, '-inf', '(' .. score)
  local high = low + redis.call('ZCOUNT', zset, score, score)
  while low < high do
    local middle = math.floor((low + high) / 2)
    if is_before(redis.call('ZRANGE', zset, middle, middle)[1], member) then
      low = middle + 1
    else
      high = middle
    end
  end
  return low, false
end

local function walk_zset(section, zset, group, from)
  local wanted = limit - #rows + 1 -- one more says whether that was all
  local first, to
  if is_asc then
    first = 0
    if from then
      local before, stands = n_before(zset, from[2], from[3])
      first = stands and before + 1 or before
    end
    to = first + wanted
  else
    to = from and n_before(zset, from[2], from[3]) or redis.call('ZCARD', zset)
    first = math.max(to - wanted, 0)
  end
  local members = to > first and redis.call('ZRANGE', zset, first, to - 1, 'WITHSCORES') or {}
  local begin, done, step = 1, #members - 1, 2
  if not is_asc then
    begin, done, step = #members - 1, 1, -2
  end
  for i = begin, done, step do
    if not has_room() then
      return
    end
    n_looked = n_looked + 1
    last = {section, members[i + 1], members[i], group}
    add(section, members[i + 1], members[i], group, {})
  end
end

-- The groups with parked jobs by their names, each by arrival.
local function walk_parked(from)
  local group = from and from[4]
  if group then
    walk_zset('parked', PARKED .. group, group, from)
  end
  while not is_cut do
    local behind = group and '(' .. group
    if is_asc then
      group = redis.call('ZRANGEBYLEX', PARKED_GROUPS, behind or '-', '+', 'LIMIT', 0, 1)[1]
    else
      group = redis.call('ZREVRANGEBYLEX', PARKED_GROUPS, behind or '+', '-', 'LIMIT', 0, 1)[1]
    end
    if not group or not has_room() then
      return
    end
    n_looked = n_looked + 1
    last = {'parked', is_asc and '-inf' or '+inf', '', group}
    walk_zset('parked', PARKED .. group, group)
  end
end

-- ── the page ────────────────────────────────────────────────────────────────────────────────────────────────────────────

local function zset_of(zset)
  return {{'zset', function(from) walk_zset('zset', zset, '', from) end}}
end
local SECTIONS = {
  waiting = {{'stream', walk_waiting}, {'parked', walk_parked}},
  active = {
    {'lane', function(from) walk_lane('lane', K.prioritized_active, '+', from) end},
    {'stream', function(from) walk_lane('stream', K.stream, reached, from) end},
  },
  prioritized = zset_of(K.prioritized),
  delayed = zset_of(K.delayed),
  completed = zset_of(K.completed),
  failed = {{'dead', walk_dead}},
}
local sections = SECTIONS[state]
local is_begun = start[1] == ''
for i = 1, #sections do
  local name, walk = unpack(sections[is_asc and i or #sections + 1 - i])
  if is_begun then
    walk(nil)
  elseif name == start[1] then
    is_begun = true
    walk(start)
  end
  if is_cut then
    break
  end
end
return {is_cut and last or {'', '', '', ''}, unpack(rows)}

-- Takes care of entries of a lane that were delivered and are pending for nobody: a job that stands in one waits again, as a
-- new entry at the tail; what is no job's goes.
--
-- KEYS  1-12 as queue.lua
-- ARGV  1-4 as queue.lua · 5 place of the lane ("s" or "p") · 6 longest job id (bytes) · then entry ids
-- Returns one letter per entry: W waits again · O dropped, its job stands elsewhere · F a dead letter: no job can be made of it ·
--         A no orphan, or not any more
-- At most 64 entries a call.

local place, id_max = ARGV[OWN_ARGS], tonumber(ARGV[OWN_ARGS + 1])
local FIRST_ENTRY = OWN_ARGS + 2
local lane = LANES[place]

local group = group_of(lane)
if not group then
  return string.rep('A', #ARGV - FIRST_ENTRY + 1)
end
local reached = place == 's' and redis.call('HGET', K.meta, 'gate') or group['last-delivered-id']

local n_buried = 0
local function bury_orphan(entry, reason, id, raw)
  bury_remains(id, raw, reason, id or entry, '')
  n_buried = n_buried + 1
  return 'F'
end

local function restore(entry, found)
  local fields = {}
  for i = 1, #found, 2 do
    fields[found[i]] = found[i + 1]
  end
  if fields.id and (fields.id == '' or #fields.id > id_max) then
    return bury_orphan(entry, 'an entry with an id that no job can have', nil, fields.id)
  elseif fields.id then
    local key = JOB .. fields.id
    local head, err = read_head(key)
    if not head then
      return bury_orphan(entry, err or 'payload lost', fields.id)
    elseif not holds(head, place .. packed(entry)) then
      return 'O'
    end
    put_back(key, fields.id, head)
    return 'W'
  elseif fields.json then
    local added = fields.added or entry
    if fields.stalls then
      add_plain_entry(lane, 'json', fields.json, 'stalls', fields.stalls, 'added', added)
    else
      add_plain_entry(lane, 'json', fields.json, 'added', added)
    end
    return 'W'
  end
  return bury_orphan(entry, 'an entry with neither an id nor json', nil, cmsgpack.pack(found))
end

local letters = {}
for at = FIRST_ENTRY, #ARGV do
  local entry, letter = ARGV[at], 'A'
  -- nothing stands in it once it is gone, or if it was not delivered yet
  local found = redis.pcall('XRANGE', lane, entry, reached, 'COUNT', 1)[1]
  if found and found[1] == entry and #redis.call('XPENDING', lane, GROUP, entry, entry, 1) == 0 then
    letter = restore(entry, found[2])
    leave_lane(place, entry)
  end
  letters[#letters + 1] = letter
end
drop_left()
apply_groups()
wake_readers()
count_buried(n_buried)
return table.concat(letters)

-- Gives up on jobs: from active to the dead letters, with the reason. The guard stays and holds the envelope.
--
-- A job whose content was replaced while it was worked on goes back on the stream instead, at attempt 1.
--
-- KEYS  1 stream (stream) · 2 dead (stream) · 3 failures (hash) · 4 meta (hash) · 5 closing imports (zset)
--       6 events (stream) · 7… job:<id> (string)
-- ARGV  1 group · 2 prefix of import keys · 3 consumer · 4 most events kept (0: none are written)
--       5 most failures an import lists
--       then per job: entry id · entry id (10 bytes) · version worked on (8 bytes) · id · reason
--       · "exhausted" when its attempts are used up, else empty
-- Returns one letter per job: F buried · C changed, runs again · L lost
-- At most 256 jobs a call.

local stream, dead, failures, meta, closing, events = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]
local group, import_prefix, consumer = ARGV[1], ARGV[2], ARGV[3]
local events_max, listed_max = tonumber(ARGV[4]), tonumber(ARGV[5])
local FIRST_KEY, FIRST_ARG, ARGS = 7, 6, 6

local statuses, left, n_buried = {}, {}, 0
for i = FIRST_KEY, #KEYS do
  local key, at = KEYS[i], FIRST_ARG + (i - FIRST_KEY) * ARGS
  local entry, ref, version, id = ARGV[at], ARGV[at + 1], ARGV[at + 2], ARGV[at + 3]
  local reason, exhausted = ARGV[at + 4], ARGV[at + 5]
  local head = read_head(key)
  local status = 'L'
  if holds(head, ref) then
    left[#left + 1] = entry
    if string.sub(head, 14, 21) ~= version then
      status = 'C'
      put_on_stream(stream, key, id, UNTRIED)
    else
      status = 'F'
      n_buried = n_buried + 1
      bury(key, head, id, reason, math.min(string.byte(head, 12) + 1, 255), consumer, exhausted == 'exhausted',
        {dead = dead, failures = failures, events = events, closing = closing},
        {import_prefix = import_prefix, events_max = events_max, listed_max = listed_max})
    end
  end
  statuses[#statuses + 1] = status
end

drop_entries(stream, group, left)
if n_buried > 0 then
  redis.call('HINCRBY', meta, 'failed', n_buried)
end
return table.concat(statuses)

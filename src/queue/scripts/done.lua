-- Ends jobs that are done: entry and guard go, the import counts them.
--
-- A job whose content was replaced while it was worked on is not done: it goes back on the stream, at attempt 1, and
-- counts nothing. A job that the worker no longer holds is left alone.
--
-- KEYS  1 stream (stream) · 2 failures (hash) · 3 meta (hash) · 4 closing imports (zset) · 5… job:<id> (string)
-- ARGV  1 group · 2 prefix of import keys
--       then per job: entry id · entry id (10 bytes) · version worked on (8 bytes) · id · what the import counts
--       ("inserted", "updated", "stale", or empty)
-- Returns one letter per job: D done · C changed, runs again · L lost
-- At most 256 jobs a call.

local stream, failures, meta, closing = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local group, import_prefix = ARGV[1], ARGV[2]
local FIRST_KEY, FIRST_ARG, ARGS = 5, 3, 5

local statuses, left, guards, healed, changes = {}, {}, {}, {}, {}
local met = {} -- a job that was delivered twice (the group was created anew) counts once
for i = FIRST_KEY, #KEYS do
  local key, at = KEYS[i], FIRST_ARG + (i - FIRST_KEY) * ARGS
  local entry, ref, version, id, tally = ARGV[at], ARGV[at + 1], ARGV[at + 2], ARGV[at + 3], ARGV[at + 4]
  local head = read_head(key)
  local status = 'L'
  if not met[key] and holds(head, ref) then
    met[key] = true
    left[#left + 1] = entry
    if string.sub(head, 14, 21) ~= version then
      status = 'C'
      put_on_stream(stream, key, id, UNTRIED)
    else
      status = 'D'
      guards[#guards + 1] = key
      if string.byte(head, 12) > 0 then
        healed[#healed + 1] = id
      end
      local import = string.sub(head, 22, 29)
      count(changes, import, 'open', -1)
      if tally ~= '' then
        count(changes, import, tally, 1)
      end
    end
  end
  statuses[#statuses + 1] = status
end

drop_entries(stream, group, left)
if #guards > 0 then
  redis.call('UNLINK', unpack(guards))
  redis.call('HINCRBY', meta, 'completed', #guards)
end
if #healed > 0 then
  redis.call('HDEL', failures, unpack(healed))
end
apply_counts(changes, import_prefix, closing)
return table.concat(statuses)

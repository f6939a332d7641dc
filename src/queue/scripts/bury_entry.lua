-- Makes a dead letter of an entry that no job can be made of: unreadable, or its guard is missing.
--
-- An entry that its job's head does not name (it was taken over) is only dropped. A job whose head is whole and whose
-- envelope is not is buried with its guard, as bury.lua does it.
--
-- KEYS  1 stream (stream) · 2 dead (stream) · 3 meta (hash) · 4 events (stream) · 5 failures (hash)
--       6 closing imports (zset) · 7 job:<id> (string; any key of the queue when the entry names no job)
-- ARGV  1 group · 2 consumer · 3 most events kept (0: none are written) · 4 entry id · 5 job id or empty
--       6 reason · 7 raw bytes of the entry or empty · 8 prefix of import keys · 9 most failures an import lists
-- Returns F buried · O dropped, the job stands elsewhere · L the entry is no longer pending

local stream, dead, meta, events, failures, closing, key =
  KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6], KEYS[7]
local group, consumer, events_max, entry, id, reason, raw =
  ARGV[1], ARGV[2], tonumber(ARGV[3]), ARGV[4], ARGV[5], ARGV[6], ARGV[7]
local import_prefix, listed_max = ARGV[8], tonumber(ARGV[9])

if redis.call('XACK', stream, group, entry) == 0 then
  return 'L'
end
redis.call('XDEL', stream, entry)
local head = id ~= '' and read_head(key)
if head then
  if not holds(head, packed(entry)) then
    return 'O'
  end
  bury(key, head, id, reason, string.byte(head, 12), consumer, false,
    {dead = dead, failures = failures, events = events, closing = closing},
    {import_prefix = import_prefix, events_max = events_max, listed_max = listed_max})
  redis.call('HINCRBY', meta, 'failed', 1)
  return 'F'
end
bury_remains(id ~= '' and id, raw ~= '' and raw, reason, id ~= '' and id or entry, consumer,
  {dead = dead, failures = failures, events = events, meta = meta}, events_max)
return 'F'

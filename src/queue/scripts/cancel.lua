-- Gives a job up because somebody wants it so: it becomes a dead letter, which can be redriven. It uses no attempt.
--
-- A worker that has the job loses it at once: whatever it says of it from now on is lost. The entry that it was delivered
-- by is noted for the consumer, which reads the note with its heartbeat and stops the handler. A note that finds no room
-- is none: the worker learns of it when it renews its leases.
--
-- KEYS  1-12 as queue.lua · 13 job:<id> (string)
-- ARGV  1-4 as queue.lua · 5 id · 6 reason · 7 most failures an import lists · 8 prefix of the keys of consumers
--       · 9 ending of the key (set) that holds the notes for one · 10 most notes for a consumer · 11 how long they are
--       kept (ms)
-- Returns D cancelled · N no such job · a small letter: its state (see states.lua), it was left

local key, id, reason = KEYS[OWN_KEYS], ARGV[OWN_ARGS], ARGV[OWN_ARGS + 1]
local listed_max, prefix, ending = tonumber(ARGV[OWN_ARGS + 2]), ARGV[OWN_ARGS + 3], ARGV[OWN_ARGS + 4]
local notes_max, kept = tonumber(ARGV[OWN_ARGS + 5]), tonumber(ARGV[OWN_ARGS + 6])

local head = read_head(key)
local state = head and state_of(head, id) or 'N'
if state == 'N' or state == 'c' or state == 'f' or state == 'u' then
  return state
end
local consumer = ''
if state == 'a' then
  local entry = unpacked(string.sub(head, 2, 11))
  consumer = redis.call('XPENDING', LANES[string.sub(head, 1, 1)], GROUP, entry, entry, 1)[1][2]
  local notes = prefix .. consumer .. ending
  if redis.call('SCARD', notes) < notes_max then
    redis.call('SADD', notes, string.sub(head, 1, 11))
    redis.call('PEXPIRE', notes, kept)
  end
end
local dedup = read_envelope(key, head).dedup
if dedup and redis.call('PTTL', DEDUP .. dedup) < 0 then -- one with a time of its own is held until that is over
  free_dedup(dedup, id)
end
take_out(id, head)
bury(key, head, id, reason, string.byte(head, 12), consumer, false, listed_max, STATE_NAMES[state])
drop_left()
apply_groups()
wake_readers()
count_buried(1)
return 'D'

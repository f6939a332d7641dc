-- Sends jobs from active to the backoff zset, to be promoted when their wait is over.
--
-- A job whose content was replaced while it was worked on goes back on the stream instead, at attempt 1.
--
-- KEYS  1 stream (stream) · 2 delayed (zset) · 3 failures (hash) · 4 meta (hash) · 5 wake (stream) · 6 events (stream)
--       7… job:<id> (string)
-- ARGV  1 group · 2 most events kept (0: none are written)
--       then per job: entry id · entry id (10 bytes) · version worked on (8 bytes) · id · wait (ms)
--       · error text (empty: no attempt is used)
-- Returns {statuses, ms until the next due job}; per job: B backs off · C changed, runs again · L lost
-- At most 256 jobs a call.

local stream, delayed, failures, meta, wake, events = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]
local group, events_max = ARGV[1], tonumber(ARGV[2])
local FIRST_KEY, FIRST_ARG, ARGS = 7, 3, 6

local us = now_us()
local now, waits_from = math.floor(us / 1000), math.ceil(us / 1000) -- rounded up: no wait is cut short
local function due_at(wait)
  return wait == 0 and now or waits_from + wait
end
local earliest = redis.call('ZRANGE', delayed, 0, 0, 'WITHSCORES')[2]
local statuses, left, n_retried = {}, {}, 0
for i = FIRST_KEY, #KEYS do
  local key, at = KEYS[i], FIRST_ARG + (i - FIRST_KEY) * ARGS
  local entry, ref, version, id = ARGV[at], ARGV[at + 1], ARGV[at + 2], ARGV[at + 3]
  local wait, reason = tonumber(ARGV[at + 4]), ARGV[at + 5]
  local head = read_head(key)
  local status = 'L'
  if holds(head, ref) then
    left[#left + 1] = entry
    if string.sub(head, 14, 21) ~= version then
      status = 'C'
      put_on_stream(stream, key, id, UNTRIED)
    else
      status = 'B'
      local attempts = string.byte(head, 12)
      if reason ~= '' then
        attempts = math.min(attempts + 1, 255)
        n_retried = n_retried + 1
        local row = redis.call('HGET', failures, id)
        local first = first_failure(row, now)
        redis.call('HSET', failures, id, cmsgpack.pack({first, now, reason}))
        if events_max > 0 then
          redis.call('XADD', events, 'MAXLEN', '~', events_max, '*', 'event', 'delayed', 'jobId', id,
            'delay', string.format('%.0f', due_at(wait)), 'failedReason', reason)
        end
      end
      redis.call('SETRANGE', key, 0, 'd' .. NO_ENTRY .. string.char(attempts))
      redis.call('ZADD', delayed, due_at(wait), id)
    end
  end
  statuses[#statuses + 1] = status
end

drop_entries(stream, group, left)
if n_retried > 0 then
  redis.call('HINCRBY', meta, 'retried', n_retried)
end
local due = redis.call('ZRANGE', delayed, 0, 0, 'WITHSCORES')[2]
if due and (not earliest or tonumber(due) < tonumber(earliest)) then
  redis.call('XADD', wake, 'MAXLEN', 1, '*', 'due', due)
end
return {table.concat(statuses), due and math.max(0, tonumber(due) - now) or -1}

-- The front of every script that moves jobs: what its first KEYS and ARGV are (see Call::moving in mod.rs), and the head of
-- a job. Put in front of those scripts, before the other shared parts, when they are loaded.
--
-- KEYS  1 stream (stream) · 2 prioritized:active (stream) · 3 wake (stream) · 4 prioritized (zset) · 5 delayed (zset)
--       6 dead (stream) · 7 completed (zset) · 8 failures (hash) · 9 groups (hash) · 10 meta (hash) · 11 events (stream)
--       12 imports:closing (zset) · 13… those of the script
-- ARGV  1 prefix of the queue's keys · 2 most events kept (0: none are written) · 3 "all", if each step of each job is an
--       event, else "failures" · 4 window of a group: most of its jobs that may stand in the stream (0: no limit) · 5… those of
--       the script

local K = {stream = KEYS[1], prioritized_active = KEYS[2], wake = KEYS[3], prioritized = KEYS[4], delayed = KEYS[5],
  dead = KEYS[6], completed = KEYS[7], failures = KEYS[8], groups = KEYS[9], meta = KEYS[10], events = KEYS[11],
  closing = KEYS[12]}
local PREFIX, EVENTS_MAX, ALL_EVENTS, WINDOW = ARGV[1], tonumber(ARGV[2]), ARGV[3] == 'all', tonumber(ARGV[4])
local OWN_KEYS, OWN_ARGS = 13, 5 -- where those of the script begin
local JOB, PARKED, LOG, DEDUP, IMPORT = PREFIX .. 'job:', PREFIX .. 'parked:', PREFIX .. 'log:', PREFIX .. 'dedup:',
  PREFIX .. 'import:'
local HELD = PREFIX .. 'groups:held' -- groups that are held up, by until when (ms)
local PARKED_GROUPS = PREFIX .. 'parked' -- zset: the groups that have parked jobs, in the order of their names

-- Writes an event: what happened to which job, and more fields.
local function event(name, id, ...)
  redis.call('XADD', K.events, 'MAXLEN', '~', EVENTS_MAX, '*', 'event', name, 'jobId', id, ...)
end

-- The log of a job goes a week after it was last written; that of a job that is kept (completed, or a dead letter) goes with it.
local LOG_KEPT_MS, ERRORS_KEPT = 7 * 86400000, 20
local function is_kept(head)
  local place = string.sub(head, 1, 1)
  return place == 'c' or place == 'f'
end
local function date_log(id)
  redis.call('PEXPIRE', LOG .. id, LOG_KEPT_MS)
end
local function keep_log(id)
  redis.call('PERSIST', LOG .. id)
end

-- Keeps the error of a failed attempt in the log of its job, if it has one: the last error is in `failures` anyway.
local function log_error(id, attempt, reason)
  if redis.call('EXISTS', LOG .. id) == 1 then
    redis.call('HSET', LOG .. id, 'error:' .. attempt, reason)
    redis.call('HDEL', LOG .. id, 'error:' .. attempt - ERRORS_KEPT)
    date_log(id)
  end
end

local SERIES_KEPT_MS = 15 * 86400000
-- Counts what ended in this minute of Redis's clock: "completed" or "failed" jobs.
local function count_minute(what, n)
  local minute = math.floor(redis.call('TIME')[1] / 60)
  local key = PREFIX .. 'series:' .. math.floor(minute / 1440)
  if redis.call('HINCRBY', key, what .. ':' .. minute % 1440, n) == n then
    redis.call('PEXPIRE', key, SERIES_KEPT_MS)
  end
end

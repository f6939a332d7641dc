-- Takes in jobs that were given up elsewhere: as dead letters from the start.
--
--   nowhere                                  → taken in
--   dead, of an older version                → its letter is replaced
--   dead otherwise, living, or kept          → duplicate: what is here stays
--
-- They count neither as enqueued nor as failed: neither happened here.
--
-- KEYS  1-12 as queue.lua · 13… job:<id> (string)
-- ARGV  1-4 as queue.lua
--       then per job: id · version (8 bytes; empty: now, and it replaces nothing) · envelope · extras as in a head,
--       length first (or empty) · failed attempts · reason · when it was given up (ms)
-- Returns {statuses, error…}: one letter per job, and an error for each X, in their order:
--         E taken in · D duplicate · X refused
-- At most 256 jobs or 512 KiB a call.

local FIRST_ARG, ARGS = OWN_ARGS, 7

local statuses, errors, changes = {}, {}, {}
for i = OWN_KEYS, #KEYS do
  local key, at = KEYS[i], FIRST_ARG + (i - OWN_KEYS) * ARGS
  local id, version, envelope, extra = ARGV[at], ARGV[at + 1], ARGV[at + 2], ARGV[at + 3]
  local attempts, reason, given_up_at = tonumber(ARGV[at + 4]), ARGV[at + 5], tonumber(ARGV[at + 6])
  local unversioned = version == ''
  if unversioned then
    version = struct.pack('>I8', now_us())
  end
  local head, err = read_head(key)
  local place = head and string.sub(head, 1, 1)
  local status = 'E'
  if err then
    status = 'X'
    errors[#errors + 1] = err
  elseif head and stands(head, id) then
    local is_newer_letter = place == 'f' and not unversioned and is_newer(version, string.sub(head, 14, 21))
    if is_newer_letter then
      take_out(id, head)
    else
      status = 'D'
    end
  elseif head and place ~= 'f' and place ~= 'c' then -- a guard without a job: what it counted for will never settle
    count(changes, string.sub(head, 22, 29), 'open', -1)
    count(changes, string.sub(head, 22, 29), 'superseded', 1)
  end
  if status == 'E' then
    local letter = redis.call('XADD', K.dead, '*', 'id', id, 'reason', reason, 'attempts', attempts,
      'at', whole(given_up_at), 'consumer', '')
    redis.call('SET', key, 'f' .. packed(letter) .. string.char(attempts) .. '\0' .. version .. NO_IMPORT
      .. (extra ~= '' and extra or '\0') .. envelope)
    redis.call('HSET', K.failures, id, cmsgpack.pack({given_up_at, given_up_at, reason}))
    if ALL_EVENTS then event('added', id) end
  elseif status == 'D' and ALL_EVENTS then
    event('duplicated', id)
  end
  statuses[#statuses + 1] = status
end
apply_counts(changes, IMPORT, K.closing)
return {table.concat(statuses), unpack(errors)}

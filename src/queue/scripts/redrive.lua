-- Brings dead letters back to waiting, at attempt 1.
--
-- Before the import has closed, it counts the job as open again; afterwards the job counts for no import.
--
-- KEYS  1 stream (stream) · 2 dead (stream) · 3 failures (hash) · 4 meta (hash)
--       5… job:<id> (string) of each letter (any key of the queue for a letter without an id)
-- ARGV  1 prefix of import keys · then per letter: entry id in the dead letters · id or empty
--       · json of a plain producer's entry, or empty
-- Returns one letter each: R redriven · G gone (redriven, taken over or discarded meanwhile) · N nothing to redrive
--         (neither a payload nor json; it stays)
-- At most 256 letters a call.

local stream, dead, failures, meta = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local import_prefix = ARGV[1]
local FIRST_KEY, FIRST_ARG, ARGS = 5, 2, 3

local statuses, n_redriven = {}, 0
for i = FIRST_KEY, #KEYS do
  local key, at = KEYS[i], FIRST_ARG + (i - FIRST_KEY) * ARGS
  local letter, id, raw = ARGV[at], ARGV[at + 1], ARGV[at + 2]
  local head = id ~= '' and read_head(key)
  local status = 'G'
  if head and string.sub(head, 1, 1) == 'f' and string.sub(head, 2, 11) == packed(letter) then
    status = 'R'
    redis.call('XDEL', dead, letter)
    redis.call('HDEL', failures, id)
    local import = string.sub(head, 22, 29)
    if import ~= NO_IMPORT then
      local import_hash = import_key(import_prefix, import)
      if redis.call('EXISTS', import_hash) == 1 and redis.call('HEXISTS', import_hash, 'closed') == 0 then
        redis.call('HINCRBY', import_hash, 'failed', -1)
        redis.call('HINCRBY', import_hash, 'open', 1)
      else
        redis.call('SETRANGE', key, 21, NO_IMPORT)
      end
    end
    redis.call('SETRANGE', key, 12, '\0') -- stalls start afresh as well
    put_on_stream(stream, key, id, UNTRIED)
  elseif #redis.call('XRANGE', dead, letter, letter) == 1 then
    if raw ~= '' then
      status = 'R'
      -- Its version stays that of the letter: what was added since is newer.
      redis.call('XADD', stream, '*', 'json', raw, 'added', letter)
      redis.call('XDEL', dead, letter)
    elseif head then -- a later job of this id: the letter is a leftover
      redis.call('XDEL', dead, letter)
    else
      status = 'N'
    end
  end
  if status == 'R' then
    n_redriven = n_redriven + 1
  end
  statuses[#statuses + 1] = status
end
if n_redriven > 0 then
  redis.call('HINCRBY', meta, 'redriven', n_redriven)
end
return table.concat(statuses)

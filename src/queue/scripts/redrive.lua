-- Brings dead letters back to waiting, at attempt 1.
--
-- KEYS  1-12 as queue.lua · 13… job:<id> (string) of each letter (any key of the queue for a letter without an id)
-- ARGV  1-4 as queue.lua · then per letter: entry id in the dead letters · id or empty · json of a plain producer's entry,
--       or empty
-- Returns one letter each: R redriven · G gone (redriven, taken over or discarded meanwhile) · N nothing to redrive
--         (neither a payload nor json; it stays)
-- At most 256 letters a call.

local FIRST_ARG, ARGS = OWN_ARGS, 3

local statuses, n_redriven = {}, 0
local arrival = now_us()
for i = OWN_KEYS, #KEYS do
  local key, at = KEYS[i], FIRST_ARG + (i - OWN_KEYS) * ARGS
  local letter, id, raw = ARGV[at], ARGV[at + 1], ARGV[at + 2]
  local head = id ~= '' and read_head(key)
  local status = 'G'
  if head and holds(head, 'f' .. packed(letter)) then
    status = 'R'
    date_log(id)
    arrival = arrival + 1
    revive(key, id, head, arrival)
  elseif #redis.call('XRANGE', K.dead, letter, letter) == 1 then
    if raw ~= '' then
      status = 'R'
      -- Its version stays that of the letter: what was added since is newer.
      add_plain_entry(K.stream, 'json', raw, 'added', letter)
      redis.call('XDEL', K.dead, letter)
    elseif head then -- a later job of this id: the letter is a leftover
      redis.call('XDEL', K.dead, letter)
    else
      status = 'N'
    end
  end
  if status == 'R' then
    n_redriven = n_redriven + 1
  end
  statuses[#statuses + 1] = status
end
apply_groups()
wake_readers()
count_redriven(n_redriven)
return table.concat(statuses)

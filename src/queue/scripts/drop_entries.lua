-- Drops waiting entries of the work stream that no job stands in: those of plain producers which no worker has adopted, and
-- leftovers.
--
-- KEYS  1-12 as queue.lua
-- ARGV  1-4 as queue.lua · then per entry: entry id · id of the job that it names, or empty
-- Returns one letter per entry: R dropped · A a worker has it, or it is gone · S the job that it names stands in it
-- At most 256 entries a call.

local ARGS = 2

local statuses, n_dropped = {}, 0
for at = OWN_ARGS, #ARGV, ARGS do
  local entry, id = ARGV[at], ARGV[at + 1]
  local status = 'S'
  if id == '' or not holds(read_head(JOB .. id), 's' .. packed(entry)) then
    local pending = redis.pcall('XPENDING', K.stream, GROUP, entry, entry, 1)
    local is_held = not pending.err and #pending > 0
    status = not is_held and redis.call('XDEL', K.stream, entry) == 1 and 'R' or 'A'
    n_dropped = n_dropped + (status == 'R' and 1 or 0)
  end
  statuses[#statuses + 1] = status
end
if n_dropped > 0 then
  redis.call('HINCRBY', K.meta, 'removed', n_dropped)
end
return table.concat(statuses)

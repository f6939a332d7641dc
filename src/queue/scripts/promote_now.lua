-- Moves delayed jobs to where they wait for a worker, whether they are due or not; in a group without room they are parked, in
-- front of what came later.
--
-- KEYS  1-12 as queue.lua · 13… job:<id> (string)
-- ARGV  1-4 as queue.lua · then per job: id
-- Returns one letter per job: M waiting now · B its guard was gone, it is a dead letter now · N no such job · a small one: its
--         state (see states.lua), it was left
-- At most 256 jobs a call.

local statuses = {}
for i = OWN_KEYS, #KEYS do
  local key, id = KEYS[i], ARGV[OWN_ARGS + i - OWN_KEYS]
  local head = read_head(key)
  local status = head and state_of(head, id) or 'N'
  if status == 'd' then
    status = 'M'
    redis.call('ZREM', K.delayed, id)
    local priority, group = extras(head)
    redis.call('SETRANGE', key, '0', enter(id, priority, group, (struct.unpack('>I8', string.sub(head, 14, 21)))))
    if ALL_EVENTS then event('waiting', id, 'prev', 'delayed') end
  elseif not head and redis.call('ZREM', K.delayed, id) == 1 then
    status = 'B'
    bury_lost(id)
  end
  statuses[#statuses + 1] = status
end
apply_groups()
wake_readers()
return table.concat(statuses)

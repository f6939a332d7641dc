-- Puts jobs back that do not stand where their heads say: one that was to be worked on waits again, a dead one gets a dead letter
-- again, one that was kept is listed as completed again. A job that stands is left alone.
--
-- KEYS  1-12 as queue.lua
-- ARGV  1-4 as queue.lua · 5… job ids
-- Returns one letter per id: W waits again · F a dead letter again · C completed again · S stands · X no head can be read ·
--         N gone
-- At most 64 ids a call.

local function restore(key, id, head)
  local place = string.sub(head, 1, 1)
  local priority, group = extras(head)
  if place == 's' or place == 'p' then
    put_back(key, id, head) -- its room in its group is still counted
    return 'W'
  elseif place == 'd' or place == 'g' then
    if place == 'g' then
      n_parked = n_parked - 1 -- it is counted, and is not there
      parked_changed[group] = true
    end
    redis.call('SETRANGE', key, '0', enter(id, priority, group, (struct.unpack('>I8', string.sub(head, 14, 21)))))
    if ALL_EVENTS then event('waiting', id, 'prev', place == 'd' and 'delayed' or 'waiting') end
    return 'W'
  elseif place == 'c' then
    redis.call('ZADD', K.completed, whole(now_ms()), id)
    return 'C'
  elseif place == 'f' then
    local row, at, reason = redis.call('HGET', K.failures, id), now_ms(), 'its dead letter was gone'
    local read, values = pcall(cmsgpack.unpack, row or '')
    if read and type(values) == 'table' then
      at, reason = tonumber(values[2]) or at, type(values[3]) == 'string' and values[3] or reason
    end
    local letter = redis.call('XADD', K.dead, '*', 'id', id, 'reason', reason, 'attempts', string.byte(head, 12),
      'at', whole(at), 'consumer', '')
    redis.call('SETRANGE', key, '0', 'f' .. packed(letter))
    return 'F'
  end
  return 'X'
end

local letters = {}
for at = OWN_ARGS, #ARGV do
  local id = ARGV[at]
  local key = JOB .. id
  local head, err = read_head(key)
  local letter
  if not head then
    letter = not err and redis.call('EXISTS', key) == 0 and 'N' or 'X'
  elseif stands(head, id) then
    letter = 'S'
  else
    letter = restore(key, id, head)
  end
  letters[#letters + 1] = letter
end
apply_groups()
wake_readers()
return table.concat(letters)

-- Replaces the payload of a job that has not ended well; everything else of it stays. A worker that has the job keeps the
-- payload that it has read.
--
-- KEYS  1-12 as queue.lua · 13 job:<id> (string)
-- ARGV  1-4 as queue.lua · 5 id · 6 payload, as the MessagePack byte string that it is in the envelope
-- Returns D done · N no such job · c completed, it was left · u it stands nowhere or its envelope is damaged, it was left

local key, id, payload = KEYS[OWN_KEYS], ARGV[OWN_ARGS], ARGV[OWN_ARGS + 1]

local head = read_head(key)
local state = head and state_of(head, id) or 'N'
if state == 'N' or state == 'u' or state == 'c' then
  return state
end
local envelope = redis.call('GETRANGE', key, #head, -1)
local after = payload_end(string.sub(envelope, 1, 6))
if not after then
  return 'u'
end
redis.call('SET', key, head .. string.sub(envelope, 1, 1) .. payload .. string.sub(envelope, after + 1))
return 'D'

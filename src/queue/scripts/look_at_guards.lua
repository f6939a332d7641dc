-- Looks at guards: whether each job stands where its head says. Changes nothing.
--
-- KEYS  1-12 as queue.lua
-- ARGV  1-4 as queue.lua · 5… job ids
-- Returns {one letter per id, then the group of each that stands and takes room in one}: S stands · G the group follows: it
--         stands, and takes room in its group · U it does not stand where its head says · X no head can be read · N gone
-- At most 64 ids a call.

local PLACES = 'spgdfc'

local letters, reply = {}, {''}
for at = OWN_ARGS, #ARGV do
  local id = ARGV[at]
  local head, err = read_head(JOB .. id)
  local letter = 'S'
  if not head then
    letter = not err and redis.call('EXISTS', JOB .. id) == 0 and 'N' or 'X'
  elseif not string.find(PLACES, string.sub(head, 1, 1), 1, true) then
    letter = 'X'
  elseif not stands(head, id) then
    letter = 'U'
  else
    local place, _, group = string.sub(head, 1, 1), extras(head)
    if group ~= '' and (place == 's' or place == 'p') then
      letter = 'G'
      reply[#reply + 1] = group
    end
  end
  letters[#letters + 1] = letter
end
reply[1] = table.concat(letters)
return reply

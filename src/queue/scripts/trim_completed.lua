-- Lets go of completed jobs that were kept and are too many, or too old.
--
-- KEYS  1-12 as queue.lua
-- ARGV  1-4 as queue.lua · 5 most of them that stay (-1: no limit) · 6 longest time that they stay (ms; -1: no limit)
--       · 7 most to let go of
-- Returns how many went
-- At most 256 jobs a call.

return trim_completed(tonumber(ARGV[OWN_ARGS]), tonumber(ARGV[OWN_ARGS + 1]), tonumber(ARGV[OWN_ARGS + 2]))

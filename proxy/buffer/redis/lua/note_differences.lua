#!lua flags=allow-oom
-- note_differences: what a recount found, for those who do not count.     Replay: writes the same.
-- KEYS  1 books
-- ARGV  1 events that the books say are held, and are not  2 the same of dead letters
-- Answers {"noted"}.   allow-oom: a recount must work in a full Redis; two fields of a hash.

if redis.call("EXISTS", KEYS[1]) == 1 then
  redis.call("HSET", KEYS[1], "held_difference", ARGV[1], "dead_difference", ARGV[2])
end
return { "noted" }

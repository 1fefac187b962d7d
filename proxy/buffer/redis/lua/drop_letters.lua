#!lua flags=allow-oom
-- drop_letters: give dead letters of one public key up, as far as they are still there.
-- Replay: they are gone, and nothing more is counted.   Bound: the letters that are named.
-- KEYS  1 books  2 due  3 dead  4 dead_ids  5 dead_order
-- ARGV  for each letter: its id, bytes counted for it
-- Answers {"dropped", how many, facts}.   allow-oom: only frees memory.

local dropped, freed_bytes = 0, 0
for at = 1, #ARGV, 2 do
  if redis.call("ZREM", KEYS[4], ARGV[at]) == 1 then
    redis.call("ZREM", KEYS[5], ARGV[at])
    redis.call("HDEL", KEYS[3], ARGV[at])
    dropped, freed_bytes = dropped + 1, freed_bytes + tonumber(ARGV[at + 1])
  end
end
if dropped > 0 then
  redis.call("HINCRBY", KEYS[1], "dead", whole(-dropped))
  redis.call("HINCRBY", KEYS[1], "dropped", whole(dropped))
  redis.call("HINCRBY", KEYS[1], "dead_bytes", whole(-freed_bytes))
  take_turn(KEYS[1])
end
return { "dropped", dropped, facts(KEYS[1], KEYS[2]) }

#!lua flags=allow-oom
-- reserve_letters: ids for dead letters, of which none was given before, in no public key.
-- Seeded by the time, so that they go on upwards where the last ones were lost with a primary.
-- Replay: others; an id that is not used is no harm.   Clock: TIME.
-- KEYS  1 letters     ARGV  1 clock  2 how many     Answers the last of them, as a text.
-- allow-oom: settle needs it.

local SINCE_MS = 1704067200000  -- 2024-01-01: ids then stay below 2^53 for two centuries
local floor = (moment(ARGV[1]) - SINCE_MS) * 1024
local last = math.max(tonumber(redis.call("GET", KEYS[1]) or 0), floor) + tonumber(ARGV[2])
redis.call("SET", KEYS[1], whole(last))
return whole(last)

#!lua flags=allow-oom
-- elect: of all processes let one do what need not be done by each.     Replay: another is let, or none.
-- KEYS  1 recount     ARGV  1 ms until the next one's turn     Answers {"elected"} or {"not now"}.
-- allow-oom: a recount must work in a full Redis; one key of a few bytes.

if redis.call("SET", KEYS[1], 1, "NX", "PX", ARGV[1]) then return { "elected" } end
return { "not now" }

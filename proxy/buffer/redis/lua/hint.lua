#!lua flags=allow-oom
-- hint: correct when a key is due next, unless somebody has said otherwise meanwhile.
-- Replay: changes nothing more.
-- KEYS  1 active     ARGV  1 public key  2 the due time that was read  3 the right one, "" where nothing is held
-- Answers {"corrected"} or {"changed"}.   allow-oom: makes nothing larger.

if tonumber(redis.call("ZSCORE", KEYS[1], ARGV[1])) ~= tonumber(ARGV[2]) then return { "changed" } end
if ARGV[3] == "" then
  redis.call("ZREM", KEYS[1], ARGV[1])
else
  redis.call("ZADD", KEYS[1], ARGV[3], ARGV[1])
end
return { "corrected" }

#!lua flags=allow-oom
-- pull_back: after the clock went back, no due time lies further ahead than what set it can reach.
-- Replay: changes nothing more.   Bound: the queues that are named.
-- KEYS  1 books  2 due  3 queues
-- ARGV  1 clock  2 lease_ms  3 linger_ms  4 most ms that a queue may back off  5 1: these are the last ones
--       then the queues
-- Answers {"pulled"}.   allow-oom: makes nothing larger.

local now_ms, lease_ms, linger_ms = moment(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local back_off_ms = tonumber(ARGV[4])
for at = 6, #ARGV do
  local due_ms, text = redis.call("ZSCORE", KEYS[2], ARGV[at]), redis.call("HGET", KEYS[3], ARGV[at])
  if due_ms and text then
    local record = read_record(text)
    local reach_ms = record.token ~= "" and lease_ms or record.backs_off == 1 and back_off_ms or linger_ms
    if tonumber(due_ms) > now_ms + reach_ms then
      redis.call("ZADD", KEYS[2], whole(now_ms + reach_ms), ARGV[at])
    end
  end
end
if ARGV[5] == "1" then redis.call("HSET", KEYS[1], "latest_ms", whole(now_ms)) end
return { "pulled" }

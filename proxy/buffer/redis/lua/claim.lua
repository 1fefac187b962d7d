#!lua flags=allow-oom
-- claim: lease the queue that has been due longest and take the gate's token with it, or say how long to wait.
-- The gate as in gate.py: a property test holds the two equal.
-- Replay: another lease; the first one ends by itself.   Clock: TIME.
-- KEYS  1 books  2 due  3 queues  4 gate  5 superseded
-- ARGV  1 clock  2 token, 12 bytes  3 lease_ms  4 limit per second
-- Answers {"lease", queue, attempts, max_events, unsettled 0 or 1}, {"wait", ms}, {"empty"}, or {"jumped"}: the
-- clock went back, and due times must be pulled back first.   allow-oom: a full Redis must be able to drain.

local SHARE_OF_LIMIT = 0.9    -- gate.SHARE_OF_LIMIT
local CATCH_UP_MS = 25        -- gate.CATCH_UP_MS
local MAX_PAUSE_MS = 300000  -- gate.MAX_PAUSE_MS

local now_ms, token, lease_ms, limit = moment(ARGV[1]), ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])

local first = redis.call("ZRANGE", KEYS[2], 0, 0, "WITHSCORES")
if #first == 0 then return { "empty" } end
local latest_ms = tonumber(redis.call("HGET", KEYS[1], "latest_ms") or 0)
if now_ms < latest_ms then return { "jumped" } end
local queue, due_ms = first[1], tonumber(first[2])
if due_ms > now_ms then return { "wait", due_ms - now_ms } end

local gate = redis.call("HMGET", KEYS[4], "limit", "rate", "tat", "pause_until")
local rate, tat_ms, pause_until_ms = tonumber(gate[2] or 0), tonumber(gate[3] or 0), tonumber(gate[4] or 0)
if not gate[1] then
  rate = SHARE_OF_LIMIT * limit
elseif tonumber(gate[1]) ~= limit then
  rate = rate * limit / tonumber(gate[1])
end
local pause_ms = pause_until_ms - now_ms
if pause_ms > 0 and pause_ms <= MAX_PAUSE_MS then return { "wait", pause_ms } end
local period_ms = 1000 / rate
if tat_ms > now_ms + period_ms then tat_ms = now_ms end  -- further ahead than any claim puts it: a jump back
if now_ms < tat_ms then return { "wait", math.ceil(tat_ms - now_ms) } end
tat_ms = math.max(tat_ms, now_ms - CATCH_UP_MS) + period_ms
redis.call("HSET", KEYS[4], "limit", ARGV[4], "rate", string.format("%.17g", rate),
  "tat", string.format("%.17g", tat_ms), "pause_until", 0, "pause_reason", "")

local record = read_record(redis.call("HGET", KEYS[3], queue))
if record.token ~= "" then  -- its lease ended by itself: a try that failed, and its batch may have arrived
  record.attempts, record.unsettled = record.attempts + 1, 1
  supersede(KEYS[5], record.token, now_ms)
end
record.token = token
write_record(KEYS[3], queue, record)
redis.call("ZADD", KEYS[2], whole(now_ms + lease_ms), queue)
redis.call("HSET", KEYS[1], "latest_ms", whole(now_ms))
return { "lease", queue, record.attempts, record.max_events, record.unsettled }

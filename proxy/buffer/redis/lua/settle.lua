#!lua flags=allow-oom
-- settle: end a lease, and write down what became of its batch: in the data and in the books.
-- Replay: the answer is kept for some minutes under the token. A spent token changes nothing; but where Redis
-- has forgotten its lease (a failover), nobody else knows that the batch may have arrived: it goes on record.
-- Bound: the entries of one batch.   The gate as in gate.py: a property test holds the two equal.
-- KEYS  1 books  2 due  3 queues  4 heads  5 gate  6 list  7 settled  8 batches, or ambiguous  9 dead
--       10 dead_ids  11 dead_order  12 ambiguous  13 superseded
-- ARGV  1 clock  2 queue  3 token  4 linger_ms  5 limit per second  6 entries to take off the list's head
--       7 events that leave  8 bytes they were counted for  9 delivered events  10 1: the head has changed
--       11 1: a failed try  12 1: a batch was sent, or would have been  13 wait in ms, -1 none
--       14 pause of the gate in ms, 0 none  15 the pause's reason  16 record of the batch, "" none
--       17 records that are kept  18 1: the batch is ambiguous  19 header entry of the batch's lane
--       20 bytes counted for that  21 runs to put back, and these, oldest first; then letters, and for each:
--       id, number, bytes counted, letter
-- Answers {"settled", left, due in ms or -1, facts} or {"spent", 1 where that went on record}.
-- allow-oom: a full Redis must be able to drain.

local MAX_PAUSE_MS = 300000   -- gate.MAX_PAUSE_MS
local REMEMBERED_MS = 300000   -- how long a settle may be asked again after its answer was lost

local now_ms, queue, token = moment(ARGV[1]), ARGV[2], ARGV[3]

local before = redis.call("GET", KEYS[7])
if before then
  take_turn(KEYS[1])  -- for who waits until it is kept: that is told of the last write of a connection
  local left, due_ms = string.match(before, "^(%d+) (%-?%d+)$")
  left, due_ms = tonumber(left), tonumber(due_ms)
  return { "settled", left, left > 0 and math.max(0, due_ms - now_ms) or -1, facts(KEYS[1], KEYS[2]) }
end
local text = redis.call("HGET", KEYS[3], queue)
local record = text and read_record(text)
if not record or record.token ~= token then
  if ARGV[16] == "" or redis.call("ZSCORE", KEYS[13], token) then return { "spent", 0 } end
  redis.call("LPUSH", KEYS[12], struct.pack(">I8", now_ms) .. ARGV[16])
  redis.call("LTRIM", KEYS[12], 0, tonumber(ARGV[17]) - 1)
  redis.call("HINCRBY", KEYS[1], "ambiguous", 1)
  supersede(KEYS[13], token, now_ms)
  return { "spent", 1 }
end

-- The head of the list. Only here is it known whether a run of the batch's lane follows: it may be new.
local put_back, freed_bytes = tonumber(ARGV[21]), tonumber(ARGV[8])
if tonumber(ARGV[6]) > 0 then
  redis.call("LPOP", KEYS[6], ARGV[6])
  for at = 21 + put_back, 22, -1 do redis.call("LPUSH", KEYS[6], ARGV[at]) end
  local head = redis.call("LINDEX", KEYS[6], 0)
  if head and string.sub(head, 1, 1) == "R" then
    redis.call("LPUSH", KEYS[6], ARGV[19])
    freed_bytes = freed_bytes - tonumber(ARGV[20])
  end
end
record.held = record.held - tonumber(ARGV[7])

-- The queue: when it is due again.
record.token, record.backs_off = "", 0
if ARGV[12] == "1" then record.unsettled = 0 end
record.attempts = ARGV[10] == "1" and 0 or record.attempts + tonumber(ARGV[11])
local due_ms = -1
if record.held == 0 then
  redis.call("HDEL", KEYS[3], queue)
  redis.call("ZREM", KEYS[2], queue)
  redis.call("ZREM", KEYS[4], queue)
  freed_bytes = freed_bytes + QUEUE_OVERHEAD
else
  local accepted_ms, first = stamp_of(head_run(KEYS[6]))
  if tonumber(ARGV[13]) >= 0 then
    due_ms, record.backs_off = now_ms + tonumber(ARGV[13]), 1
  elseif record.held >= FULL_BATCH then
    due_ms = now_ms
  else
    due_ms = math.min(accepted_ms, now_ms) + tonumber(ARGV[4])  -- the clock may have jumped back since
  end
  write_record(KEYS[3], queue, record)
  redis.call("ZADD", KEYS[2], whole(due_ms), queue)
  redis.call("ZADD", KEYS[4], whole(first), queue)
end

-- Dead letters and the record.
local dead, dead_bytes, at = tonumber(ARGV[22 + put_back]), 0, 23 + put_back
for _ = 1, dead do
  local id, number, bytes = ARGV[at], ARGV[at + 1], tonumber(ARGV[at + 2])
  redis.call("HSET", KEYS[9], id, struct.pack(">I8I4", now_ms, bytes) .. ARGV[at + 3])
  redis.call("ZADD", KEYS[10], id, id)
  redis.call("ZADD", KEYS[11], number, id)
  dead_bytes, at = dead_bytes + bytes, at + 4
end
if ARGV[16] ~= "" then
  redis.call("LPUSH", KEYS[8], struct.pack(">I8", now_ms) .. ARGV[16])
  redis.call("LTRIM", KEYS[8], 0, tonumber(ARGV[17]) - 1)
  redis.call("HINCRBY", KEYS[1], "ambiguous", ARGV[18])
end

-- The books and the gate.
take_turn(KEYS[1])
redis.call("HINCRBY", KEYS[1], "delivered", ARGV[9])
redis.call("HINCRBY", KEYS[1], "stored_bytes", whole(-freed_bytes))
if dead > 0 then
  redis.call("HINCRBY", KEYS[1], "dead", dead)
  redis.call("HINCRBY", KEYS[1], "dead_bytes", dead_bytes)
end
if tonumber(ARGV[9]) > 0 then redis.call("HSET", KEYS[1], "succeeded", 1) end
local latest_ms = tonumber(redis.call("HGET", KEYS[1], "latest_ms") or 0)
if now_ms > latest_ms then redis.call("HSET", KEYS[1], "latest_ms", whole(now_ms)) end

local limit, gate = tonumber(ARGV[5]), redis.call("HMGET", KEYS[5], "limit", "rate", "pause_until")
if tonumber(gate[1]) ~= limit then
  local rate = tonumber(gate[2]) * limit / tonumber(gate[1])
  redis.call("HSET", KEYS[5], "limit", ARGV[5], "rate", string.format("%.17g", rate))
end
local pause_ms, paused_ms = tonumber(ARGV[14]), tonumber(gate[3]) - now_ms
if paused_ms < 0 or paused_ms > MAX_PAUSE_MS then paused_ms = 0 end
if pause_ms > paused_ms then
  redis.call("HSET", KEYS[5], "pause_until", whole(now_ms + pause_ms), "pause_reason", ARGV[15])
end

redis.call("SET", KEYS[7], record.held .. " " .. whole(due_ms), "PX", REMEMBERED_MS)
local due_in_ms = due_ms < 0 and -1 or math.max(0, due_ms - now_ms)
return { "settled", record.held, due_in_ms, facts(KEYS[1], KEYS[2]) }

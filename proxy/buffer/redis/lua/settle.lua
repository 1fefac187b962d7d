#!lua flags=allow-oom
-- settle: end a lease, and write down what became of its batch: in the data, in the books and in the gate.
-- Replay: the answer is kept for some minutes under the token. A spent token changes nothing; but where Redis
-- has forgotten its lease (a failover), nobody else knows that the batch may have arrived: it goes on record.
-- Bound: the entries of one batch.   Clock: TIME.
-- KEYS  1 books  2 due  3 queues  4 heads  5 gate  6 list  7 settled  8 batches, or ambiguous  9 dead
--       10 dead_ids  11 dead_order  12 ambiguous  13 superseded
-- ARGV  1 clock  2 queue  3 token  4 linger_ms  5 limit per second  6 this deployment's share of it
--       7 entries to take off the list's head  8 bytes that leave with them  9 events of the batch
--       10 of these, events that stay  11 delivered events  12 1: a failed try  13 wait in ms, -1 none
--       14 most events of the next batch, 0 as before  15 trouble, where that is not 0
--       16 feedback for the gate, MessagePack  17 when the lease was claimed  18 record of the batch, "" none
--       19 records that are kept  20 1: the batch is ambiguous  21 header entry of the batch's lane
--       22 bytes counted for that  23 runs to put back, and these, oldest first; then letters, and for each:
--       id, number, bytes counted, letter
-- Answers {"settled", left, due in ms or -1, facts}, {"spent", 1 where that went on record}, or {"damaged",
-- why}: what is stored is no gate.   allow-oom: a full Redis must be able to drain.

local RUNS = 23                -- among ARGV: how many runs are put back
local REMEMBERED_MS = 300000   -- how long a settle may be asked again after its answer was lost

local now_ms, queue, token = moment(ARGV[1]), ARGV[2], ARGV[3]
local taken, again = tonumber(ARGV[9]), tonumber(ARGV[10])

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
  if ARGV[18] == "" or redis.call("ZSCORE", KEYS[13], token) then return { "spent", 0 } end
  redis.call("LPUSH", KEYS[12], struct.pack(">I8", now_ms) .. ARGV[18])
  redis.call("LTRIM", KEYS[12], 0, tonumber(ARGV[19]) - 1)
  redis.call("HINCRBY", KEYS[1], "ambiguous", 1)
  supersede(KEYS[13], token, now_ms)
  return { "spent", 1 }
end

-- All of the gate comes before the first write: what is stored may be none.
local gate_text, feedback = redis.call("GET", KEYS[5]), cmsgpack.unpack(ARGV[16])
local is_gate, stored_gate = pcall(function()
  local gate = gate_load(gate_text, tonumber(ARGV[5]), tonumber(ARGV[6]))
  gate_settle(gate, feedback, queue, tonumber(ARGV[17]), now_ms)
  return gate_dump(gate)
end)
if not is_gate then return { "damaged", stored_gate } end

-- The head of the list. Only here is it known whether a run of the batch's lane follows: it may be new.
local put_back, freed_bytes = tonumber(ARGV[RUNS]), tonumber(ARGV[8])
local run  -- the first one that stays, where that was looked at
if tonumber(ARGV[7]) > 0 then
  redis.call("LPOP", KEYS[6], ARGV[7])
  for at = RUNS + put_back, RUNS + 1, -1 do redis.call("LPUSH", KEYS[6], ARGV[at]) end
  local head = redis.call("LINDEX", KEYS[6], 0)
  if head and string.sub(head, 1, 1) == "R" then
    run = head
    redis.call("LPUSH", KEYS[6], ARGV[21])
    freed_bytes = freed_bytes - tonumber(ARGV[22])
  end
end
record.held = record.held - (taken - again)

-- What the next delivery should know.
record.token, record.backs_off, record.expired = "", 0, 0
record.attempts = again < taken and 0 or record.attempts + tonumber(ARGV[12])
if taken > 0 and taken < record.max_events then
  record.unsettled = 0  -- the batches of before ended where this one did
elseif taken > 0 then
  record.unsettled = math.max(0, record.unsettled - taken)
  if record.unsettled > 0 then record.unsettled = record.unsettled + again end  -- the others lie behind these
end
if ARGV[14] ~= "0" then record.max_events, record.trouble = tonumber(ARGV[14]), ARGV[15] end

-- The queue: when it is due again.
local due_ms = -1
if record.held == 0 then
  redis.call("HDEL", KEYS[3], queue)
  redis.call("ZREM", KEYS[2], queue)
  redis.call("ZREM", KEYS[4], queue)
  freed_bytes = freed_bytes + QUEUE_OVERHEAD
else
  local accepted_ms, first = stamp_of(run or head_run(KEYS[6]))
  if tonumber(ARGV[13]) >= 0 then
    due_ms, record.backs_off = now_ms + tonumber(ARGV[13]), 1
  elseif record.held >= FULL_BATCH then
    due_ms = now_ms
  else
    due_ms = math.min(accepted_ms, now_ms) + tonumber(ARGV[4])  -- the clock may have jumped back since
  end
  redis.call("HSET", KEYS[3], queue, packed_record(record))
  redis.call("ZADD", KEYS[2], whole(due_ms), queue)
  redis.call("ZADD", KEYS[4], whole(first), queue)
end

-- Dead letters and the record.
local dead, dead_bytes, at = tonumber(ARGV[RUNS + 1 + put_back]), 0, RUNS + 2 + put_back
for _ = 1, dead do
  local id, number, bytes = ARGV[at], ARGV[at + 1], tonumber(ARGV[at + 2])
  redis.call("HSET", KEYS[9], id, struct.pack(">I8I4", now_ms, bytes) .. ARGV[at + 3])
  redis.call("ZADD", KEYS[10], id, id)
  redis.call("ZADD", KEYS[11], number, id)
  dead_bytes, at = dead_bytes + bytes, at + 4
end
if ARGV[18] ~= "" then
  redis.call("LPUSH", KEYS[8], struct.pack(">I8", now_ms) .. ARGV[18])
  redis.call("LTRIM", KEYS[8], 0, tonumber(ARGV[19]) - 1)
  if ARGV[20] == "1" then redis.call("HINCRBY", KEYS[1], "ambiguous", 1) end
end

-- The books and the gate.
local delivered = tonumber(ARGV[11])
local books = redis.call("HMGET", KEYS[1], "delivered", "stored_bytes", "latest_ms", "succeeded", "turn")
for at = 1, 5 do books[at] = tonumber(books[at] or 0) end
redis.call("HSET", KEYS[1], "delivered", whole(books[1] + delivered),
  "stored_bytes", whole(books[2] - freed_bytes), "latest_ms", whole(math.max(books[3], now_ms)),
  "succeeded", delivered > 0 and 1 or books[4], "turn", whole(books[5] + 1))
if dead > 0 then
  redis.call("HINCRBY", KEYS[1], "dead", dead)
  redis.call("HINCRBY", KEYS[1], "dead_bytes", dead_bytes)
end
redis.call("SET", KEYS[5], stored_gate)

redis.call("SET", KEYS[7], record.held .. " " .. whole(due_ms), "PX", REMEMBERED_MS)
local due_in_ms = due_ms < 0 and -1 or math.max(0, due_ms - now_ms)
return { "settled", record.held, due_in_ms, facts(KEYS[1], KEYS[2]) }

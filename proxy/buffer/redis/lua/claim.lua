#!lua flags=allow-oom
-- claim: lease the queue that has been due longest and take the gate's token with it, or say how long to wait.
-- Replay: another lease; the first one ends by itself.   Clock: TIME.   Bound: the records of 50 queues.
-- KEYS  1 books  2 due  3 queues  4 gate  5 superseded
-- ARGV  1 clock  2 token  3 lease_ms  4 limit per second  5 this deployment's share of it
--       6 1: early, what waits only for its linger may go, too
-- Answers {"lease", queue, now in ms, failed tries, leases in a row that ended by themselves, events that may have
-- arrived with them, most events, trouble, 1: the key has succeeded, 1: other queues hold events, and the fields of
-- the gate's evidence}, {"wait", ms}, {"empty"}, {"stalled"}: a queue was put off, {"jumped"}: the clock went
-- back, and due times must be pulled back first, or {"damaged", why}: what is stored is no gate.
-- allow-oom: a full Redis must be able to drain.

local LOOKED_THROUGH = 50        -- contract.LOOKED_THROUGH
local STALLED_EXPIRIES = 10      -- contract.STALLED_EXPIRIES
local STALLED_WAIT_MS = 3600000  -- contract.STALLED_WAIT_S

local now_ms, token, lease_ms = moment(ARGV[1]), ARGV[2], tonumber(ARGV[3])

local first = redis.call("ZRANGE", KEYS[2], 0, 1, "WITHSCORES")
if #first == 0 then return { "empty" } end
local has_others = #first > 2
local books = redis.call("HMGET", KEYS[1], "latest_ms", "succeeded")
if now_ms < tonumber(books[1] or 0) then return { "jumped" } end
local queue, due_ms = first[1], tonumber(first[2])
local is_due = due_ms <= now_ms
if not is_due and ARGV[6] ~= "1" then return { "wait", due_ms - now_ms } end

local is_gate, gate = pcall(gate_load, redis.call("GET", KEYS[4]), tonumber(ARGV[4]), tonumber(ARGV[5]))
if not is_gate then return { "damaged", gate } end

-- Of the first queues the one that is wanted, nil where none of them may go.
local function chosen(wants_untroubled)
  local queues = is_due
    and redis.call("ZRANGEBYSCORE", KEYS[2], "-inf", whole(now_ms), "LIMIT", 0, LOOKED_THROUGH)
    or redis.call("ZRANGE", KEYS[2], 0, LOOKED_THROUGH - 1)
  local first_queue, first_record
  for at, text in ipairs(redis.call("HMGET", KEYS[3], unpack(queues))) do
    local record = read_record(text)
    if is_due or (record.token == "" and record.backs_off == 0) then
      if not wants_untroubled or (record.trouble == "" and record.attempts == 0) then
        return queues[at], record
      end
      if not first_queue then first_queue, first_record = queues[at], record end
    end
  end
  return first_queue, first_record
end

local record
local wants_untroubled = gate_wants_untroubled(gate)
if is_due and not wants_untroubled then
  record = read_record(redis.call("HGET", KEYS[3], queue))
else
  queue, record = chosen(wants_untroubled)
  if not queue then return { "wait", due_ms - now_ms } end
end

local has_ended = record.token ~= ""  -- its lease, by itself
if has_ended and record.expired + 1 >= STALLED_EXPIRIES then  -- halved so often it held one event
  end_lease(record, KEYS[5], now_ms)
  record.backs_off = 1
  redis.call("HSET", KEYS[3], queue, packed_record(record))
  redis.call("ZADD", KEYS[2], whole(now_ms + STALLED_WAIT_MS), queue)
  return { "stalled" }
end

-- All of the gate comes before the first write: what is stored may be none.
local is_sound, wait_ms, evidence, stored_gate = pcall(function()
  local wait_ms = gate_claim(gate, now_ms, lease_ms)
  if wait_ms > 0 then return wait_ms end
  return 0, gate_evidence(gate, queue), gate_dump(gate)
end)
if not is_sound then return { "damaged", wait_ms } end
if wait_ms > 0 then return { "wait", wait_ms } end

if has_ended then end_lease(record, KEYS[5], now_ms) end
record.token, record.backs_off = token, 0
redis.call("SET", KEYS[4], stored_gate)
redis.call("HSET", KEYS[3], queue, packed_record(record))
redis.call("ZADD", KEYS[2], whole(now_ms + lease_ms), queue)
redis.call("HSET", KEYS[1], "latest_ms", whole(now_ms))
return { "lease", queue, now_ms, record.attempts, record.expired, record.unsettled, record.max_events,
         record.trouble, books[2] == "1" and 1 or 0, has_others and 1 or 0, unpack(evidence) }

-- What the scripts share: it stands before the text of each. Times are Unix milliseconds.

local FULL_BATCH = 100      -- waiting events that make a queue due at once (contract.FULL_BATCH)
local QUEUE_OVERHEAD = 800  -- bytes counted for a queue that holds events (entries.QUEUE_OVERHEAD)
local HALVING_EXPIRIES = 3  -- leases in a row that end by themselves, from which on each halves the next batch
                            -- (contract.HALVING_EXPIRIES)

-- The time now: Redis's own, or the one that a test gives.
local function moment(clock)
  if clock ~= "0" then return tonumber(clock) end
  local time = redis.call("TIME")
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

-- A number as text, whole and exact up to 2^53: Lua's own would write 1.76e+12, and -0, which is none to Redis.
local function whole(number) return number == 0 and "0" or string.format("%.0f", number) end

-- A queue's record: events held; failed tries of its head; how many of its leases in a row ended by themselves;
-- most events of its next batch; how many events of the head may have arrived with such leases; whether its due
-- time is a wait that no append may shorten; the token of its lease, and what is remembered of its head: "", or
-- MessagePack of values.Trouble, which is the flusher's to understand.
local function read_record(text)
  local held, attempts, expired, max_events, unsettled, backs_off, token_bytes, at =
    struct.unpack(">I4I2I2BBBB", text)
  return { held = held, attempts = attempts, expired = expired, max_events = max_events, unsettled = unsettled,
           backs_off = backs_off, token = string.sub(text, at, at + token_bytes - 1),
           trouble = string.sub(text, at + token_bytes) }
end

local function packed_record(record)
  return struct.pack(">I4I2I2BBBB", record.held, math.min(record.attempts, 65535),
    math.min(record.expired, 65535), record.max_events, record.unsettled, record.backs_off, #record.token)
    .. record.token .. record.trouble
end

-- Of an entry of a queue's list: its lane; of a run, when it was accepted and the number of its first event.
local function lane_of(entry)
  if string.sub(entry, 1, 1) == "H" then return string.sub(entry, 2, 17) end
  return string.sub(entry, 18, 33)
end

local function stamp_of(entry) return struct.unpack(">I8I8", entry, 2) end

local function stamped(now_ms, first, run) return "R" .. struct.pack(">I8I8", now_ms, first) .. run end

-- The first run of a queue's list that holds one.
local function head_run(list)
  local entry = redis.call("LINDEX", list, 0)
  if string.sub(entry, 1, 1) == "H" then return redis.call("LINDEX", list, 1) end
  return entry
end

-- A queue while runs are put behind its others. `lane`: of its last run.
local function open_tail(queues, queue, list)
  local text = redis.call("HGET", queues, queue)
  if not text then
    return { queue = queue, list = list, bytes = QUEUE_OVERHEAD, before = 0,
             record = { held = 0, attempts = 0, expired = 0, max_events = FULL_BATCH, unsettled = 0,
                        backs_off = 0, token = "", trouble = "" } }
  end
  local record = read_record(text)
  return { queue = queue, list = list, bytes = 0, before = record.held, record = record,
           lane = lane_of(redis.call("LINDEX", list, -1)) }
end

local function push_run(tail, lane, header, header_bytes, run, events, bytes)
  if tail.lane ~= lane then
    redis.call("RPUSH", tail.list, "H" .. lane .. header, run)
    tail.lane = lane
    tail.bytes = tail.bytes + header_bytes
  else
    redis.call("RPUSH", tail.list, run)
  end
  tail.record.held = tail.record.held + events
  tail.bytes = tail.bytes + bytes
end

-- Writes the record and moves the due time where what was added may move it: a lease, a back-off or a pause
-- is never shortened. Returns the due time, nil where it stayed.
local function close_tail(tail, keys, first, now_ms, linger_ms)
  local record = tail.record
  redis.call("HSET", keys.queues, tail.queue, packed_record(record))
  local due_ms
  if tail.before == 0 then
    redis.call("ZADD", keys.heads, whole(first), tail.queue)
    due_ms = record.held >= FULL_BATCH and now_ms or now_ms + linger_ms
  elseif record.held >= FULL_BATCH and tail.before < FULL_BATCH and record.token == ""
      and record.backs_off == 0 then
    due_ms = now_ms
  end
  if due_ms then redis.call("ZADD", keys.due, whole(due_ms), tail.queue) end
  return due_ms
end

-- Note that a lease ended by itself. A settle with a token that is neither the queue's nor here was of a lease
-- that Redis has forgotten.
local function supersede(superseded, token, now_ms)
  redis.call("ZADD", superseded, whole(now_ms), token)
  redis.call("ZREMRANGEBYRANK", superseded, 0, -1001)
end

-- The lease of a record ended by itself: a try that failed, and its batch may have arrived.
local function end_lease(record, superseded, now_ms)
  supersede(superseded, record.token, now_ms)
  record.token, record.attempts, record.expired = "", record.attempts + 1, record.expired + 1
  record.unsettled = math.max(record.unsettled, record.max_events)
  if record.expired >= HALVING_EXPIRIES then
    record.max_events = math.max(1, math.floor(record.max_events / 2))
  end
end

-- What the bounds of other keys and other processes need to know of this one (facts.Fact).
local function facts(books, due)
  local found = redis.call("HMGET", books, "stored_bytes", "dead_bytes", "succeeded", "accepted", "born_ms",
    "turn")
  local numbers = { redis.call("ZCARD", due) }
  for at = 1, 6 do numbers[at + 1] = tonumber(found[at] or 0) end
  return numbers
end

-- Note that a key's books were written: of two facts of the same birth, the later turn is the newer one.
local function take_turn(books) redis.call("HINCRBY", books, "turn", 1) end


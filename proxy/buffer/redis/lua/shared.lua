-- What the scripts share: it stands before the text of each. Times are Unix milliseconds.

local FULL_BATCH = 100      -- waiting events that make a queue due at once (contract.FULL_BATCH)
local QUEUE_OVERHEAD = 800  -- bytes counted for a queue that holds events (entries.QUEUE_OVERHEAD)

-- The time now: Redis's own, or the one that a test gives.
local function moment(clock)
  if clock ~= "0" then return tonumber(clock) end
  local time = redis.call("TIME")
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

-- A number as text, whole and exact up to 2^53: Lua's own would write 1.76e+12, and -0, which is none to Redis.
local function whole(number) return number == 0 and "0" or string.format("%.0f", number) end

-- A queue's record: events held, failed tries of its head, most events of its next batch, whether its due
-- time is a wait that no append may shorten, whether a lease of it ended unsettled, the token of its lease.
local function read_record(text)
  local held, attempts, max_events, backs_off, unsettled, at = struct.unpack(">I4I2BBB", text)
  return { held = held, attempts = attempts, max_events = max_events, backs_off = backs_off,
           unsettled = unsettled, token = string.sub(text, at) }
end

local function write_record(queues, queue, record)
  redis.call("HSET", queues, queue, struct.pack(">I4I2BBB", record.held, math.min(record.attempts, 65535),
    record.max_events, record.backs_off, record.unsettled) .. record.token)
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
             record = { held = 0, attempts = 0, max_events = FULL_BATCH, backs_off = 0, unsettled = 0,
                        token = "" } }
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
  write_record(keys.queues, tail.queue, record)
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


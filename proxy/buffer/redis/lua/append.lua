#!lua
-- append: several clients' requests of one public key into their queues, each whole or not at all.
-- Replay: events that it stored are found seen, and nothing is stored twice.   Bound: as the client groups.
-- KEYS  1 books  2 due  3 queues  4 heads; then for the n-th queue 3+2n its list, 4+2n its seen
-- ARGV  1 clock  2 linger_ms  3 window_ms  4 max_bytes  5 max_bytes_per_key  6 bytes that other keys hold
--       7 queues that a key may hold before it succeeded, -1 any  8 1: so may this key, if it holds none yet
--       9 requests; for each: most bytes it comes to, portions; for each: number of its queue, queue, lane,
--       header, bytes counted for that, runs; for each: events, bytes counted, run without its stamp, dedup ids
-- Answers {facts, then for each request {"stored", events, due in ms or -1} or {"seen", {position …}} (these
-- events were seen, nothing was stored: ask again without them) or {"full"}, {"key_full"}, {"many_queues"},
-- {"many_keys"}}
-- No allow-oom: a full Redis refuses it before it begins.

local keys = { due = KEYS[2], queues = KEYS[3], heads = KEYS[4] }
local now_ms, linger_ms, window_ms = moment(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local max_bytes, max_key_bytes, others_bytes = tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6])
local max_queues, may_open = tonumber(ARGV[7]), ARGV[8] == "1"
local since_ms = now_ms - window_ms

local books = redis.call("HMGET", KEYS[1], "stored_bytes", "numbered", "succeeded", "latest_ms",
  "born_ms")
local stored_bytes, numbered = tonumber(books[1] or 0), tonumber(books[2] or 0)
local succeeded, latest_ms = books[3] == "1", tonumber(books[4] or 0)
local accepted, at = 0, 9

local function next_argument()
  at = at + 1
  return ARGV[at]
end

local function read_request()
  local request = { most_bytes = tonumber(next_argument()), portions = {} }
  for _ = 1, tonumber(next_argument()) do
    local number = tonumber(next_argument())
    local portion = { list = KEYS[3 + 2 * number], seen = KEYS[4 + 2 * number], queue = next_argument(),
                      lane = next_argument(), header = next_argument(),
                      header_bytes = tonumber(next_argument()), runs = {} }
    for _ = 1, tonumber(next_argument()) do
      local run = { events = tonumber(next_argument()), bytes = tonumber(next_argument()),
                    text = next_argument(), ids = {} }
      local ids = next_argument()
      for id = 1, run.events do run.ids[id] = string.sub(ids, 8 * id - 7, 8 * id) end
      table.insert(portion.runs, run)
    end
    table.insert(request.portions, portion)
  end
  return request
end

-- The bound that a request would pass, nil where none.
local function refused(request)
  if others_bytes + stored_bytes + request.most_bytes > max_bytes then return "full" end
  if stored_bytes + request.most_bytes > max_key_bytes then return "key_full" end
  if max_queues < 0 or succeeded then return nil end
  local waiting = redis.call("ZCARD", keys.due)
  if waiting == 0 and not may_open then return "many_keys" end
  local asked, new = {}, 0
  for _, portion in ipairs(request.portions) do
    if not asked[portion.queue] then
      asked[portion.queue] = true
      if not redis.call("ZSCORE", keys.due, portion.queue) then new = new + 1 end
    end
  end
  return new > 0 and waiting + new > max_queues and "many_queues" or nil
end

-- The positions in the request of events that were seen within the window.
local function find_seen(request)
  local found, position = {}, 0
  for _, portion in ipairs(request.portions) do
    for _, run in ipairs(portion.runs) do
      for _, score in ipairs(redis.call("ZMSCORE", portion.seen, unpack(run.ids))) do
        if score and tonumber(score) > since_ms then table.insert(found, position) end
        position = position + 1
      end
    end
  end
  return found
end

local function note_seen(portion)
  local seen, notes = portion.seen, {}
  local old = redis.call("ZCOUNT", seen, "-inf", whole(since_ms))
  if old > 0 then redis.call("ZREMRANGEBYRANK", seen, 0, math.min(old, 400) - 1) end  -- 400: some 0.2 ms
  local now = whole(now_ms)
  for _, run in ipairs(portion.runs) do
    for id = 1, run.events do
      notes[2 * id - 1], notes[2 * id] = now, run.ids[id]
    end
    redis.call("ZADD", seen, unpack(notes, 1, 2 * run.events))
  end
  -- Only to be rid of it: what is outside the window is decided by the scores.
  if redis.call("PTTL", seen) < window_ms then redis.call("PEXPIRE", seen, whole(2 * window_ms)) end
end

local function store(request)
  local stored, first_due_ms = 0, nil
  for _, portion in ipairs(request.portions) do
    local tail = open_tail(keys.queues, portion.queue, portion.list)
    local first = numbered
    for _, run in ipairs(portion.runs) do
      local text = stamped(now_ms, numbered, run.text)
      push_run(tail, portion.lane, portion.header, portion.header_bytes, text, run.events, run.bytes)
      numbered, stored = numbered + run.events, stored + run.events
    end
    note_seen(portion)
    local due_ms = close_tail(tail, keys, first, now_ms, linger_ms)
    if due_ms and (not first_due_ms or due_ms < first_due_ms) then first_due_ms = due_ms end
    stored_bytes = stored_bytes + tail.bytes
  end
  accepted = accepted + stored
  return { "stored", stored, first_due_ms and first_due_ms - now_ms or -1 }
end

local answers, is_admitted = {}, false
for _ = 1, tonumber(ARGV[9]) do
  local request = read_request()
  local word = refused(request)
  if word then
    table.insert(answers, { word })
  else
    is_admitted = true
    local seen = find_seen(request)
    if #seen > 0 then
      table.insert(answers, { "seen", seen })
    else
      table.insert(answers, store(request))
    end
  end
end

if is_admitted then  -- of a key that was never admitted nothing is left
  redis.call("HINCRBY", KEYS[1], "accepted", accepted)
  redis.call("HSET", KEYS[1], "stored_bytes", whole(stored_bytes), "numbered", whole(numbered),
    "latest_ms", whole(math.max(now_ms, latest_ms)), "born_ms", books[5] or whole(now_ms))
  take_turn(KEYS[1])
end
return { facts(KEYS[1], keys.due), unpack(answers) }

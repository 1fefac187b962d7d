#!lua
-- replay: put dead letters of one public key back at the tails of their queues: all that are named, or none.
-- They are past dedup, and held again as new events of their queues.
-- Replay: the letters are gone, and it answers {"changed"}.   Bound: as the client cuts.   Clock: TIME.
-- KEYS  1 books  2 due  3 queues  4 heads  5 dead  6 dead_ids  7 dead_order; then for the n-th queue 7+n its list
-- ARGV  1 clock  2 linger_ms  3 max_bytes  4 max_bytes_per_key  5 bytes that other keys hold
--       6 most bytes that they come to  7 bytes that were counted for the letters  8 letters; for each: its id;
--       then, in the order of acceptance, portions; for each: number of its queue, queue, lane, header, bytes
--       counted for that, runs; for each: events, bytes counted, run without its stamp
-- Answers {"replayed", due in ms or -1, facts}, or {"changed"}: some are not there any more, {"full"},
-- {"key_full"}.
-- No allow-oom: it stores, and a full Redis refuses it before it begins.

local keys = { due = KEYS[2], queues = KEYS[3], heads = KEYS[4] }
local now_ms, linger_ms, most_bytes = moment(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[6])
local letters, at = tonumber(ARGV[8]), 8

local function next_argument()
  at = at + 1
  return ARGV[at]
end

local ids = {}
for letter = 1, letters do ids[letter] = next_argument() end
for _, found in ipairs(redis.call("ZMSCORE", KEYS[6], unpack(ids))) do
  if not found then return { "changed" } end
end

local books = redis.call("HMGET", KEYS[1], "stored_bytes", "numbered", "latest_ms")
local stored_bytes, numbered = tonumber(books[1] or 0), tonumber(books[2] or 0)
if tonumber(ARGV[5]) + stored_bytes + most_bytes > tonumber(ARGV[3]) then return { "full" } end
if stored_bytes + most_bytes > tonumber(ARGV[4]) then return { "key_full" } end

local tails, firsts, queues = {}, {}, {}  -- by the number of the queue, and these numbers as they came
for _ = 1, tonumber(next_argument()) do
  local number, queue = tonumber(next_argument()), next_argument()
  local lane, header, header_bytes = next_argument(), next_argument(), tonumber(next_argument())
  if not tails[number] then
    tails[number], firsts[number] = open_tail(keys.queues, queue, KEYS[7 + number]), numbered
    table.insert(queues, number)
  end
  for _ = 1, tonumber(next_argument()) do
    local events, bytes = tonumber(next_argument()), tonumber(next_argument())
    local run = stamped(now_ms, numbered, next_argument())
    push_run(tails[number], lane, header, header_bytes, run, events, bytes)
    numbered = numbered + events
  end
end

local first_due_ms
for _, number in ipairs(queues) do
  local due_ms = close_tail(tails[number], keys, firsts[number], now_ms, linger_ms)
  if due_ms and (not first_due_ms or due_ms < first_due_ms) then first_due_ms = due_ms end
  stored_bytes = stored_bytes + tails[number].bytes
end

redis.call("HDEL", KEYS[5], unpack(ids))
redis.call("ZREM", KEYS[6], unpack(ids))
redis.call("ZREM", KEYS[7], unpack(ids))
redis.call("HINCRBY", KEYS[1], "dead", whole(-letters))
redis.call("HINCRBY", KEYS[1], "dead_bytes", whole(-tonumber(ARGV[7])))
redis.call("HSET", KEYS[1], "stored_bytes", whole(stored_bytes), "numbered", whole(numbered),
  "latest_ms", whole(math.max(now_ms, tonumber(books[3] or 0))))
take_turn(KEYS[1])
return { "replayed", first_due_ms and first_due_ms - now_ms or -1, facts(KEYS[1], keys.due) }

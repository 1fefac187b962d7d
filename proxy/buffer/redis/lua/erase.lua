#!lua flags=allow-oom
-- erase: take events out of a queue that nobody delivers, as the client worked it out from what it had read.
-- A lease that ended by itself is taken over, so its late worker settles nothing of what moved.
-- Replay: what it names is not there any more, and it answers {"changed"}.   Clock: TIME.
-- Bound: the entries that are named.
-- KEYS  1 books  2 due  3 queues  4 heads  5 list  6 superseded
-- ARGV  1 clock  2 queue  3 events that go  4 bytes that they were counted for
--       then for each entry, the last of the list first: its index, how it begins, what takes its place ("" nothing)
-- Answers {"erased", facts}, {"leased"}: a worker has the queue, or {"changed"}: an entry is not as it was read,
-- or a header that is to go has a run behind it, which would be taken for another lane's.
-- allow-oom: makes room.

local FIRST = 5        -- of the entries among ARGV
local TOMBSTONE = ""   -- no entry is empty

local now_ms, queue, list = moment(ARGV[1]), ARGV[2], KEYS[5]

local text = redis.call("HGET", KEYS[3], queue)
if not text then return { "changed" } end
local record = read_record(text)
local due_ms = tonumber(redis.call("ZSCORE", KEYS[2], queue) or 0)
if record.token ~= "" and due_ms > now_ms then return { "leased" } end
local trouble = record.trouble ~= "" and cmsgpack.unpack(record.trouble)
if trouble then  -- how many of the suspects are left, nobody knows
  trouble.suspects, trouble.refused_ms = 0, 0
  record.trouble = cmsgpack.pack(trouble)
end

local is_gone = {}
for at = FIRST, #ARGV, 3 do
  local index, beginning = tonumber(ARGV[at]), ARGV[at + 1]
  local entry = redis.call("LINDEX", list, index)
  if not entry or string.sub(entry, 1, #beginning) ~= beginning then return { "changed" } end
  if ARGV[at + 2] == TOMBSTONE then
    is_gone[index] = true
    if string.sub(entry, 1, 1) == "H" then
      local behind = index + 1
      while is_gone[behind] do behind = behind + 1 end
      local next_entry = redis.call("LINDEX", list, behind)
      if next_entry and string.sub(next_entry, 1, 1) == "R" then return { "changed" } end
    end
  end
end

for at = FIRST, #ARGV, 3 do redis.call("LSET", list, ARGV[at], ARGV[at + 2]) end
redis.call("LREM", list, 0, TOMBSTONE)

local freed_bytes = tonumber(ARGV[4])
record.held = math.max(0, record.held - tonumber(ARGV[3]))
if record.token ~= "" then end_lease(record, KEYS[6], now_ms) end
if redis.call("EXISTS", list) == 0 then
  redis.call("HDEL", KEYS[3], queue)
  redis.call("ZREM", KEYS[2], queue)
  redis.call("ZREM", KEYS[4], queue)
  freed_bytes = freed_bytes + QUEUE_OVERHEAD
else
  local _, first = stamp_of(head_run(list))
  redis.call("HSET", KEYS[3], queue, packed_record(record))
  redis.call("ZADD", KEYS[4], whole(first), queue)
end
redis.call("HINCRBY", KEYS[1], "dropped", ARGV[3])
redis.call("HINCRBY", KEYS[1], "stored_bytes", whole(-freed_bytes))
-- What was a lease's due time is a queue's now: if the clock goes back behind it, it must be pulled back.
local latest_ms = tonumber(redis.call("HGET", KEYS[1], "latest_ms") or 0)
if now_ms > latest_ms then redis.call("HSET", KEYS[1], "latest_ms", whole(now_ms)) end
take_turn(KEYS[1])
return { "erased", facts(KEYS[1], KEYS[2]) }

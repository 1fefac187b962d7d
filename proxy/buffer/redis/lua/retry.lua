#!lua flags=allow-oom
-- retry: make queues due that back off, and at the last end the gate's pauses but the operator's.
-- Replay: they are due already, and none of them is counted.   Bound: the queues that are named.   Clock: TIME.
-- KEYS  1 books  2 due  3 queues  4 gate
-- ARGV  1 clock  2 limit per second  3 this deployment's share of it  4 1: these are the last ones
--       then the queues
-- Answers {"retried", queues that had waited}, {"unknown"}: no such key, or {"damaged", why}: what is stored is
-- no gate.   allow-oom: makes nothing larger, but for a gate where there is none yet.

local QUEUES = 5  -- the first one among ARGV

if redis.call("EXISTS", KEYS[1]) == 0 then return { "unknown" } end
local now_ms = moment(ARGV[1])
local is_gate, gate = pcall(gate_load, redis.call("GET", KEYS[4]), tonumber(ARGV[2]), tonumber(ARGV[3]))
if not is_gate then return { "damaged", gate } end

local records, due = {}, {}  -- what HSET and ZADD take
if #ARGV >= QUEUES then
  local queues = { unpack(ARGV, QUEUES) }
  local due_ms = redis.call("ZMSCORE", KEYS[2], unpack(queues))
  for at, text in ipairs(redis.call("HMGET", KEYS[3], unpack(queues))) do
    if text and due_ms[at] and tonumber(due_ms[at]) > now_ms then
      local record = read_record(text)
      if record.backs_off == 1 then
        record.backs_off = 0
        table.insert(records, queues[at])
        table.insert(records, packed_record(record))
        table.insert(due, whole(now_ms))
        table.insert(due, queues[at])
      end
    end
  end
end
if #due > 0 then
  redis.call("HSET", KEYS[3], unpack(records))
  redis.call("ZADD", KEYS[2], unpack(due))
  -- If the clock goes back behind these, they must be pulled back.
  local latest_ms = tonumber(redis.call("HGET", KEYS[1], "latest_ms") or 0)
  if now_ms > latest_ms then redis.call("HSET", KEYS[1], "latest_ms", whole(now_ms)) end
end
if ARGV[4] == "1" then
  gate_retry(gate)
  redis.call("SET", KEYS[4], gate_dump(gate))
end
return { "retried", #due / 2 }

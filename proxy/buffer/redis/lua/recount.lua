#!lua flags=no-writes,allow-oom
-- recount: for each of some queues, what its record says that it holds, and what some entries of its list hold.
-- Bound: queues times entries, as the client slices.
-- KEYS  1 books  2 queues; then a list for each queue
-- ARGV  1 first entry  2 how many entries; then the queues
-- Answers for each queue {held by its record, entries in all, events in these entries, how the two before them
-- begin, how the last two of them do}, and last how many events were ever dropped: while that stays, and before
-- these stands what the ones before ended with, nothing has moved.

local first, last = tonumber(ARGV[1]), tonumber(ARGV[1]) + tonumber(ARGV[2]) - 1
-- How an entry and the one before it begin: a run as no other, and as nothing that a settle leaves of it.
local function beginnings(list, index)
  local texts = {}
  if index >= 0 then
    for _, entry in ipairs(redis.call("LRANGE", list, math.max(0, index - 1), index)) do
      table.insert(texts, string.sub(entry, 1, 44))
    end
  end
  return table.concat(texts)
end

local answers = {}
for at = 3, #KEYS do
  local text, events = redis.call("HGET", KEYS[2], ARGV[at]), 0
  for _, entry in ipairs(redis.call("LRANGE", KEYS[at], first, last)) do
    if string.sub(entry, 1, 1) == "R" then events = events + struct.unpack(">I2", entry, 34) end
  end
  local entries = redis.call("LLEN", KEYS[at])
  local before = beginnings(KEYS[at], math.min(first, entries) - 1)
  local ending = beginnings(KEYS[at], math.min(last, entries - 1))
  table.insert(answers, { text and read_record(text).held or 0, entries, events, before, ending })
end
table.insert(answers, tonumber(redis.call("HGET", KEYS[1], "dropped") or 0))
return answers

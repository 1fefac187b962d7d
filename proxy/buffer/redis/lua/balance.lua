#!lua flags=no-writes,allow-oom
-- balance: what a key's books say that it holds, and what the records of its queues and letters come to.
-- Bound: the records of as many queues as the client says; 20,000 take some 8 ms.
-- KEYS  1 books  2 due  3 queues  4 dead  5 dead_ids  6 dead_order
-- ARGV  1 most queues
-- Answers {held by the books, held by the records or -1 where these are too many, queues that are due some time,
-- held_difference and dead_difference as last noted, dead by the books, letters, ids, places in the order}.

local books = redis.call("HMGET", KEYS[1], "accepted", "delivered", "dead", "dropped", "held_difference",
  "dead_difference")
for at = 1, 6 do books[at] = tonumber(books[at] or 0) end
local queues, held = redis.call("HLEN", KEYS[3]), 0
if queues > tonumber(ARGV[1]) then
  held = -1
elseif queues > 0 then
  for _, text in ipairs(redis.call("HVALS", KEYS[3])) do held = held + read_record(text).held end
end
return { books[1] - books[2] - books[3] - books[4], held, redis.call("ZCARD", KEYS[2]), books[5], books[6],
         books[3], redis.call("HLEN", KEYS[4]), redis.call("ZCARD", KEYS[5]), redis.call("ZCARD", KEYS[6]) }

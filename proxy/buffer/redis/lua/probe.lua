#!lua
-- probe: refused exactly where an append would be: a full Redis, a disk that takes no writes, a replica.
-- Answers {"well"}.

return { "well" }

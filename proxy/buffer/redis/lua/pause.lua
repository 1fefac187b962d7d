#!lua flags=allow-oom
-- pause: the operator's pause of a public key, or its end.     Replay: writes the same.
-- KEYS  1 books  2 gate
-- ARGV  1 limit per second  2 this deployment's share of it  3 1: pause, 0: go on
-- Answers {"done"}, {"unknown"}: no such key, or {"damaged", why}: what is stored is no gate.
-- allow-oom: a full Redis must be able to drain, and to be kept from it; one key of some hundred bytes.

if redis.call("EXISTS", KEYS[1]) == 0 then return { "unknown" } end
local is_gate, gate = pcall(gate_load, redis.call("GET", KEYS[2]), tonumber(ARGV[1]), tonumber(ARGV[2]))
if not is_gate then return { "damaged", gate } end
if ARGV[3] == "1" then gate_pause(gate) else gate_resume(gate) end
redis.call("SET", KEYS[2], gate_dump(gate))
return { "done" }

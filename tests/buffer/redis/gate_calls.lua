-- Calls of the gate, one after the other, with the gate stored in between as the scripts store it.
-- ARGV  1 a stored gate, "" none  2 the calls, MessagePack: of each its verb, the limit per second, this
--       deployment's share of it, and what else it takes; a queue by its number among these:   the queues
-- Answers of each call what it returned, MessagePack, and the gate after it, as it is stored.

local QUEUES = 2  -- so many of ARGV stand before the queues

local verbs = {
  claim = function(gate, now_ms, lease_ms) return gate_claim(gate, now_ms, lease_ms) end,
  settle = function(gate, now_ms, feedback, queue, claimed_ms)
    return gate_settle(gate, feedback, ARGV[QUEUES + queue], claimed_ms, now_ms)
  end,
  evidence = function(gate, queue) return gate_evidence(gate, ARGV[QUEUES + queue]) end,
  wants_untroubled = gate_wants_untroubled,
  pause = gate_pause,
  resume = gate_resume,
  retry = gate_retry,
}

local stored, answers = ARGV[1] ~= "" and ARGV[1], {}
for _, call in ipairs(cmsgpack.unpack(ARGV[2])) do
  local gate = gate_load(stored, call[2], call[3])
  local answer = verbs[call[1]](gate, unpack(call, 4))
  stored = gate_dump(gate)
  table.insert(answers, cmsgpack.pack(answer))
  table.insert(answers, stored)
end
return answers

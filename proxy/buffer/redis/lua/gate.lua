-- The gate of one public key: proxy/gate/__init__.py, function by function. budget.lua and standing.lua stand
-- before it. A gate is stored as MessagePack, by Python and by cmsgpack alike: it holds numbers, texts, booleans,
-- lists and structures of these, and no nil.

-- A stored gate, under what the operator's settings say now; a new one where nothing is stored. Raises an error
-- where something else is, and so may all functions that take a gate: fields are not looked at one by one (that
-- took 7 of 16 us), so one that is missing is noticed where it is used. Hence write when all of them returned.
local function gate_load(text, limit_per_s, share)
  if not text then return { budget = budget_opened(limit_per_s, share), standing = standing_opened() } end
  local is_message, gate = pcall(cmsgpack.unpack, text)
  if not is_message or type(gate) ~= "table" or type(gate.budget) ~= "table"
      or type(gate.standing) ~= "table" then
    error("this is no gate", 0)
  end
  budget_tune(gate.budget, limit_per_s, share)
  return gate
end

local function gate_dump(gate) return cmsgpack.pack(gate) end

local function gate_claim(gate, now_ms, lease_ms)
  local wait_ms = standing_wait(gate.standing, now_ms)
  if wait_ms > 0 then return wait_ms end
  wait_ms = budget_claim(gate.budget, now_ms)
  if wait_ms > 0 then return wait_ms end
  standing_granted(gate.standing, now_ms, lease_ms)
  return 0
end

local function gate_wants_untroubled(gate) return standing_wants_untroubled(gate.standing) end

local function gate_settle(gate, feedback, queue, claimed_ms, now_ms)
  budget_settle(gate.budget, feedback, now_ms)
  standing_settle(gate.standing, feedback, queue, claimed_ms, now_ms)
end

local function gate_evidence(gate, queue) return standing_evidence(gate.standing, queue) end

local function gate_pause(gate) gate.standing.by_operator = true end

local function gate_resume(gate) gate.standing.by_operator = false end

local function gate_retry(gate) standing_retry(gate.standing) end


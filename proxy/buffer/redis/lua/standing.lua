-- Whether a key may send at all: proxy/gate/standing.py, function by function, with the names of its fields. What
-- its constants mean stands there. Times are Unix milliseconds.

local RATE_LIMITED_PAUSE_MS = 250
local DATE_MS = 1000
local FIRST_PAUSE_MS = { key_refused = 15000, upstream_failing = 15000, refusal_storm = 5000 }
local LONGEST_PAUSE_MS = { key_refused = 300000, upstream_failing = 300000, refusal_storm = 60000 }
local GIVEN_UP_PAUSE_MS = 1000
local MAX_PAUSE_MS = 300000
local PROBE_LOOK_MS = 1000
local OPERATOR_WAIT_MS = 60000
local FAILING_WINDOW_MS = 30000
local FAILING_REQUESTS = 20
local FAILING_PERCENT = 70
local REMEMBERED = 20
local STORM_QUEUES = 5
local SHOWN_ORIGINS = 20

local function standing_opened()
  return {
    requests = 0,
    successes = 0,
    proven_ms = 0,
    recent = {},
    limited_until_ms = 0,
    reason = "",
    pause_until_ms = 0,
    pause_ms = 0,
    probed_ms = 0,
    probe_until_ms = 0,
    refused_since_ms = 0,
    window_ms = 0,
    window_requests = 0,
    window_failed = 0,
    forbidden_origins = {},
    by_operator = false,
  }
end

-- -- what is remembered -------------------------------------------------------------------------------

local function standing_number(queue) return (struct.unpack(">I4", queue)) end

local function standing_remember(standing, outcome, queue, claimed_ms, now_ms)
  standing.requests = standing.requests + 1
  if outcome == "taken" then
    standing.successes = standing.successes + 1
    if standing.proven_ms < claimed_ms and claimed_ms <= now_ms then standing.proven_ms = claimed_ms end
  end
  if outcome == "taken" or outcome == "refused" then
    table.insert(standing.recent, 2 * standing_number(queue) + (outcome == "taken" and 1 or 0))
    if #standing.recent > REMEMBERED then table.remove(standing.recent, 1) end
  end
end

local function standing_note_origin(standing, outcome, origin)
  local origins = standing.forbidden_origins
  if outcome == "taken" or outcome == "forbidden" then
    for at, shown in ipairs(origins) do
      if shown == origin then table.remove(origins, at) break end
    end
  end
  if outcome == "forbidden" then
    table.insert(origins, 1, origin)
    if #origins > SHOWN_ORIGINS then table.remove(origins) end
  end
end

local function standing_forget_the_future(standing, now_ms)
  if standing.proven_ms > now_ms then standing.proven_ms = 0 end
  standing.refused_since_ms = math.min(standing.refused_since_ms, now_ms)
  if standing.limited_until_ms - now_ms > MAX_PAUSE_MS then standing.limited_until_ms = 0 end
  if standing.pause_until_ms - now_ms > MAX_PAUSE_MS then standing.pause_until_ms = 0 end
end

-- -- pauses -------------------------------------------------------------------------------------------

local function standing_left_ms(until_ms, now_ms)
  local left_ms = until_ms - now_ms
  return left_ms > 0 and left_ms <= MAX_PAUSE_MS and left_ms or 0
end

local function standing_limited_ms(headers)
  if headers and headers.retry_after_s and headers.retry_after_s ~= 0 then
    return math.min(math.ceil(headers.retry_after_s * 1000), MAX_PAUSE_MS)
  end
  if headers and headers.reset_in_s and headers.reset_in_s ~= 0 then
    local reset_ms = math.ceil(headers.reset_in_s * 1000) - DATE_MS
    return math.max(RATE_LIMITED_PAUSE_MS, math.min(reset_ms, MAX_PAUSE_MS))
  end
  return RATE_LIMITED_PAUSE_MS
end

local function standing_fails(standing)
  return standing.window_requests >= FAILING_REQUESTS
    and 100 * standing.window_failed >= FAILING_PERCENT * standing.window_requests
end

local function standing_storms(standing)
  local of, queues = {}, 0
  for _, answer in ipairs(standing.recent) do
    if answer % 2 == 1 then return false end
    if not of[answer] then of[answer], queues = true, queues + 1 end
  end
  return #standing.recent >= REMEMBERED and queues >= STORM_QUEUES
end

local function standing_pause(standing, reason, now_ms)
  if standing.reason == reason and standing.pause_ms > 0 then
    standing.pause_ms = math.min(2 * standing.pause_ms, LONGEST_PAUSE_MS[reason])
  else
    standing.pause_ms = FIRST_PAUSE_MS[reason]
  end
  standing.reason = reason
  standing.pause_until_ms = now_ms + standing.pause_ms
  standing.window_ms, standing.window_requests, standing.window_failed = 0, 0, 0
end

local function standing_pause_of_key(standing, feedback, now_ms)
  standing_pause(standing, "key_refused", now_ms)
  if feedback.given_up then standing.pause_until_ms = now_ms + GIVEN_UP_PAUSE_MS end
  if standing.refused_since_ms == 0 then standing.refused_since_ms = now_ms end
end

local function standing_watch(standing, feedback, now_ms)
  local passed_ms = now_ms - standing.window_ms
  if passed_ms < 0 or passed_ms >= FAILING_WINDOW_MS then
    standing.window_ms = now_ms
    standing.window_requests, standing.window_failed = 0, 0
  end
  standing.window_requests = standing.window_requests + 1
  if feedback.outcome == "failed" then
    standing.window_failed = standing.window_failed + 1
    if standing_fails(standing) then standing_pause(standing, "upstream_failing", now_ms) end
  elseif feedback.outcome == "refused" then
    if standing_storms(standing) then standing_pause(standing, "refusal_storm", now_ms) end
  elseif feedback.outcome == "key_refused" then
    standing_pause_of_key(standing, feedback, now_ms)
  end
end

local function standing_probed(standing, feedback, now_ms)
  local storm = standing.reason == "refusal_storm"
  local outcome = feedback.outcome
  if outcome == "key_refused" then
    standing_pause_of_key(standing, feedback, now_ms)
  elseif outcome == "failed" or (storm and outcome == "refused") then
    standing_pause(standing, standing.reason, now_ms)
  elseif outcome == "taken" or not storm then
    standing.reason = ""
    standing.pause_until_ms, standing.refused_since_ms = 0, 0
    standing_watch(standing, feedback, now_ms)
  end
end

-- -- what the gate asks -------------------------------------------------------------------------------

local function standing_wait(standing, now_ms)
  if standing.by_operator then return OPERATOR_WAIT_MS end
  local left_ms = math.max(standing_left_ms(standing.limited_until_ms, now_ms),
    standing_left_ms(standing.pause_until_ms, now_ms))
  if standing.reason ~= "" and standing.probed_ms <= now_ms then
    left_ms = math.max(left_ms, math.min(standing.probe_until_ms - now_ms, PROBE_LOOK_MS))
  end
  return left_ms
end

local function standing_granted(standing, now_ms, lease_ms)
  if standing.reason ~= "" then
    standing.probed_ms = now_ms
    standing.probe_until_ms = now_ms + lease_ms
  end
  standing_forget_the_future(standing, now_ms)
end

local function standing_wants_untroubled(standing) return standing.reason == "refusal_storm" end

local function standing_settle(standing, feedback, queue, claimed_ms, now_ms)
  local is_probe = standing.probe_until_ms > 0 and claimed_ms == standing.probed_ms
  if is_probe then standing.probe_until_ms = 0 end
  standing_forget_the_future(standing, now_ms)
  local outcome = feedback.outcome
  if outcome == "none" then return end
  if outcome == "rate_limited" then
    local pause_ms = math.max(standing_left_ms(standing.limited_until_ms, now_ms),
      standing_limited_ms(feedback.headers))
    standing.limited_until_ms = now_ms + pause_ms
    return
  end
  standing_remember(standing, outcome, queue, claimed_ms, now_ms)
  standing_note_origin(standing, outcome, feedback.origin or "")
  if standing.reason ~= "" then
    if is_probe then standing_probed(standing, feedback, now_ms) end
  elseif not (claimed_ms < standing.probed_ms and standing.probed_ms <= now_ms) then
    standing_watch(standing, feedback, now_ms)
  end
end

local function standing_evidence(standing, queue)
  local own, taken, refused_elsewhere = 2 * standing_number(queue), 0, 0
  for at = #standing.recent, 1, -1 do
    if standing.recent[at] % 2 == 1 then
      taken = taken + 1
    elseif taken == 0 and standing.recent[at] ~= own then
      refused_elsewhere = 1
    end
  end
  return { standing.requests, standing.successes, standing.proven_ms, #standing.recent, taken,
           refused_elsewhere, standing.refused_since_ms }
end

local function standing_retry(standing)
  standing.limited_until_ms, standing.pause_until_ms, standing.probe_until_ms = 0, 0, 0
  standing.pause_ms = 0
end


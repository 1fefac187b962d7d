-- How fast a key may send: gate/budget.py and gate/window.py, line by line, where all is explained. Names of
-- functions that are window.py's begin with window_. A test runs both on the same sequences.

local BUDGET = {
  SHARE_OF_LIMIT = 0.9, UNTOLD_SHARE = 0.92, CATCH_UP_MS = 25, MOST_AHEAD_MS = 1000, SECOND_MS = 1000,
  HOLD_MS = 1000, LATE_SECOND_MS = 1500, UNTOLD_MS = 2000, BUSY_SHARE = 0.9, LEAST_SHARE = 0.01,
  SWINGS = 1.5, MOST_MARGIN_SHARE = 0.25, FIRST_SWING = 2, MOST_SWING = 10, SWING_WEIGHT = 0.1, RAISE = 0.2,
  MOST_SURPLUS = 10, USUAL_WEIGHT = 0.005, NUDGE = 0.015, MOST_NUDGE = 0.5, CUT = 0.9,
  CUT_FORGOTTEN_MS = 30000, FLOOR_SHARE = 0.1, SMALL_PER_S = 3, SMALL_SHARE = 0.5,
  LIMITED_PER_S = 1,
}
local WINDOW = {
  WINDOW_MS = 1000, SURE = 3, SUREST = 6, SURER = 0.1, MISTAKEN_WINDOWS = 600, LIMITED_WINDOWS = 60,
  ENOUGH = 0.2, FRESH_MS = 250, MOST_STRANGERS = 0.4, MOST_STRANGERS_SLACK = 5, STRANGERS_WEIGHT = 0.2,
  STRANGERS_NOISE = 2, STRANGERS_AHEAD_MS = 300, LEAST_SEEN_MS = 300, MEAN_WAY_MS = 30, MARGIN = 2,
  LEAST_LIMIT = 10, GAP_MS = 120, MOST_GAP_MS = 400, GAP_FADES_MS = 0.01, GAP_SPARE_MS = 5, SPREAD_MS = 100,
  LOOK_AGAIN_MS = 10, EARLY_MS = 50, LATE_MS = 4000, JUMP_WINDOWS = 60, FIRST_STEP_MS = 40, STEP_MS = 10,
  DRIFT_MS = 0.0005, UNSEEN = 1e9, NONE = -1,
}

-- The windows of upstream.

local function window_is_on(window) return window.sureness >= WINDOW.SURE end

local function window_forget(window, for_windows)
  window.sureness, window.number = -for_windows, WINDOW.NONE
end

local function window_place(window, at_ms)
  local upstream_ms = at_ms + window.offset_ms
  local number = math.floor(upstream_ms / WINDOW.WINDOW_MS)
  return number, upstream_ms - number * WINDOW.WINDOW_MS
end

local function window_open(window, number, left, claims)
  window.number, window.left, window.claims = number, left, claims
  window.own, window.answers, window.astray = 0, 0, 0
end

local function window_see(window, left, sent_ms)
  if left < window.left then
    local _, phase_ms = window_place(window, sent_ms)
    window.left = left
    window.left_phase_ms = math.min(phase_ms + WINDOW.MEAN_WAY_MS, WINDOW.WINDOW_MS)
  end
end

local function window_count_strangers(window, limit)
  local missing = math.max(0, limit - window.left - window.own - WINDOW.STRANGERS_NOISE)
  local in_whole = missing * WINDOW.WINDOW_MS / math.max(window.left_phase_ms, WINDOW.LEAST_SEEN_MS)
  window.strangers = window.strangers + WINDOW.STRANGERS_WEIGHT * (in_whole - window.strangers)
end

local function window_weigh(window, limit, left)
  window_count_strangers(window, limit)
  if left - window.left <= window.own / 2 then
    window.sureness = math.min(window.sureness, 0)
    return
  end
  if window.sureness + 1 < WINDOW.SURE then
    window.sureness = window.sureness + 1
  elseif window.strangers <= WINDOW.MOST_STRANGERS * limit then
    window.sureness = WINDOW.SUREST
    window.offset_ms = window.offset_ms - WINDOW.FIRST_STEP_MS
  end
end

local function window_learn(window, limit, left, reset_at, sent_ms, now_ms, counted)
  local number, ahead_ms = reset_at - 1, reset_at * 1000 - sent_ms
  local has_jumped = window.number ~= WINDOW.NONE and math.abs(number - window.number) > WINDOW.JUMP_WINDOWS
  if has_jumped then window.number = WINDOW.NONE end
  local late_ms = ahead_ms - window.offset_ms
  if window.number == WINDOW.NONE or late_ms < 0 or late_ms > WINDOW.LATE_MS then
    window.offset_ms = ahead_ms
  end
  if number > window.number then
    local since_ms = now_ms - window.left_ms
    local follows = number == window.number + 1 and since_ms >= 0 and since_ms < WINDOW.FRESH_MS
    if follows and window.own >= WINDOW.ENOUGH * limit then window_weigh(window, limit, left) end
    window_open(window, number, WINDOW.UNSEEN, WINDOW.ENOUGH * limit)
  end
  if number == window.number then
    window.own = window.own + counted
    if left < window.left then window.left_ms = now_ms end
    window_see(window, left, sent_ms)
  end
  return has_jumped
end

local function window_turn(window, limit, now_ms)
  local number = window_place(window, now_ms)
  if number == window.number or number == window.number - 1 then return false end
  if number < window.number or number > window.number + WINDOW.JUMP_WINDOWS then
    window_forget(window, 0)
    return true
  end
  if number == window.number + 1 and window.own >= WINDOW.ENOUGH * limit then
    window_count_strangers(window, limit)
  end
  if window.answers >= WINDOW.ENOUGH * limit and window.astray > window.answers / 2 then
    window_forget(window, WINDOW.MISTAKEN_WINDOWS)
    return true
  end
  window_open(window, number, limit, 0)
  window.sureness = math.min(window.sureness + WINDOW.SURER, WINDOW.SUREST)
  if window.strangers > WINDOW.MOST_STRANGERS * limit + WINDOW.MOST_STRANGERS_SLACK then
    window.sureness = 0
  end
  return true
end

local function window_wait(window, now_ms)
  local _, phase_ms = window_place(window, now_ms)
  local rest_ms = WINDOW.WINDOW_MS - phase_ms
  if rest_ms <= window.gap_ms then return rest_ms end
  local in_flight = math.max(0, window.claims - window.answers)
  local of_strangers = window.strangers * (rest_ms + WINDOW.STRANGERS_AHEAD_MS) / WINDOW.WINDOW_MS
  if window.left - in_flight - of_strangers < WINDOW.MARGIN then
    return math.min(WINDOW.LOOK_AGAIN_MS, rest_ms)
  end
  return 0
end

local function window_follow(window, left, reset_at, sent_ms, counted)
  local late_ms = reset_at * 1000 - sent_ms - window.offset_ms
  if late_ms < -WINDOW.EARLY_MS or late_ms > WINDOW.LATE_MS then
    window_forget(window, 0)
    return
  end
  window.offset_ms = window.offset_ms + (late_ms < 0 and late_ms - WINDOW.STEP_MS or WINDOW.DRIFT_MS)
  local sent_in, phase_ms = window_place(window, sent_ms)
  if sent_in == window.number then
    window.answers = window.answers + 1
    if reset_at - 1 ~= window.number then window.astray = window.astray + 1 end
  end
  if reset_at - 1 == window.number then
    window.own = window.own + counted
    window_see(window, left, sent_ms)
  end
  if reset_at - 1 == sent_in + 1 and phase_ms > WINDOW.WINDOW_MS / 2 then
    local missed_ms = WINDOW.WINDOW_MS - phase_ms + WINDOW.GAP_SPARE_MS
    window.gap_ms = math.min(math.max(window.gap_ms, missed_ms), WINDOW.MOST_GAP_MS)
  end
  window.gap_ms = math.max(window.gap_ms - WINDOW.GAP_FADES_MS, WINDOW.GAP_MS)
end

local function window_follow_blindly(window, sent_ms, counted)
  if window_place(window, sent_ms) == window.number then
    window.own = window.own + counted
    window.answers = window.answers + 1
    window.left = window.left - 1
  end
end

-- The budget.

local function budget_opened(most_per_s, share)
  return {
    most_per_s = most_per_s, share = share, limit_per_s = most_per_s,
    rate_per_s = BUDGET.SHARE_OF_LIMIT * most_per_s * share,
    tat_ms = 0, held_until_ms = 0, cut_ms = 0, second_ms = 0, answers = 0, least = WINDOW.UNSEEN,
    least_before = WINDOW.NONE, swing = BUDGET.FIRST_SWING, usual = most_per_s,
    window = {
      sureness = 0, offset_ms = 0, number = WINDOW.NONE, left = WINDOW.UNSEEN, left_ms = 0, left_phase_ms = 0,
      own = 0, claims = 0, answers = 0, astray = 0, strangers = 0, gap_ms = WINDOW.GAP_MS,
    },
  }
end

local function budget_bound(budget)
  return math.min(budget.limit_per_s, budget.most_per_s) * budget.share
end

local function budget_floor(budget, now_ms)
  local bound, since_ms = budget_bound(budget), now_ms - budget.cut_ms
  local small = BUDGET.SMALL_SHARE * math.min(bound, BUDGET.SMALL_PER_S)
  local floor = math.max(BUDGET.FLOOR_SHARE * bound, small)
  if since_ms < 0 or since_ms >= BUDGET.CUT_FORGOTTEN_MS then return floor end
  return math.min(floor, BUDGET.LIMITED_PER_S)
end

local function budget_may_spend_windows(budget)
  return budget.share == 1 and WINDOW.LEAST_LIMIT <= budget.limit_per_s
    and budget.limit_per_s <= budget.most_per_s
end

local function budget_forget_seconds(budget)
  budget.least, budget.answers, budget.least_before = WINDOW.UNSEEN, 0, WINDOW.NONE
  budget.usual = budget.limit_per_s
end

local function budget_back_to_pace(budget)
  local free = BUDGET.SHARE_OF_LIMIT * (budget_bound(budget) - budget.window.strangers)
  budget.rate_per_s = math.min(budget_bound(budget), math.max(BUDGET.LIMITED_PER_S, free))
  budget_forget_seconds(budget)
end

local function budget_rescale(budget, before)
  budget.rate_per_s = budget.rate_per_s * (budget_bound(budget) / before)
  budget_forget_seconds(budget)
  if window_is_on(budget.window) and not budget_may_spend_windows(budget) then
    window_forget(budget.window, 0)
  end
end

local function budget_tune(budget, most_per_s, share)
  if most_per_s == budget.most_per_s and share == budget.share then return end
  local was_on, before = window_is_on(budget.window), budget_bound(budget)
  if budget.limit_per_s == budget.most_per_s then budget.limit_per_s = most_per_s end
  budget.most_per_s, budget.share = most_per_s, share
  budget_rescale(budget, before)
  if was_on and not window_is_on(budget.window) then budget_back_to_pace(budget) end
end

local function budget_claim(budget, now_ms)
  local window = budget.window
  local held_ms, period_ms = budget.held_until_ms - now_ms, 1000 / budget.rate_per_s
  if held_ms > 0 and held_ms <= BUDGET.HOLD_MS then return held_ms end
  if budget.tat_ms > now_ms + math.max(period_ms, BUDGET.MOST_AHEAD_MS) then budget.tat_ms = now_ms end
  if window_is_on(window) and window_turn(window, budget.limit_per_s, now_ms) then
    if not window_is_on(window) then
      budget_back_to_pace(budget)
      budget.held_until_ms = now_ms + BUDGET.HOLD_MS
      return 0
    end
    budget.tat_ms = window.number * WINDOW.WINDOW_MS - window.offset_ms
  end
  local spends = window_is_on(window)
  local wait_ms = spends and window_wait(window, now_ms) or 0
  if wait_ms > 0 then return math.ceil(wait_ms) end
  if now_ms < budget.tat_ms then return math.ceil(budget.tat_ms - now_ms) end
  if spends then
    window.claims = window.claims + 1
    period_ms = (WINDOW.WINDOW_MS - window.gap_ms - WINDOW.SPREAD_MS) / budget.limit_per_s
  end
  budget.tat_ms = math.max(budget.tat_ms, now_ms - BUDGET.CATCH_UP_MS) + period_ms
  return 0
end

local function budget_cut(budget, now_ms)
  local since_ms = now_ms - budget.cut_ms
  if since_ms >= 0 and since_ms < BUDGET.SECOND_MS then return end
  budget.rate_per_s, budget.cut_ms = budget.rate_per_s * BUDGET.CUT, now_ms
  budget_forget_seconds(budget)
  if window_is_on(budget.window) then
    budget.window.sureness = budget.window.sureness - 1
    if not window_is_on(budget.window) then window_forget(budget.window, WINDOW.LIMITED_WINDOWS) end
  end
end

local function budget_untold(budget, sent_ms, counted, now_ms)
  budget.answers = budget.answers + 1
  if window_is_on(budget.window) then window_follow_blindly(budget.window, sent_ms, counted) end
  local since_ms = now_ms - budget.second_ms
  if since_ms < 0 or since_ms >= BUDGET.UNTOLD_MS then
    window_forget(budget.window, 0)
    budget.rate_per_s = math.min(BUDGET.UNTOLD_SHARE * budget_bound(budget), budget.rate_per_s + 1)
    budget.second_ms = now_ms
    budget_forget_seconds(budget)
  end
end

local function budget_nudge(budget, left)
  budget.usual = budget.usual + BUDGET.USUAL_WEIGHT * (left - budget.usual)
  if budget.least_before ~= WINDOW.NONE then
    local period_ms, most = 1000 / budget.rate_per_s, BUDGET.MOST_NUDGE
    local periods = math.max(-most, math.min(BUDGET.NUDGE * (budget.usual - left), most))
    budget.tat_ms = budget.tat_ms + periods * period_ms
  end
end

local function budget_steer(budget, left, now_ms)
  budget.least = math.min(budget.least, left)
  budget.answers = budget.answers + 1
  local took_ms = now_ms - budget.second_ms
  if took_ms >= 0 and took_ms < BUDGET.SECOND_MS then return end
  local is_busy = took_ms >= 0 and took_ms < BUDGET.LATE_SECOND_MS
    and budget.answers >= BUDGET.BUSY_SHARE * budget.rate_per_s
  if is_busy and budget.least_before ~= WINDOW.NONE then
    local swing = math.min(math.abs(budget.least - budget.least_before), BUDGET.MOST_SWING)
    budget.swing = budget.swing + BUDGET.SWING_WEIGHT * (swing - budget.swing)
  end
  local bound = budget_bound(budget)
  local margin = BUDGET.LEAST_SHARE * bound + BUDGET.SWINGS * budget.swing
  local surplus = budget.least - math.min(margin, BUDGET.MOST_MARGIN_SHARE * bound)
  if surplus < 0 then
    budget.rate_per_s = budget.rate_per_s + surplus
  elseif is_busy then
    budget.rate_per_s = budget.rate_per_s + BUDGET.RAISE * math.min(surplus, BUDGET.MOST_SURPLUS)
  end
  budget.rate_per_s = math.max(budget_floor(budget, now_ms), math.min(budget.rate_per_s, bound))
  budget.least_before = is_busy and budget.least or WINDOW.NONE
  budget.least, budget.answers, budget.second_ms = WINDOW.UNSEEN, 0, now_ms
end

local function budget_told(budget, limit, left, reset_at, sent_ms, counted, now_ms)
  if limit ~= budget.limit_per_s then
    local before = budget_bound(budget)
    budget.limit_per_s = limit
    budget_rescale(budget, before)
  end
  if window_is_on(budget.window) then
    budget.second_ms = now_ms
    if reset_at then
      window_follow(budget.window, left, reset_at, sent_ms, counted)
    else
      window_follow_blindly(budget.window, sent_ms, counted)
    end
    return
  end
  if reset_at and budget_may_spend_windows(budget)
      and window_learn(budget.window, limit, left, reset_at, sent_ms, now_ms, counted) then
    budget_back_to_pace(budget)
  end
  budget_nudge(budget, left)
  budget_steer(budget, left, now_ms)
end

local function budget_settle(budget, feedback, now_ms)
  if feedback.outcome == "none" then return end
  local was_on, counted = window_is_on(budget.window), 1
  if feedback.outcome == "rate_limited" then
    counted = 0
    budget_cut(budget, now_ms)
  end
  local headers = feedback.headers
  if headers and headers.limit and headers.remaining then
    local sent_ms, reset_at = feedback.sent_ms, headers.reset_at
    budget_told(budget, headers.limit, headers.remaining, reset_at, sent_ms, counted, now_ms)
  else
    budget_untold(budget, feedback.sent_ms, counted, now_ms)
  end
  if was_on and not window_is_on(budget.window) then
    budget_back_to_pace(budget)
    budget.held_until_ms = now_ms + BUDGET.HOLD_MS
  end
end

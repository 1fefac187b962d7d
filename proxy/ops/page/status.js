// The status page. Whatever comes from the proxy is put in as text, never as markup. The operator's token is in
// this tab's session storage and in the Authorization header of requests to this origin, and nowhere else.

const POLL_MS = 1000
const PATIENCE_MS = 4000
const HISTORY = 180 // polls that the small curves show
const LEAST_HISTORY = 30 // … spread over their width, but no fewer than these
const LETTERS = 20
const LETTERS_EVERY_MS = 10000
const SILENCE_MS = 8000 // how long what was done stands at the top

const TOKEN = "outlit-proxy ops.token"
const REASONS = ["refused", "envelope_refused", "forbidden", "key_refused", "poison", "expired"]
const PAUSES = {
  operator: "Paused by an operator",
  rate_limited: "Rate-limited (429)",
  key_refused: "Outlit refuses the key",
  upstream_failing: "Its requests fail",
  refusal_storm: "Outlit refuses all events",
}

const at = (id) => document.getElementById(id)
let token = sessionStorage.getItem(TOKEN)
let status = null // the last answer
let lostSince = null
let said = 0

// -- text ----------------------------------------------------------------------------------------------------

const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 })
const one = new Intl.NumberFormat("en", { maximumFractionDigits: 1, minimumFractionDigits: 1 })
const count = (n) => (n == null ? "–" : whole.format(n))
const counted = (n, word) => `${count(n)} ${word}${n === 1 ? "" : "s"}`
const rate = (n) => (n >= 100 || Number.isInteger(n) ? whole.format(n) : one.format(n))
const clock = (date) => date.toLocaleTimeString("en-GB")
const moment = (text) => new Date(text).toLocaleString("en-GB", { dateStyle: "medium", timeStyle: "long" }) // with its zone

function lasting(seconds) {
  if (seconds == null) return "–"
  for (const [unit, size] of [["d", 86400], ["h", 3600], ["min", 60]])
    if (seconds >= 2 * size) return `${Math.round(seconds / size)} ${unit}`
  return seconds < 10 && !Number.isInteger(seconds) ? `${one.format(seconds)} s` : `${Math.round(seconds)} s`
}

function sized(bytes) {
  if (bytes == null) return "–"
  for (const [unit, size] of [["GB", 1e9], ["MB", 1e6], ["KB", 1e3]])
    if (bytes >= size) return `${one.format(bytes / size)} ${unit}`
  return `${bytes} bytes`
}

/** Seconds from a moment of the proxy's to its answer: its clock, not this one's. */
const since = (moment) => (moment == null ? null : Math.max(0, (Date.parse(status.at) - Date.parse(moment)) / 1000))

/** Seconds from its answer to a moment that comes. */
const until = (moment) => Math.max(0, (Date.parse(moment) - Date.parse(status.at)) / 1000)

/** A heading of the README, from its anchor. */
function heading(section) {
  const words = section.replace(/^#/, "").replaceAll("-", " ").replace(/\b(outlit|redis)\b/g, (name) => name[0].toUpperCase() + name.slice(1))
  return words[0].toUpperCase() + words.slice(1)
}

// -- elements ------------------------------------------------------------------------------------------------

/** An element; `given` are properties, `children` nodes or texts. */
function make(tag, given = {}, ...children) {
  const element = Object.assign(document.createElement(tag), given)
  element.append(...children)
  return element
}

/** Put a text in, where it is another one: what is selected or focused stays so. */
function put(element, text) {
  if (element.textContent !== text) element.textContent = text
  return element
}

/** The same of a sentence in which commands stand between backticks. */
function putSentence(element, text) {
  if (element.dataset.text === text) return
  element.dataset.text = text
  element.replaceChildren(...text.split("`").map((part, i) => (i % 2 ? make("code", {}, part) : part)))
}

function show(element, is) {
  element.hidden = !is
  return element
}

/** Items by their names. What has the same one (short keys may be equal) is numbered. */
function named(items, name) {
  const seen = new Map()
  return new Map(items.map((item) => {
    const base = name(item)
    const n = (seen.get(base) ?? 0) + 1
    seen.set(base, n)
    return [n > 1 ? `${base}#${n}` : base, item]
  }))
}

/** Make the children of `parent` one for each of `items`, in their order, and keep those that are there. */
function each(parent, items, name, create, fill) {
  const there = new Map([...parent.children].map((child) => [child.dataset.name, child]))
  Array.from(named(items, name)).forEach(([called, item], position) => {
    let child = there.get(called)
    if (child === undefined) {
      child = create(item)
      child.dataset.name = called
    }
    there.delete(called)
    fill(child, item)
    if (parent.children[position] !== child) parent.insertBefore(child, parent.children[position] ?? null)
  })
  for (const child of there.values()) child.remove()
}

function drawn(tag, attributes) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag)
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value)
  return element
}

function row(cells) {
  const tr = make("tr")
  tr.setAttribute("role", "row")
  for (const [className, label] of cells) {
    const td = make("td", { className })
    td.setAttribute("role", "cell")
    if (label) td.dataset.label = label
    tr.append(td)
  }
  return tr
}

// -- asking --------------------------------------------------------------------------------------------------

/** Ask the proxy. Throws an Error with what it says where it refuses. */
async function ask(path, method = "GET") {
  const response = await fetch(path, {
    method,
    headers: token === null ? {} : { Authorization: `Bearer ${token}` },
    cache: "no-store",
    credentials: "omit",
    redirect: "error",
    signal: method === "GET" ? AbortSignal.timeout(PATIENCE_MS) : null,
  })
  let answer
  try {
    answer = await response.json()
  } catch {
    throw new Error(`the answer (${response.status}) is not the proxy’s`)
  }
  if (!response.ok) throw new Error(answer.error ?? `answered ${response.status}`)
  return answer
}

async function poll() {
  const asker = token
  try {
    const answer = await ask("status")
    if (token !== asker) { // it says nothing about this one
      setTimeout(poll)
      return
    }
    status = answer
    lostSince = null
    show(at("lost"), false)
    document.body.classList.remove("is-stale")
    render()
  } catch (error) {
    lostSince ??= new Date()
    const stale = status === null ? "" : " What stands below is of then."
    put(at("lost"), `Connection to the proxy lost since ${clock(lostSince)}.${stale}`)
    show(at("lost"), true)
    document.body.classList.add("is-stale")
    document.title = "Connection lost – Outlit proxy"
    console.debug(error)
  }
  if (lostSince === null) await refreshLetters().catch(() => {}) // what keeps it from answering is told above
  setTimeout(poll, POLL_MS)
}

/** Do something, and say at the top what came of it. */
async function act(what) {
  let told
  try {
    told = await what()
  } catch (error) {
    told = `That failed: ${error.message}`
  }
  if (told === undefined) return
  put(at("said"), told)
  clearTimeout(said)
  said = setTimeout(() => put(at("said"), ""), SILENCE_MS)
  lettersAt = 0 // they may be others now
}

/** Let the operator confirm. */
function confirmed(title, text, yes) {
  const dialog = at("asked")
  put(at("asked-title"), title)
  put(at("asked-text"), text)
  put(at("asked-yes"), yes)
  dialog.returnValue = "no"
  dialog.showModal()
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => resolve(dialog.returnValue === "yes"), { once: true })
  })
}

// -- the snapshot --------------------------------------------------------------------------------------------

function render() {
  at("main").removeAttribute("aria-busy")
  const up = lasting(since(status.started_at))
  put(at("about"), `${status.version} · ${status.buffer.engine} (${status.buffer.durability}) → ${status.upstream.url} · up ${up} · ${clock(new Date(status.at))}`)
  const waiting = status.config.needs_restart
  put(at("restart"), waiting.length > 0 ? `Changed, and in use after a restart: ${waiting.join(", ")}` : "")
  renderAccess()
  renderTroubles()
  renderLedger()
  renderFigures()
  renderGateway()
  renderKeys()
  renderDead()
}

function renderAccess() {
  const wrong = token !== null && !status.as_operator
  if (wrong) forget()
  show(at("access"), status.administration && token === null)
  show(at("administering"), status.as_operator)
  show(at("administration-off"), !status.administration)
  if (wrong) {
    put(at("said"), "That is not the proxy’s ops.token.")
    at("token").focus()
  }
}

const announcedTroubles = new Map()

function renderTroubles() {
  const troubles = status.troubles
  const well = at("well")
  show(well, troubles.length === 0)
  well.className = "well"
  put(well, "All is well: what is accepted is delivered, or on its way.")
  const name = (trouble) => `${trouble.name} ${trouble.key ?? ""} ${trouble.name === "buffer_unsafe" ? trouble.what : ""}`
  each(
    at("troubles"), troubles, name,
    (trouble) => make(
      "li", { className: trouble.severity },
      make("p", { className: "head" }, make("span", { className: "kind" }), make("span", { className: "code" })),
      make("p", { className: "what" }), make("p", { className: "to-do" }), make("p", { className: "section" }),
    ),
    (item, trouble) => {
      const [head, what, toDo, section] = item.children
      item.className = trouble.severity
      put(head.children[0], `${trouble.severity === "error" ? "Error" : "Warning"}: ${trouble.name.replaceAll("_", " ")}`)
      put(head.children[1], trouble.key ?? "")
      put(what, trouble.what)
      putSentence(toDo, trouble.what_to_do)
      put(section, `README: ${heading(trouble.section)}`)
    },
  )
  const now = named(troubles, name)
  const news = [
    ...[...now].filter(([called]) => !announcedTroubles.has(called)).map(([, trouble]) => `${trouble.key ?? ""} ${trouble.what} ${trouble.what_to_do}`),
    ...[...announcedTroubles].filter(([called]) => !now.has(called)).map(([, trouble]) => `Over: ${trouble.name.replaceAll("_", " ")} ${trouble.key ?? ""}`),
  ]
  if (news.length > 0) put(at("announced"), news.join(" "))
  announcedTroubles.clear()
  for (const [called, trouble] of now) announcedTroubles.set(called, trouble)
  document.title = troubles.length === 0 ? "All is well – Outlit proxy" : `(${troubles.length}) ${troubles[0].name.replaceAll("_", " ")} – Outlit proxy`
}

function renderLedger() {
  const books = status.ledger
  if (books === null) {
    put(at("ledger"), "The buffer does not answer: what it holds is not known now.")
    put(at("balance"), "")
    return
  }
  const { accepted, held, delivered, dead, dropped } = books
  const sentence = at("ledger")
  if (sentence.childElementCount === 0) {
    sentence.replaceChildren()
    for (const [sign, word] of [["", "accepted"], ["=", "held"], ["+", "delivered"], ["+", "dead"], ["+", "dropped"]]) {
      const term = make("span", { className: "term" }, make("b", { id: `ledger-${word}` }), ` ${word}`)
      if (sign) term.prepend(make("span", { className: "sign" }, sign), " ")
      sentence.append(term, " ")
    }
  }
  for (const [word, n] of Object.entries({ accepted, held, delivered, dead, dropped })) put(at(`ledger-${word}`), count(n))
  const balances = accepted === held + delivered + dead + dropped
  const recounted = books.difference === 0 ? "the last recount of the data agrees" : `the last recount of the data differs by ${count(books.difference)}`
  put(at("balance"), `${balances ? "The books balance" : "The books do not balance"}; ${recounted}.`)
  at("balance").className = balances && books.difference === 0 ? "muted" : "error"
}

const histories = {}

const curves = [
  ["accepted", "Accepted", () => [rate(status.rates.accepted_per_s), "events/s"], () => status.rates.accepted_per_s],
  ["delivered", "Delivered", () => [rate(status.rates.delivered_per_s), "events/s"], () => status.rates.delivered_per_s],
  ["rejected", "Refused at the door", () => [rate(status.rates.rejected_per_s), "events/s"], () => status.rates.rejected_per_s],
  ["requests", "Requests to Outlit", () => [rate(status.rates.requests_per_s), "/s"], () => status.rates.requests_per_s,
    () => `${rate(status.rates.events_per_request)} events each, ${count(status.upstream.in_flight)} in flight`],
  ["failed", "Failed requests", () => [rate(status.rates.failed_per_s), "/s"], () => status.rates.failed_per_s],
]

const parts = [
  ["budget", "Budget used", () => status.rates.budget_used,
    () => `of ${rate(status.upstream.limit_per_s * status.upstream.rate_share)} requests/s, by the busiest key`],
  ["full", "Buffer used", () => (status.buffer.stored_bytes === null ? null : status.buffer.stored_bytes / status.buffer.max_bytes),
    () => `${sized(status.buffer.stored_bytes)} of ${sized(status.buffer.max_bytes)} in ${counted(status.buffer.queues, "queue")}`],
]

const lengths = [
  ["oldest", "Oldest held", () => (status.oldest_held_at === null ? "–" : lasting(since(status.oldest_held_at))),
    () => (status.oldest_held_at === null ? (status.ledger === null ? "" : "nothing waits") : `accepted ${clock(new Date(status.oldest_held_at))}`)],
  ["drain", "Time to drain", () => (status.ledger?.held ? lasting(status.time_to_drain_s) : "–"),
    () => (status.ledger?.held ? "at the key’s rate, after its pause" : "")],
]

/** The tile with this name: made once. */
function tile(name, label, picture) {
  let dd = at(`figure-${name}`)
  if (dd === null) {
    dd = make("dd", { id: `figure-${name}` }, make("span", { className: "value" }), " ", make("span", { className: "unit" }), ...(picture ? [picture] : []), make("span", { className: "note" }))
    at("figures").append(make("div", {}, make("dt", {}, label), dd))
  }
  return dd
}

function plane(width, height) {
  return drawn("svg", { viewBox: `0 0 ${width} ${height}`, preserveAspectRatio: "none", "aria-hidden": "true" })
}

function renderFigures() {
  for (const [name, label, value, number, note] of curves) {
    const past = (histories[name] ??= [])
    past.push(number())
    if (past.length > HISTORY) past.shift()
    const dd = tile(name, label, plane(100, 26))
    const [n, unit] = value()
    put(dd.children[0], n)
    put(dd.children[1], unit)
    put(dd.lastElementChild, note?.() ?? "")
    curve(dd.querySelector("svg"), past)
  }
  for (const [name, label, part, note] of parts) {
    const dd = tile(name, label, plane(100, 12))
    const share = part()
    put(dd.children[0], share === null ? "–" : `${share > 0 && share < 0.01 ? "<1" : Math.round(100 * share)}`)
    put(dd.children[1], share === null ? "" : "%")
    put(dd.lastElementChild, note())
    bar(dd.querySelector("svg"), name, share ?? 0)
  }
  for (const [name, label, value, note] of lengths) {
    const dd = tile(name, label)
    put(dd.children[0], value())
    put(dd.lastElementChild, note())
  }
}

function curve(svg, past) {
  if (svg.childElementCount === 0)
    svg.append(drawn("line", { class: "floor", x1: 0, x2: 100, y1: 25, y2: 25 }), drawn("polyline", {}))
  const most = Math.max(...past, 1)
  const steps = Math.max(past.length, LEAST_HISTORY) - 1
  const x = (i) => 100 - (100 * (past.length - 1 - i)) / steps
  const points = past.map((n, i) => `${x(i).toFixed(2)},${(24 - (22 * n) / most).toFixed(1)}`)
  svg.querySelector("polyline").setAttribute("points", points.join(" "))
}

function bar(svg, name, share) {
  if (svg.childElementCount === 0)
    svg.append(drawn("rect", { class: "whole", x: 0, y: 4, width: 100, height: 5 }), drawn("rect", { x: 0, y: 4, height: 5 }))
  const part = svg.lastElementChild
  part.setAttribute("width", Math.min(100, 100 * share))
  part.setAttribute("class", name === "full" && share > 0.8 ? "part high" : "part")
}

// -- the gateway ---------------------------------------------------------------------------------------------

function renderGateway() {
  const gateway = status.gateway
  const on = Boolean(gateway?.on) // a proxy that is older has none
  show(at("gateway"), on)
  if (!on) return
  const { refused, tools } = gateway
  const allowed = tools === "all" ? "all tools" : counted(tools.length, "tool")
  const key = gateway.api_key ? "with gateway.api_key" : "without gateway.api_key: callers bring their own"
  put(at("gateway-summary"), `${counted(gateway.in_flight, "call")} in flight; ${allowed} allowed, ${key}.`)
  const refusedFor = since(gateway.key_refused_at)
  put(at("gateway-key"), refusedFor === null ? "" : `Outlit refuses gateway.api_key, for ${lasting(refusedFor)}.`)
  each(
    at("gateway-refused"), refused, (one) => `${one.key} ${one.feature} ${one.code}`,
    () => make("li", {}, make("b"), make("span")),
    (item, one) => {
      const key = one.key === "gateway.api_key" ? one.key : `${one.key} key`
      const plan = one.plan === null ? "" : ` of the plan ${one.plan}`
      const answered = `${counted(one.answered, "call")} answered here since`
      put(item.children[0], one.feature ?? one.code)
      put(item.children[1], `${plan} is used up for ${key}: back in ${lasting(until(one.until))}, ${moment(one.until)}; ${answered} (${one.status} ${one.code})`)
    },
  )
  show(at("gateway-retry"), status.as_operator && refused.length > 0)
}

// -- keys ----------------------------------------------------------------------------------------------------

const KEY_CELLS = [
  ["key code wide", ""], ["state wide", ""], ["number", "Held"], ["number", "Queues"], ["number", "Oldest"],
  ["number", "To drain"], ["number", "Rate/s"], ["number", "Delivered"], ["number", "Dead"], ["actions wide", ""],
]

function renderKeys() {
  const { keys } = status
  show(at("no-keys"), keys.length === 0 && status.ledger !== null)
  show(at("keys"), keys.length > 0)
  each(at("keys").tBodies[0], keys, (key) => `${key.key} ${status.as_operator}`, createKey, fillKey)
  for (const cell of at("keys").querySelectorAll(".actions")) show(cell, status.as_operator)
  show(at("keys-left-out"), status.keys_left_out > 0)
  put(at("keys-left-out"), `${counted(status.keys_left_out, "more key")}: outlit-proxy keys list has them all.`)
}

function createKey(key) {
  const tr = row(KEY_CELLS)
  tr.cells[1].append(make("span", { className: "word" }), make("span", { className: "advice" }))
  if (status.as_operator) {
    const of = (lever) => `keys/${encodeURIComponent(key.key)}/${lever}`
    const lever = make("button", { type: "button" })
    lever.addEventListener("click", () => act(async () => {
      if (lever.dataset.lever === "resume") {
        await ask(of("resume"), "POST")
        return `${key.key} is resumed.`
      }
      const text = "Nothing of it is sent until it is resumed, also after a restart. Posts are still accepted."
      if (!(await confirmed(`Pause ${key.key}?`, text, "Pause"))) return undefined
      await ask(of("pause"), "POST")
      return `${key.key} is paused.`
    }))
    const retry = make("button", { type: "button", title: "End every wait of this key now" }, "Retry")
    retry.addEventListener("click", () => act(async () => {
      const { waited } = await ask(of("retry"), "POST")
      return `${key.key} is tried again: ${counted(waited, "queue")} had waited.`
    }))
    tr.cells[9].append(lever, retry)
  }
  return tr
}

function fillKey(tr, key) {
  const namesakes = status.keys.filter((each) => each.key === key.key)
  // Of several keys that are shortened alike nobody knows which one it is about; its card stands above.
  const trouble = namesakes.length > 1 ? undefined : status.troubles.find((each) => each.key === key.key)
  const [word, className] = stateOf(key, trouble?.name)
  put(tr.cells[0], key.key)
  put(tr.cells[1].children[0], word).className = className
  putSentence(tr.cells[1].children[1], trouble?.what_to_do ?? "")
  put(tr.cells[2], count(key.books.held))
  put(tr.cells[3], count(key.queues))
  put(tr.cells[4], lasting(since(key.oldest_held_at)))
  put(tr.cells[5], key.books.held > 0 ? lasting(key.time_to_drain_s) : "–")
  put(tr.cells[6], `${rate(key.rate_per_s)} of ${rate(key.limit_per_s)}`)
  put(tr.cells[7], count(key.books.delivered))
  put(tr.cells[8], count(key.books.dead))
  if (!status.as_operator) return
  const [lever, retry] = tr.cells[9].children
  lever.dataset.lever = key.by_operator ? "resume" : "pause"
  put(lever, key.by_operator ? "Resume" : "Pause")
  lever.setAttribute("aria-label", `${lever.textContent} ${key.key}`)
  retry.setAttribute("aria-label", `Retry ${key.key}`)
}

/** How a key fares, in words, and their colour. `trouble`: the name of the first that is about it. */
function stateOf(key, trouble) {
  if (key.by_operator) return [PAUSES.operator, "word warning"]
  if (key.paused !== null) {
    const next = key.paused_for_s > 0 ? `next try in ${lasting(key.paused_for_s)}` : "one request at a time"
    return [`${PAUSES[key.paused] ?? key.paused}; ${next}`, key.paused === "rate_limited" ? "word warning" : "word error"]
  }
  if (key.books.held > 0 && status.troubles.some((each) => each.name === "upstream_not_answering"))
    return ["Waits: Outlit does not answer", "word error"]
  if (key.forbidden_origins?.length) return [`Sends, but not for ${key.forbidden_origins.join(", ")} (403)`, "word warning"]
  if (trouble === "flood") return ["Sends, but more comes in than goes out", "word warning"]
  if (trouble === "backlog") return ["Sends, and works off a backlog", "word warning"]
  return key.confirmed ? ["Sends", "word ok"] : ["Not confirmed by Outlit yet", "word muted"]
}

// -- dead letters --------------------------------------------------------------------------------------------

const LETTER_CELLS = [
  ["died", ""], ["code", ""], ["wide", ""], ["message wide", ""], ["number", "Tries"], ["actions", ""],
]
let lettersAt = 0
let lettersOf = null // what they were when they were last asked for
let letters = null

function renderDead() {
  const { dead } = status
  const here = Object.entries(dead.by_reason).filter(([, n]) => n > 0).map(([reason, n]) => `${reason} ${count(n)}`)
  const born = here.length > 0 && !status.as_operator ? ` Since this process began: ${here.join(", ")}.` : ""
  const words = dead.count === 0 ? "There are none." : `${counted(dead.count, "event")} that Outlit would not take ${dead.count === 1 ? "is" : "are"} kept.`
  const locked = !status.as_operator && dead.count > 0 && status.administration ? " Give the token above to see and replay them." : ""
  put(at("dead-summary"), dead.count === null ? "Not known while the buffer does not answer." : words + born + locked)
  show(at("dead-admin"), status.as_operator && dead.count > 0)
  for (const tr of at("dead").tBodies[0].rows) age(tr)
}

/** Which dead letters are meant: the filter as a query. */
function filtered() {
  const query = new URLSearchParams()
  if (at("dead-reason").value) query.set("reason", at("dead-reason").value)
  if (at("dead-key").value) query.set("key", at("dead-key").value)
  return query
}

async function refreshLetters() {
  if (!status.as_operator) return
  if (!status.dead.count) {
    at("dead").tBodies[0].replaceChildren()
    lettersOf = null
    return
  }
  const query = filtered()
  const of = `${query} ${status.dead.count}`
  const asker = token
  if (of === lettersOf && Date.now() - lettersAt < LETTERS_EVERY_MS) return
  const [page, ...counts] = await Promise.all([
    ask(`dead?${new URLSearchParams({ ...Object.fromEntries(query), limit: LETTERS })}`),
    ...REASONS.map((reason) => ask(`dead?${new URLSearchParams({ reason, limit: 1 })}`)),
  ])
  if (token !== asker) return // it was forgotten meanwhile, and they are not to be seen any more
  lettersOf = of
  lettersAt = Date.now()
  letters = page
  renderLetters(new Map(REASONS.map((reason, i) => [reason, counts[i].count])))
}

function renderLetters(counts) {
  const there = [...counts].filter(([, n]) => n > 0)
  each(at("dead-reasons"), there, ([reason]) => reason, () => make("li"), (item, [reason, n]) => item.replaceChildren(make("b", {}, count(n)), ` ${reason}`))
  choices(at("dead-reason"), there.map(([reason]) => reason))
  choices(at("dead-key"), status.keys.filter((key) => key.books.dead > 0).map((key) => key.key))
  const { dead } = letters
  show(at("dead"), dead.length > 0)
  at("replay-these").disabled = letters.count === 0
  put(at("replay-these"), `Replay ${letters.count === 1 ? "this one" : `all ${count(letters.count)} of these`}…`)
  each(at("dead").tBodies[0], dead, (letter) => String(letter.id), createLetter, fillLetter)
  const more = letters.count - dead.length
  show(at("dead-more"), more > 0)
  put(at("dead-more"), `${count(more)} older ones: outlit-proxy dead list has them all.`)
}

/** Offer these, besides any; what is chosen stays. */
function choices(select, values) {
  const chosen = select.value
  const wanted = chosen && !values.includes(chosen) ? [...values, chosen] : values
  if ([...select.options].slice(1).map((option) => option.value).join() === wanted.join()) return
  select.replaceChildren(make("option", { value: "" }, "any"), ...wanted.map((value) => make("option", { value }, value)))
  select.value = chosen
}

function createLetter(letter) {
  const tr = row(LETTER_CELLS)
  const text = make("span")
  const content = make("pre", { hidden: true })
  tr.cells[3].append(text, content)
  const look = make("button", { type: "button" }, "Show")
  look.setAttribute("aria-label", `Show dead letter ${letter.id}`)
  look.setAttribute("aria-expanded", "false")
  look.addEventListener("click", () => act(async () => {
    if (content.hidden) put(content, JSON.stringify(await ask(`dead/${letter.id}`), null, 2))
    show(content, content.hidden)
    put(look, content.hidden ? "Show" : "Hide")
    look.setAttribute("aria-expanded", String(!content.hidden))
  }))
  const replay = make("button", { type: "button" }, "Replay")
  replay.setAttribute("aria-label", `Replay dead letter ${letter.id}`)
  replay.addEventListener("click", () => act(() => replayed(new URLSearchParams({ id: letter.id }))))
  tr.cells[5].append(look, replay)
  return tr
}

function fillLetter(tr, letter) {
  tr.cells[0].title = letter.died_at
  age(tr)
  put(tr.cells[1], letter.key)
  put(tr.cells[2], letter.reason)
  put(tr.cells[3].children[0], letter.message || "(none)")
  put(tr.cells[4], count(letter.attempts))
}

/** Dead letters are asked for now and then; how old they are is told each time. */
function age(tr) {
  put(tr.cells[0], `${lasting(Math.round(since(tr.cells[0].title)))} ago`)
}

/** Count those that are meant, let the operator confirm, and put them back. */
async function replayed(query) {
  if (query.size === 0) query.set("all", "true")
  const dry = new URLSearchParams(query)
  dry.set("dry_run", "true")
  const { count: found, up_to_id } = await ask(`dead/replay?${dry}`, "POST")
  if (found === 0) return "None is left of these."
  const which = ["reason", "key"].filter((name) => query.has(name)).map((name) => `${name} ${query.get(name)}`).join(", ")
  const text = "They go to the ends of their queues, in the order in which they were accepted, and out within the budget. What Outlit refuses again comes back here."
  const title = `Replay ${counted(found, "dead letter")}${which ? ` (${which})` : ""}?`
  if (!(await confirmed(title, text, "Replay"))) return undefined
  if (up_to_id) query.set("up_to_id", up_to_id)
  const { replayed: done } = await ask(`dead/replay?${query}`, "POST")
  return `${counted(done, "dead letter")} replayed.`
}

// -- the operator --------------------------------------------------------------------------------------------

function forget() {
  token = null
  sessionStorage.removeItem(TOKEN)
  letters = lettersOf = null
  for (const part of [at("dead").tBodies[0], at("dead-reasons")]) part.replaceChildren()
  for (const select of [at("dead-reason"), at("dead-key")]) {
    select.value = ""
    choices(select, [])
  }
}

at("access").addEventListener("submit", (event) => {
  event.preventDefault()
  token = at("token").value.trim()
  at("token").value = ""
  // A header holds no other characters; no token of the proxy's has any.
  if (!/^[\x21-\x7e]+$/.test(token)) {
    forget()
    put(at("said"), "That is not the proxy’s ops.token.")
    return
  }
  sessionStorage.setItem(TOKEN, token)
  put(at("said"), "")
})
at("forget").addEventListener("click", forget)
at("gateway-retry").addEventListener("click", () => act(async () => {
  const { forgotten } = await ask("gateway/retry", "POST")
  return `${counted(forgotten, "used-up plan")} forgotten: the next calls ask Outlit.`
}))
at("dead-filter").addEventListener("submit", (event) => {
  event.preventDefault()
  act(() => replayed(filtered()))
})
for (const select of [at("dead-reason"), at("dead-key")]) select.addEventListener("change", () => { lettersAt = 0 })

show(at("well"), true).className = "well waiting"
put(at("well"), "Asking the proxy…")
poll()

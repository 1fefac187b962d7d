"""The status page as an operator sees it: in a real browser, of a running proxy in front of the sandbox.

What goes wrong is made to go wrong for good; the page has five seconds to say so, and what to do. One proxy
serves all the tests of this file: each has keys of its own.
"""

import asyncio
import functools
import json
import re
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import aiohttp
import pytest
from playwright.sync_api import Browser, Locator, Page, Route, expect, sync_playwright

from tests.programs import OPS_TOKEN, Proxy, Sandbox, http, running_proxy, running_sandbox, wait_for

WITHIN_MS = 5_000
LIMIT_PER_S = 20
EVIL = "<img src=x onerror=\"document.title='hacked'\"><script>hacked = 1</script>"
API_KEY = "ok_the-operators-alone-0123456789abcdef"
SETTINGS = {
    "OUTLIT_PROXY_DELIVERY_LINGER": "50ms",
    "OUTLIT_PROXY_DELIVERY_LIMIT_PER_S": str(LIMIT_PER_S),
    "OUTLIT_PROXY_BUFFER_DURABILITY": "normal",
    "OUTLIT_PROXY_GATEWAY_API_KEY": API_KEY,
}


@pytest.fixture(scope="module")
def sandbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    with running_sandbox(tmp_path_factory.mktemp("sandbox")) as sandbox:
        yield sandbox


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory, sandbox: Sandbox) -> Iterator[Proxy]:
    with running_proxy(tmp_path_factory.mktemp("proxy"), sandbox, **SETTINGS) as proxy:
        yield proxy
        assert OPS_TOKEN not in proxy.program.log
        assert API_KEY not in proxy.program.log


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path="/usr/bin/chromium",
            args=["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"],
        )
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Browser, proxy: Proxy, sandbox: Sandbox) -> Iterator[Page]:
    """The page, opened by somebody without the token. Whatever it asked for came from the proxy alone."""
    context = browser.new_context(viewport={"width": 1400, "height": 900})
    asked: list[str] = []
    wrong: list[str] = []
    context.on("request", lambda request: asked.append(request.url))
    page = context.new_page()
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("dialog", lambda dialog: wrong.append(dialog.message))
    page.on("console", lambda message: wrong.append(message.text) if "Security" in message.text else None)
    page.goto(proxy.ops_url)
    yield page
    assert not wrong
    assert asked
    assert all(url.startswith((f"{proxy.ops_url}/", "data:image/svg")) for url in asked)
    assert not any(OPS_TOKEN in url for url in asked)
    assert page.evaluate("localStorage.length") == 0
    context.close()
    sandbox.clear_faults()
    sandbox.clear_platform()
    operate(proxy, "gateway/retry")


def administers(page: Page) -> None:
    """Enter the token, by the keyboard alone."""
    field = page.get_by_label("ops.token")
    if not field.evaluate("field => field === document.activeElement"):
        page.keyboard.press("Tab")
    expect(field).to_be_focused()
    page.keyboard.type(OPS_TOKEN)
    page.keyboard.press("Enter")
    expect(page.locator("#administering")).to_be_visible()


def post(proxy: Proxy, key: str, name: str = "hello", visitor: str = "") -> None:
    status, body = http(f"{proxy.url}/api/i/v1/{key}/events", a_visit(name, visitor))
    assert status == 200, body


def a_visit(name: str = "hello", visitor: str = "") -> dict[str, Any]:
    event = {"type": "custom", "url": "https://site.example/", "path": "/", "eventName": name}
    return {
        "source": "client",
        "visitorId": visitor or str(uuid.uuid4()),
        "events": [{**event, "timestamp": int(time.time() * 1000)}],
    }


def delivered(proxy: Proxy, key: str) -> None:
    """One event of the key, delivered: Outlit has confirmed it."""
    before = proxy.ledger()["delivered"]
    post(proxy, key)
    proxy.wait_until_delivered(before + 1)


def call_a_tool(proxy: Proxy, credential: str = OPS_TOKEN) -> int:
    """As whoever has ops.token, if no key is given; the status."""
    status, _ = http(
        f"{proxy.ops_url}/platform/api/tools/call",
        {"tool": "outlit_list_customers", "input": {}},
        headers={"Authorization": f"Bearer {credential}"},
    )
    return status


def operate(proxy: Proxy, path: str) -> None:
    status, body = http(
        f"{proxy.ops_url}/{path}", headers={"Authorization": f"Bearer {OPS_TOKEN}"}, method="POST"
    )
    assert status == 200, body


def trouble(page: Page, name: str, key: str = "") -> Locator:
    """The card of a trouble."""
    cards = page.locator("#troubles > li").filter(
        has=page.locator(".kind", has_text=re.compile(rf": {name}$"))
    )
    return cards.filter(has_text=key) if key else cards


def row(page: Page, key: str) -> Locator:
    return page.locator("#keys tbody tr").filter(has_text=key)


@contextmanager
def held(page: Page, url: str) -> Iterator[Callable[[int], None]]:
    """None of these requests is answered before the end of the block. Gives what waits for so many."""
    kept: list[Route] = []

    def keep(route: Route) -> None:
        kept.append(route)

    def are_under_way(requests: int) -> None:
        while len(kept) < requests:
            page.wait_for_timeout(10)

    page.route(url, keep)
    yield are_under_way
    page.unroute(url)  # which lets go those that are kept


@contextmanager
def flood(proxy: Proxy, key: str) -> Iterator[None]:
    """As many posts as this machine sends, each of another visitor, until the end of the block."""
    over = threading.Event()

    async def posting(session: aiohttp.ClientSession) -> None:
        while not over.is_set():
            async with session.post(f"{proxy.url}/api/i/v1/{key}/events", json=a_visit()) as answer:
                await answer.read()

    async def all_posting() -> None:
        async with aiohttp.ClientSession() as session:
            await asyncio.gather(*(posting(session) for _ in range(6)))

    thread = threading.Thread(target=asyncio.run, args=(all_posting(),), name="flood")
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def test_a_proxy_that_is_well_says_so_and_its_ledger_is_a_sentence_that_balances(page: Page, proxy: Proxy):
    delivered(proxy, "pk_well")
    expect(page.locator("#well")).to_have_text("All is well: what is accepted is delivered, or on its way.")
    books = proxy.ledger()
    expect(page.locator("#ledger")).to_have_text(
        f"{books['accepted']} accepted = {books['held']} held + {books['delivered']} delivered"
        f" + {books['dead']} dead + {books['dropped']} dropped"
    )
    expect(page.locator("#balance")).to_contain_text("The books balance")
    expect(row(page, "pk_well")).to_contain_text("Sends")
    expect(page).to_have_title("All is well – Outlit proxy")


def test_nothing_can_be_done_without_the_token_and_a_wrong_one_is_not_kept(page: Page, proxy: Proxy):
    delivered(proxy, "pk_without_a_token_nobody_sees_me")
    expect(row(page, "pk_without_…s_me")).to_be_visible()
    page.get_by_label("ops.token").fill("wrong")
    page.get_by_role("button", name="Administer").click()
    expect(page.locator("#said")).to_have_text("That is not the proxy’s ops.token.")
    expect(page.locator("#keys button:visible, #dead-admin:visible")).to_have_count(0)
    assert page.evaluate("sessionStorage.length") == 0
    assert "nobody_sees" not in page.content()
    administers(page)
    expect(row(page, "pk_without_a_token_nobody_sees_me").get_by_role("button")).to_have_count(2)
    page.get_by_role("button", name="Forget the token").click()
    expect(page.locator("#keys button:visible")).to_have_count(0)
    assert page.evaluate("sessionStorage.length") == 0
    assert OPS_TOKEN not in page.content()


def test_an_answer_to_nobody_does_not_refuse_a_token_that_was_given_meanwhile(page: Page):
    with held(page, "**/status") as are_under_way:
        are_under_way(1)
        page.get_by_label("ops.token").fill(OPS_TOKEN)
        page.get_by_role("button", name="Administer").click()
    expect(page.locator("#administering")).to_be_visible()
    expect(page.locator("#said")).to_be_empty()


def test_dead_letters_that_were_asked_for_before_the_token_was_forgotten_are_not_shown(
    page: Page, proxy: Proxy, sandbox: Sandbox
):
    key = "pk_forgotten_is_shown_to_nobody"
    delivered(proxy, key)
    sandbox.fault("refuse_indices", indices=[0], public_key=key, requests=1)
    post(proxy, key)
    wait_for("a dead letter", lambda: proxy.ledger()["dead"])
    with held(page, "**/dead?*") as are_under_way:
        administers(page)
        are_under_way(7)
        expect(row(page, key)).to_be_visible()
        page.get_by_role("button", name="Forget the token").click()
    expect(row(page, "pk_forgotte…body")).to_be_visible()
    assert key not in page.content()
    operate(proxy, f"dead/purge?key={key}")


def test_keys_that_are_shortened_alike_have_a_row_and_a_card_each(page: Page, proxy: Proxy):
    one, two = "pk_collides_one_here", "pk_collides_two_here"
    rows = row(page, "pk_collides…here")
    cards = trouble(page, "paused by operator", "pk_collides…here")
    for key in (one, two):
        delivered(proxy, key)
    operate(proxy, f"keys/{one}/pause")
    expect(cards).to_have_count(1)
    for _ in range(3):
        with page.expect_response("**/status"):
            pass
    expect(rows).to_have_count(2)
    expect(rows.filter(has_text="Paused by an operator")).to_have_count(1)
    expect(rows.filter(has_text="outlit-proxy keys resume")).to_have_count(0)  # of which of them?
    operate(proxy, f"keys/{two}/pause")
    expect(cards).to_have_count(2)
    for key in (one, two):
        operate(proxy, f"keys/{key}/resume")
    expect(cards).to_have_count(0)
    expect(rows).to_have_count(2)


def test_an_outage_shows_within_five_seconds_with_what_to_do(page: Page, proxy: Proxy, sandbox: Sandbox):
    delivered(proxy, "pk_outage")
    expect(row(page, "pk_outage")).to_contain_text("Sends")
    sandbox.fault("status", status=503)
    post(proxy, "pk_outage")
    card = trouble(page, "upstream not answering")
    expect(card).to_be_visible(timeout=WITHIN_MS)
    expect(card).to_contain_text("Nothing has to be done to keep events")
    expect(card).to_contain_text("README: When Outlit is the trouble")
    expect(page.locator("[aria-live=polite]")).to_contain_text("Outlit does not answer")
    expect(row(page, "pk_outage")).to_contain_text("Waits: Outlit does not answer")
    sandbox.clear_faults()
    operate(proxy, "keys/pk_outage/retry")
    expect(card).to_have_count(0, timeout=WITHIN_MS)
    proxy.wait_until_empty()


def test_a_key_that_is_paused_shows_within_five_seconds_and_is_resumed_from_the_page(
    page: Page, proxy: Proxy
):
    delivered(proxy, "pk_paused")
    administers(page)
    row(page, "pk_paused").get_by_role("button", name="Pause pk_paused", exact=True).click()
    expect(page.get_by_role("dialog")).to_contain_text("Pause pk_paused?")
    page.get_by_role("button", name="Cancel").click()
    expect(trouble(page, "paused by operator")).to_have_count(0)
    row(page, "pk_paused").get_by_role("button", name="Pause pk_paused", exact=True).click()
    page.get_by_role("dialog").get_by_role("button", name="Pause", exact=True).click()
    card = trouble(page, "paused by operator", "pk_paused")
    expect(card).to_contain_text("outlit-proxy keys resume", timeout=WITHIN_MS)
    post(proxy, "pk_paused")
    expect(card).to_contain_text("1 event waits")
    expect(row(page, "pk_paused")).to_contain_text("Paused by an operator")
    row(page, "pk_paused").get_by_role("button", name="Resume pk_paused").click()
    expect(page.locator("#said")).to_have_text("pk_paused is resumed.")
    expect(card).to_have_count(0)
    proxy.wait_until_empty()


def test_a_key_that_outlit_refuses_shows_within_five_seconds_and_is_retried_from_the_page(
    page: Page, proxy: Proxy, sandbox: Sandbox
):
    delivered(proxy, "pk_refused")
    administers(page)
    sandbox.fault("status", status=401, public_key="pk_refused")
    post(proxy, "pk_refused")
    card = trouble(page, "key refused", "pk_refused")
    expect(card).to_contain_text("See to the key and the subscription at Outlit", timeout=WITHIN_MS)
    expect(row(page, "pk_refused")).to_contain_text("Outlit refuses the key; next try in")
    sandbox.clear_faults()
    row(page, "pk_refused").get_by_role("button", name="Retry").click()
    expect(card).to_have_count(0, timeout=WITHIN_MS)
    proxy.wait_until_empty()


def test_a_flood_shows_within_five_seconds_with_what_to_do(page: Page, proxy: Proxy):
    delivered(proxy, "pk_flood")
    expect(row(page, "pk_flood")).to_be_visible()
    with flood(proxy, "pk_flood"):
        card = trouble(page, "flood", "pk_flood")
        expect(card).to_contain_text("Find out who posts so much", timeout=WITHIN_MS)
        expect(card).to_contain_text("README: When more comes in than goes out")
        expect(row(page, "pk_flood")).to_contain_text("more comes in than goes out")
    operate(proxy, "keys/pk_flood/pause")  # what is left of it must not hold the other tests up


def test_what_a_plan_has_used_up_shows_within_five_seconds_and_is_asked_anew_from_the_page(
    page: Page, proxy: Proxy, sandbox: Sandbox
):
    panel = page.get_by_role("region", name="Platform gateway")
    expect(panel).to_contain_text("0 calls in flight; all tools allowed, with gateway.api_key.")
    sandbox.order_platform("plan", feature=EVIL, plan="growth", status=402, reset_in_s=7_900)
    assert [call_a_tool(proxy) for _ in range(3)] == [402] * 3
    item = panel.get_by_role("listitem")
    expect(item).to_contain_text("of the plan growth is used up for gateway.api_key", timeout=WITHIN_MS)
    expect(item.locator("b")).to_have_text(re.compile(r"^<img src=x "))
    expect(item).to_contain_text(re.compile(r"back in 2 h, .*:\d\d [A-Z]{3,4}[+-]?\d*;"))  # with its zone
    expect(item).to_contain_text("2 calls answered here since")
    expect(trouble(page, "plan exhausted")).to_contain_text("README: When the gateway is the trouble")
    expect(panel.get_by_role("button")).to_have_count(0)  # nobody has given the token yet
    administers(page)
    sandbox.clear_platform()
    panel.get_by_role("button", name="Ask Outlit again").click()
    expect(page.locator("#said")).to_have_text("1 used-up plan forgotten: the next calls ask Outlit.")
    expect(panel.get_by_role("listitem")).to_have_count(0)
    assert call_a_tool(proxy) == 200
    assert page.locator("main img, main script").count() == 0


def test_an_api_key_that_outlit_refuses_shows_within_five_seconds_and_is_never_written(
    page: Page, proxy: Proxy, sandbox: Sandbox
):
    sandbox.order_platform("answer", status=401, body={"error": "Invalid credentials"})
    assert call_a_tool(proxy) == 401
    panel = page.get_by_role("region", name="Platform gateway")
    expect(panel).to_contain_text("Outlit refuses gateway.api_key, for", timeout=WITHIN_MS)
    expect(trouble(page, "api key refused")).to_contain_text("not about their token")
    assert API_KEY not in page.content()
    sandbox.clear_platform()
    assert call_a_tool(proxy) == 200
    expect(panel).not_to_contain_text("refuses", timeout=WITHIN_MS)


def test_a_plan_of_a_callers_own_key_is_said_to_be_of_that_key(page: Page, proxy: Proxy, sandbox: Sandbox):
    sandbox.order_platform("plan", feature="api_calls", plan="free", status=402, reset_in_s=7_900)
    assert call_a_tool(proxy, "ok_of_a_caller_0123456789_0123456789") == 402
    item = page.get_by_role("region", name="Platform gateway").get_by_role("listitem")
    expect(item).to_contain_text("is used up for a caller's own key: back in 2 h", timeout=WITHIN_MS)


def test_where_the_gateway_is_off_or_the_proxy_older_the_page_has_no_panel_for_it(page: Page):
    def answered(instead: dict[str, Any], route: Route) -> None:
        snapshot = route.fetch().json()
        del snapshot["gateway"]
        route.fulfill(json={**snapshot, **instead})

    panel = page.get_by_role("region", name="Platform gateway")
    expect(panel).to_be_visible()
    for version, gateway in (("of today", {"gateway": {"on": False}}), ("of before", {})):
        page.route("**/status", functools.partial(answered, {"version": version, **gateway}))
        page.reload()
        expect(page.locator("#about")).to_contain_text(version)
        expect(panel).to_be_hidden()
        page.unroute_all(behavior="ignoreErrors")


def test_what_outlit_and_a_visitor_wrote_is_text_and_a_dead_letter_goes_out_again(
    page: Page, proxy: Proxy, sandbox: Sandbox
):
    delivered(proxy, "pk_dead")
    refusal = {"success": False, "errors": [{"path": ["events", 0, "eventName"], "message": EVIL}]}
    sandbox.fault("status", status=400, body=json.dumps(refusal), event=EVIL)
    post(proxy, "pk_dead", EVIL)
    wait_for("a refusal", lambda: proxy.metrics()['outlit_proxy_upstream_requests_total{verdict="refused"}'])
    delivered(proxy, "pk_dead")  # so it is the event, not the key, that Outlit dislikes
    operate(proxy, "keys/pk_dead/retry")
    administers(page)
    letter = page.locator("#dead tbody tr")
    expect(letter).to_have_count(1, timeout=WITHIN_MS)
    expect(letter).to_contain_text(EVIL)
    expect(page.locator("#dead-reasons")).to_contain_text("1 refused")
    letter.get_by_role("button", name="Show").click()
    expect(letter.locator("pre")).to_contain_text(json.dumps(EVIL))
    assert page.evaluate("[typeof hacked, document.title === 'hacked']") == ["undefined", False]
    assert page.locator("main img, main script").count() == 0

    sandbox.clear_faults()
    letter.get_by_role("button", name="Replay").click()
    expect(page.get_by_role("dialog")).to_contain_text("Replay 1 dead letter?")
    page.get_by_role("dialog").get_by_role("button", name="Replay").click()
    expect(page.locator("#said")).to_have_text("1 dead letter replayed.")
    expect(letter).to_have_count(0)
    (taken,) = (each for each in sandbox.taken() if each.event.get("eventName") == EVIL)
    assert taken.key == "pk_dead"


def test_dead_letters_of_one_key_are_replayed_together(page: Page, proxy: Proxy, sandbox: Sandbox):
    for key in ("pk_many", "pk_other"):
        delivered(proxy, key)
        sandbox.fault("refuse_indices", indices=[0], public_key=key, requests=2)
        for _ in range(2):
            post(proxy, key, f"of {key}")
    administers(page)
    page.get_by_label("Key", exact=True).select_option("pk_many", timeout=WITHIN_MS)
    page.get_by_role("button", name="Replay all 2 of these…").click()
    expect(page.get_by_role("dialog")).to_contain_text("Replay 2 dead letters (key pk_many)?")
    page.get_by_role("dialog").get_by_role("button", name="Replay").click()
    expect(page.locator("#said")).to_have_text("2 dead letters replayed.")
    expect(page.locator("#dead-summary")).to_contain_text("2 events", timeout=WITHIN_MS)
    operate(proxy, "dead/purge?key=pk_other")


def test_a_lost_connection_is_said_and_found_again(page: Page):
    expect(page.locator("#figures")).to_contain_text("Delivered")
    page.context.set_offline(True)
    lost = page.get_by_role("alert")
    expect(lost).to_have_text(
        re.compile(r"Connection to the proxy lost since \d\d:\d\d:\d\d\. What stands below is of then\.")
    )
    page.context.set_offline(False)
    expect(lost).to_be_hidden()


def test_it_fits_a_telephone_and_a_wall_in_both_themes(page: Page):
    expect(page.locator("#figures")).to_contain_text("Delivered")
    grounds = set()
    for theme in ("light", "dark"):
        page.emulate_media(color_scheme=theme)
        for width in (360, 1400):
            page.set_viewport_size({"width": width, "height": 800})
            assert page.evaluate("document.documentElement.scrollWidth") == width
        grounds.add(page.evaluate("getComputedStyle(document.body).backgroundColor"))
    assert len(grounds) == 2


def test_where_no_token_is_set_the_page_says_how_to_administer(page: Page, proxy: Proxy):
    def as_without_a_token(route: Route) -> None:
        route.fulfill(json={**route.fetch().json(), "administration": False})

    page.route("**/status", as_without_a_token)
    page.reload()
    expect(page.locator("#administration-off")).to_contain_text("OUTLIT_PROXY_OPS_TOKEN")
    expect(page.get_by_label("ops.token")).to_be_hidden()
    page.unroute_all(behavior="ignoreErrors")

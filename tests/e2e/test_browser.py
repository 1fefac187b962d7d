"""The real browser client, as installed from npm, in a real browser on a page of another origin.

Two visitors with two browser profiles: one loads the client as a script, with its defaults; the other imports
it as a module and replaces its denylist, so that passwords do leave the browser. What each page hands to the
browser for sending is noted in the page (`NOTE_WHAT_IS_SENT`): that is what must have arrived in the end.
"""

import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest
from backports import zstd
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

from tests.programs import Proxy, Sandbox, SandboxProgram, Taken, running_proxy, running_sandbox
from tests.redis_servers import RedisServer

KEY = "pk_e2e"
CLIENT = Path(__file__).parent / "browser" / "node_modules" / "@outlit"
FILES = {
    "/client/outlit.global.js": CLIENT / "browser" / "dist" / "outlit.global.js",
    "/client/browser.mjs": CLIENT / "browser" / "dist" / "index.mjs",
    "/client/core.mjs": CLIENT / "core" / "dist" / "index.mjs",
}
CHROMIUM = [
    "--no-sandbox",  # root in a container has no user namespaces
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
PASSWORD = "correct-horse-battery-staple"
COOKIE = "of-the-site-" * 240  # 3 of them make a header of 9 KB, more than aiohttp admits by default
# All that may stand in a request to Outlit. Of the client's: its address, User-Agent and Origin.
UPSTREAM_HEADERS = {"host", "content-type", "content-length", "accept", "accept-encoding", "connection"}
CLIENT_HEADERS = {"user-agent", "origin", "x-forwarded-for"}

NOTE_WHAT_IS_SENT = """
    // The client makes a Blob of each body it sends. localStorage, because it outlives the page.
    window.Blob = class extends Blob {
        constructor(parts, options) {
            super(parts, options)
            if (options?.type !== "application/json") return
            const sent = JSON.parse(localStorage.getItem("sent") ?? "[]")
            localStorage.setItem("sent", JSON.stringify([...sent, parts[0]]))
        }
    }
"""
FORM = f"""
    <form id="sign-up" method="METHOD" action="/welcome">
        <input name="company" value="Acme"><input name="first_name" value="Ada">
        <input name="email" type="email" value="EMAIL">
        <input name="password" type="password" value="{PASSWORD}">
        <input name="Pass-Word again" type="text" value="{PASSWORD}">
        <button>Sign up</button>
    </form>
"""
SCRIPT_PAGE = f"""<!doctype html><title>By script</title>
    <script src="/client/outlit.global.js" data-public-key="{KEY}" data-api-host="API_HOST"></script>
    <script>queued = () => outlit._instance.eventQueue.length</script>
    {FORM}"""
# It flushes sooner than by default, for a quicker test. Its list of denied fields replaces the client's.
MODULE_PAGE = f"""<!doctype html><title>By module</title>
    <script type="importmap">{{"imports": {{"@outlit/core": "/client/core.mjs"}}}}</script>
    <script type="module">
        import outlit from "/client/browser.mjs"
        window.outlit = outlit
        const client = outlit.init({{
            publicKey: "{KEY}",
            apiHost: "API_HOST",
            flushInterval: 1500,
            formFieldDenylist: ["favourite_colour"],
        }})
        window.queued = () => client.eventQueue.length
    </script>
    {FORM}"""


class Site:
    """The customer's web site: one page under every path, and large cookies."""

    def __init__(self) -> None:
        self.api_host = ""
        site = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                path = self.path.partition("?")[0]
                if file := FILES.get(path):
                    return self._answer("text/javascript", file.read_bytes())
                if path in {"/favicon.ico", "/empty"}:
                    return self._answer("text/plain", b"")
                # The visitors are on different names of this machine, hence on different origins.
                by_script = self.headers["Host"].startswith("127.0.0.1")
                page = SCRIPT_PAGE if by_script else MODULE_PAGE
                for name, value in {
                    "API_HOST": site.api_host,
                    "METHOD": "post" if by_script else "get",
                    "EMAIL": "ada@script.example" if by_script else "ada@module.example",
                }.items():
                    page = page.replace(name, value)
                return self._answer("text/html; charset=utf-8", page.encode())

            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["Content-Length"]))
                self.do_GET()

            def _answer(self, content_type: str, body: bytes) -> None:
                self.send_response(200)
                self.send_header("Content-Type", content_type)
                self.send_header("Content-Length", str(len(body)))
                for number in range(3):
                    self.send_header("Set-Cookie", f"site_{number}={COOKIE}; Path=/; HttpOnly")
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, name="site", daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


class Visitor:
    """One person: a browser profile of its own, with one tab."""

    def __init__(self, browser: Browser, name: str, origin: str) -> None:
        self.name, self.origin, self.user_agent = name, origin, f"Mozilla/5.0 (the visitor by {name})"
        self.context: BrowserContext = browser.new_context(user_agent=self.user_agent)
        self.context.add_init_script(NOTE_WHAT_IS_SENT)
        self.console: list[str] = []
        self.context.on("console", lambda message: self.console.append(message.text))
        self.page: Page = self.context.new_page()
        self.visitor_id = ""
        self.tracked = 0

    def opens(self, path: str) -> None:
        self.page.goto(self.origin + path)
        self.page.wait_for_function("window.queued?.() > 0")
        self.visitor_id = self.page.evaluate("localStorage.outlit_visitor_id")

    def tracks(self, times: int, **properties: Any) -> None:
        """Track `times` custom events at once, numbered through the visit."""
        for _ in range(times):
            self.tracked += 1
            self.page.evaluate(
                "([n, more]) => outlit.track('step', {n, ...more})", [self.tracked, properties]
            )

    def goes_to(self, path: str) -> None:
        """Navigate within the page, as a single-page application does, and wait for the page view of it."""
        before = self.page.evaluate("queued()")
        self.page.evaluate("path => history.pushState({}, '', path)", path)
        self.page.wait_for_function("before => queued() !== before", arg=before)

    def identifies_itself(self) -> None:
        self.page.evaluate(
            "name => outlit.identify({email: name + '@own.example', userId: name, traits: {plan: 'pro'}})",
            self.name,
        )

    def signs_up(self) -> None:
        with self.page.expect_navigation():
            self.page.click("button")
        self.page.wait_for_function("window.queued?.() > 0")

    def waits_until_flushed(self) -> None:
        self.page.wait_for_function("queued() === 0")

    def sent(self) -> list[dict[str, Any]]:
        """Every body that the pages of this visitor handed to the browser for sending, in order."""
        page = self.context.new_page()
        page.goto(self.origin + "/empty")
        noted: list[str] = json.loads(page.evaluate("localStorage.sent ?? '[]'"))
        page.close()
        return [json.loads(body) for body in noted]

    def events_sent(self) -> int:
        return sum(len(body["events"]) for body in self.sent())


@contextmanager
def visiting(browser: Browser, site: Site, name: str, host: str) -> Iterator[Visitor]:
    """A visitor of the site under one of the names of this machine."""
    visitor = Visitor(browser, name, f"http://{host}:{site.port}")
    yield visitor
    visitor.context.close()


@dataclass(frozen=True, slots=True)
class Visits:
    """Two visits that are over, and what is left of them everywhere."""

    sandbox: SandboxProgram
    proxy: Proxy
    by_script: Visitor
    by_module: Visitor
    sent: dict[str, list[dict[str, Any]]]  # bodies by visitor's name
    taken: list[Taken]
    stored_while_held: bytes
    stored_in_the_end: bytes
    ledger: dict[str, int]
    cookies: list[str]  # the header, of each post of the visitor by script

    @property
    def visitors(self) -> list[Visitor]:
        return [self.by_script, self.by_module]

    @property
    def events_sent(self) -> int:
        return sum(len(body["events"]) for bodies in self.sent.values() for body in bodies)

    def taken_of(self, visitor: Visitor) -> list[Taken]:
        return [each for each in self.taken if each.envelope["visitorId"] == visitor.visitor_id]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=CHROMIUM)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    site = Site()
    yield site
    site.close()


@pytest.fixture(scope="module", params=["sqlite", "redis"])
def visits(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, browser: Browser, site: Site
) -> Iterator[Visits]:
    """Both visits, made once with each buffer; each test looks at another side of them."""
    folder = tmp_path_factory.mktemp("visits")
    with ExitStack() as stores:
        settings: dict[str, str] = {}
        if request.param == "redis":
            server = stores.enter_context(RedisServer(folder / "buffer"))
            settings = {"OUTLIT_PROXY_BUFFER_URL": server.url}
        yield from visits_with(settings, folder, browser, site)


def visits_with(settings: dict[str, str], folder: Path, browser: Browser, site: Site) -> Iterator[Visits]:
    """`folder`: below it, in `buffer`, stands all that the buffer writes."""

    def stored_bytes() -> bytes:
        return b"".join(file.read_bytes() for file in (folder / "buffer").rglob("*") if file.is_file())

    with (
        running_sandbox(folder) as sandbox,
        running_proxy(folder, sandbox, **settings) as proxy,
        visiting(browser, site, "script", "127.0.0.1") as by_script,
        visiting(browser, site, "module", "localhost") as by_module,
    ):
        site.api_host = proxy.url
        cookies = note_cookies_of_posts(by_script)
        stored_while_held = make_visits(sandbox, proxy, by_script, by_module, stored_bytes)
        sent = {visitor.name: visitor.sent() for visitor in (by_script, by_module)}
        ledger, taken = proxy.ledger(), sandbox.taken()
        assert proxy.program.stop() == 0, proxy.program.log
        stored = (stored_while_held, stored_bytes())
        yield Visits(sandbox, proxy, by_script, by_module, sent, taken, *stored, ledger, cookies)


def make_visits(
    sandbox: Sandbox,
    proxy: Proxy,
    by_script: Visitor,
    by_module: Visitor,
    stored_bytes: Callable[[], bytes],
) -> bytes:
    """Act out both visits, to the last delivery. Gives what was stored while the forms were held."""
    visitors = [by_script, by_module]

    def all_flushed() -> None:
        # One flush must be through before the next: the client does not order two beacons in flight.
        for visitor in visitors:
            visitor.waits_until_flushed()
        proxy.wait_until_accepted(sum(visitor.events_sent() for visitor in visitors))

    # Page views over navigation within the page, and custom events, flushed by the client's timer.
    for visitor in visitors:
        visitor.opens("/?utm_source=newsletter")
    for visitor in visitors:
        visitor.tracks(2)
        visitor.goes_to("/pricing")
        visitor.tracks(1, cut="an emoji cut in half: \ud83d")
        visitor.goes_to(f"/docs?token={PASSWORD}&page=2")
    all_flushed()
    # Ten events are flushed at once, without the timer.
    for visitor in visitors:
        visitor.tracks(10, nested={"a": [1, None, {"b": True}]})
    all_flushed()
    for visitor in visitors:
        visitor.identifies_itself()
        visitor.tracks(1)
    all_flushed()

    # They sign up while Outlit is away, so that the forms can be looked for in the buffer.
    proxy.wait_until_empty()
    sandbox.fault("status", status=503)
    for visitor in visitors:
        visitor.signs_up()
    all_flushed()
    assert proxy.ledger()["held"] > 0
    stored_while_held = stored_bytes()
    sandbox.clear_faults()

    # The end: one leaves for another site, the other closes the tab.
    for visitor in visitors:
        visitor.tracks(3)
    by_script.page.goto("about:blank")
    with by_module.page.expect_event("close"):
        by_module.page.close(run_before_unload=True)
    proxy.wait_until_accepted(sum(visitor.events_sent() for visitor in visitors))
    proxy.wait_until_empty()
    return stored_while_held


def test_every_event_arrives_once_under_its_visitor_in_order_and_unchanged(visits: Visits):
    for visitor in visits.visitors:
        arrived = [(each.envelope, without_uuid(each.event)) for each in visits.taken_of(visitor)]
        assert arrived == expected(visits.sent[visitor.name])
    assert len(visits.taken) == visits.events_sent
    assert len({each.event["uuid"] for each in visits.taken}) == visits.events_sent
    assert {each.key for each in visits.taken} == {KEY}


def test_the_record_alone_tells_each_visit(visits: Visits):
    """The same from what the visitors did, in case the notes in the pages are wrong."""
    assert visits.by_script.visitor_id != visits.by_module.visitor_id
    for visitor in visits.visitors:
        taken = visits.taken_of(visitor)
        events = [each.event for each in taken]
        numbers = [event["properties"]["n"] for event in events if event["type"] == "custom"]
        assert numbers == list(range(1, visitor.tracked + 1))
        pages = [event["path"] for event in events if event["type"] == "pageview"]
        assert pages == ["/", "/pricing", "/docs", "/welcome"]
        by_itself, by_form = [event for event in events if event["type"] == "identify"]
        assert (by_itself["userId"], by_itself["traits"]) == (visitor.name, {"plan": "pro"})
        assert by_form["email"] == f"ada@{visitor.name}.example"
        # Queued at page hide: as the form led to another page, and at the end.
        assert [event["type"] for event in events].count("engagement") >= 2
        # The client names the person in every request of a page once it is known, and forgets with the page.
        named = [
            (each.envelope.get("userIdentity") or {}).get("email", "").partition("@")[0] for each in taken
        ]
        assert [name for name, _ in groupby(named)] == ["", visitor.name, "ada", ""]


def test_the_books_close(visits: Visits):
    assert visits.ledger == {
        "accepted": visits.events_sent,
        "held": 0,
        "delivered": visits.events_sent,
        "dead": 0,
        "dropped": 0,
        "difference": 0,
    }


def test_upstream_learns_the_clients_address_program_and_origin_and_nothing_else(visits: Visits):
    # The browser did send its cookies, more of them than aiohttp admits by default.
    assert any(len(cookie) > 8192 for cookie in visits.cookies)
    for visitor in visits.visitors:
        for each in visits.taken_of(visitor):
            names = [name for name, _ in each.headers]
            assert len(names) == len(set(names))
            assert set(names) <= UPSTREAM_HEADERS | CLIENT_HEADERS
            headers = dict(each.headers)
            assert headers["user-agent"] == visitor.user_agent
            assert headers["origin"] == visitor.origin
            assert headers["x-forwarded-for"] == "127.0.0.1"


def test_a_password_that_left_the_browser_is_kept_nowhere(visits: Visits):
    forms = [event for body in visits.sent["module"] for event in body["events"] if event["type"] == "form"]
    assert [form["formFields"]["password"] for form in forms] == [PASSWORD]
    assert b"Acme" in readable(visits.stored_while_held), "this search sees nothing, so it proves nothing"
    for kept in (
        readable(visits.stored_while_held),
        readable(visits.stored_in_the_end),
        visits.sandbox.record_file.read_bytes(),
        json.dumps(visits.taken).encode(),
        visits.proxy.program.log.encode(),
        visits.sandbox.program.log.encode(),
    ):
        assert PASSWORD.encode() not in kept
        assert COOKIE.encode() not in kept


def test_what_is_innocent_in_a_form_with_a_password_arrives(visits: Visits):
    for visitor in visits.visitors:
        forms = [each.event for each in visits.taken_of(visitor) if each.event["type"] == "form"]
        assert [form["formFields"] for form in forms] == [
            {"company": "Acme", "first_name": "Ada", "email": f"ada@{visitor.name}.example"}
        ]


def test_the_browser_and_the_client_have_nothing_to_complain_about(visits: Visits):
    for visitor in visits.visitors:
        assert [text for text in visitor.console if "[Outlit]" in text or "CORS" in text] == []


def test_a_client_without_beacons_falls_back_to_fetch(
    sandbox: Sandbox, proxy: Proxy, browser: Browser, site: Site
):
    site.api_host = proxy.url
    with visiting(browser, site, "module", "localhost") as visitor:
        visitor.context.add_init_script("navigator.sendBeacon = () => false")
        visitor.opens("/")
        visitor.tracks(3)
        visitor.waits_until_flushed()
        proxy.wait_until_accepted(4)
        proxy.wait_until_empty()
        arrived = [(each.envelope, without_uuid(each.event)) for each in sandbox.taken()]
        assert arrived == expected(visitor.sent())
        # Unlike a beacon's, this answer is read: the client says when it could not, or when it is an error.
        warnings = [text for text in visitor.console if "[Outlit]" in text]
        assert [text for text in warnings if "falling back to fetch" not in text] == []


def note_cookies_of_posts(visitor: Visitor) -> list[str]:
    """The Cookie header of each post of events, as the browser's network side sends it."""
    found: list[str] = []

    def note(sending: dict[str, Any]) -> None:
        headers = {name.lower(): value for name, value in sending["headers"].items()}
        if headers.get("content-type") == "application/json":
            found.append(headers.get("cookie", ""))

    session = visitor.context.new_cdp_session(visitor.page)
    session.send("Network.enable")
    session.on("Network.requestWillBeSentExtraInfo", note)
    return found


def expected(bodies: list[dict[str, Any]]) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """What must arrive of what was sent: each event with its envelope, passwords aside."""
    return [
        ({name: value for name, value in body.items() if name != "events"}, without_passwords(event))
        for body in bodies
        for event in body["events"]
    ]


def without_passwords(event: dict[str, Any]) -> dict[str, Any]:
    kept = dict(event)
    for name in ("url", "referrer"):
        kept[name] = event[name].replace(PASSWORD, "redacted")
    if fields := event.get("formFields"):
        kept["formFields"] = {name: value for name, value in fields.items() if value != PASSWORD}
    return kept


def without_uuid(event: dict[str, Any]) -> dict[str, Any]:
    """This client sends no uuid; the proxy gives each event one."""
    return {name: value for name, value in event.items() if name != "uuid"}


def readable(stored: bytes) -> bytes:
    """The stored bytes, deleted rows among them, and once more what of them is compressed, for a search."""
    frames = []
    for start in re.finditer(re.escape(ZSTD_MAGIC), stored):
        try:
            frames.append(zstd.ZstdDecompressor().decompress(stored[start.start() :], 1_000_000))
        except zstd.ZstdError:
            continue  # cut by a page's end, or no frame
    return b"\n".join([stored, *frames])

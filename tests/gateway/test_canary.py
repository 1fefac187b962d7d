"""The API key is shown nowhere: a key that nothing else has is looked for in all that the gateway says.

Of both kinds: gateway.api_key and a caller's own. Processes and commands: tests/e2e/test_gateway.py.
"""

import asyncio
import io
import json
import logging
import sys
from asyncio import selector_events
from collections.abc import Iterator, Sequence
from types import FrameType
from typing import Any, Literal

import aiohttp
import pytest
import structlog
from aiohttp import client_reqrep, connector, http_writer
from multidict import CIMultiDict
from pydantic import SecretStr
from yarl import URL

from proxy import log
from proxy.gateway import client, gateway
from proxy.gateway.validity import Verdicts
from tests.gateway.callers import Callers
from tests.gateway.canary import Canary, Exceptions, exceptions, rendered
from tests.outlit import USED_UP, Outlit, Request, answer, hangs, resets, says
from tests.programs import free_port
from tests.stack import PATIENCE_S

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.usefixtures("at_once")]

OPERATORS, OWN = Canary(), Canary()


@pytest.fixture
def log_format() -> Literal["json", "text"]:
    return "json"


@pytest.fixture
def said(log_format: Literal["json", "text"]) -> Iterator[io.StringIO]:
    """All that is logged at the most talkative level."""
    root, config = logging.getLogger(), structlog.get_config()
    handlers, level = list(root.handlers), root.level
    stream = io.StringIO()
    log.configure(log_format, "debug", stream)
    root.setLevel(logging.DEBUG)
    yield stream
    structlog.configure(**config)
    root.handlers = handlers
    root.setLevel(level)


def is_in(text: str | bytes) -> bool:
    return any(canary.found_in(text) for canary in (OPERATORS, OWN))


def assert_nowhere(text: str | bytes, where: str) -> None:
    for canary in (OPERATORS, OWN):
        canary.assert_not_in(text, where)


async def set_up(callers: Callers, *, url: str | None = None, **gateway: Any) -> None:
    callers.own_key, callers.api_key = OWN.key, OPERATORS.key
    await callers.retry()
    await callers.reload(url=url, api_key=SecretStr(OPERATORS.key), **gateway)


CALLS = (
    ("POST", "/validate-api-key", b""),
    ("POST", "/tools/call", b'{"tool":"outlit_schema","input":{}}'),
    ("GET", "/integrations", b""),
    ("POST", "/else", b"{}"),
)


async def call(callers: Callers, calls: Sequence[tuple[str, str, bytes]] = CALLS) -> list[bytes]:
    """Each once, for both kinds of callers, over bare connections; all that came back."""

    async def ask(method: str, path: str, body: bytes, caller: str) -> bytes:
        url = URL(callers.stack.ops_url)
        reader, writer = await asyncio.open_connection(url.host, url.port)
        authorization = callers.authorized(caller)["Authorization"]
        head = f"{method} /platform/api{path} HTTP/1.0\r\nAuthorization: {authorization}\r\n"
        writer.write(f"{head}Host: localhost\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
        try:
            async with asyncio.timeout(PATIENCE_S):
                return await reader.read()
        except ConnectionResetError:
            return b"cut off"
        finally:
            writer.close()

    return await asyncio.gather(*(ask(*each, caller) for caller in ("own", "operator") for each in calls))


async def of_the_operator(callers: Callers) -> str:
    """What the operations listener shows to anybody and to operators."""
    asked = [
        callers.stack.get(path, **headers)
        for path in ("/status", "/", "/readyz?verbose")
        for headers in ({}, callers.authorized("operator"))
    ]
    replies = await asyncio.gather(*asked, callers.stack.get("/metrics"))
    return "\n".join(f"{dict(reply.headers)} {reply.body!r}" for reply in replies)


BEHAVIOURS = {
    "serves": says(answer(b'{"ok":true}')),
    "refuses": says(answer(b'{"error":"Invalid credentials"}', "401 Unauthorized")),
    "is exhausted": says(USED_UP),
    "fails": says(answer(b'{"code":"x","message":"m","retryable":true}', "503 Service Unavailable")),
    "resets": resets,
    "hangs": hangs,
    "breaks off": says(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{", then_close=True),
    "breaks off a failure": says(b"HTTP/1.1 500 Oops\r\nContent-Length: 100\r\n\r\n{", then_close=True),
    "speaks no HTTP": says(b"220 mail.example ESMTP\r\n", then_close=True),
    "redirects": says(answer(b"", "302 Found", "Location: https://elsewhere.example/")),
}

PLACES_OF_NAMES = ("code", "feature", "plan")


def assert_none_shows(found: Exceptions) -> None:
    shown = [f"{type(error).__name__} ({error})" for error in found if is_in(rendered(error))]
    assert not shown, "these show the key where their frames are shown"


@pytest.mark.parametrize("behaviour", BEHAVIOURS)
async def test_no_answer_log_metric_page_or_traceback_shows_a_key(
    outlit: Outlit, callers: Callers, said: io.StringIO, behaviour: str
) -> None:
    await set_up(callers, url=outlit.url, timeout_s=0.5 if behaviour == "hangs" else 5.0)
    outlit.begin(BEHAVIOURS[behaviour])
    with exceptions() as found:
        answers = await call(callers)
    assert all(answers)
    assert outlit.requests, "nothing was asked, so nothing could be shown"
    assert_nowhere(b"".join(answers), "in an answer")
    assert_nowhere(await of_the_operator(callers), "on the operations listener")
    assert_nowhere(said.getvalue(), "in the log")
    assert_none_shows(found)


@pytest.mark.parametrize("around", ["{}", "Bearer {}", "key={}.", "{}" + "-" * 100])
@pytest.mark.parametrize("place", PLACES_OF_NAMES)
async def test_nor_where_a_plan_is_named_by_it(
    outlit: Outlit, callers: Callers, said: io.StringIO, place: str, around: str
) -> None:
    """Whoever answers in Outlit's place was given the key; a plan's names are logged, and shown to all."""
    await set_up(callers, url=outlit.url)

    async def repeat(request: Request, writer: asyncio.StreamWriter) -> None:
        key = request.all("Authorization")[0].removeprefix("Bearer ")
        refusal = {"error": "e", **dict.fromkeys(PLACES_OF_NAMES, "x"), "resetAt": 99999999999999}
        refusal[place] = around.format(key)
        writer.write(answer(json.dumps(refusal).encode(), "402 Payment Required"))

    outlit.begin(repeat)
    await call(callers)
    shown = await of_the_operator(callers)
    assert "ok_…" in shown.encode().decode("unicode_escape").encode("latin-1").decode(), "nothing was learnt"
    assert_nowhere(shown, "on the operations listener")
    assert_nowhere(said.getvalue(), "in the log")


@pytest.mark.parametrize("log_format", ["json", "text"])
async def test_nor_where_nothing_listens(callers: Callers, said: io.StringIO) -> None:
    await set_up(callers, url=f"http://127.0.0.1:{free_port()}")
    with exceptions() as found:
        answers = await call(callers)
    assert any(isinstance(error, aiohttp.ClientConnectorError) for error in found)
    assert_nowhere(b"".join(answers), "in an answer")
    assert_nowhere(said.getvalue(), "in the log")
    assert_none_shows(found)


class Boom(Exception):
    """What nobody expects."""


def of_the_gateways_client() -> bool:
    """Whether whoever calls is on the way to Outlit: the same library answers our callers."""
    frame: FrameType | None = sys._getframe(2)
    while frame is not None:
        if frame.f_code.co_filename.endswith(CLIENT_FILES):
            return True
        frame = frame.f_back
    return False


CLIENT_FILES = ("proxy/gateway/client.py", "proxy/gateway/gateway.py", "aiohttp/client_reqrep.py")

IN_THE_MIDDLE: dict[str, tuple[Any, str]] = {
    "as its headers are made": (gateway, "towards"),
    "as the request is made": (client_reqrep.ClientRequest, "update_headers"),
    "as its body is made": (client_reqrep.ClientRequest, "update_body_from_data"),
    "as it connects": (connector.TCPConnector, "_create_connection"),
    "as its head is written": (http_writer.StreamWriter, "write_headers"),
    "as its bytes are written": (selector_events._SelectorSocketTransport, "write"),  # type: ignore[attr-defined]
    "as it is sent": (client_reqrep.ClientRequest, "send"),
    "as the answer begins": (client_reqrep.ClientResponse, "start"),
    "as the answer is read": (aiohttp.StreamReader, "read"),
    "as a failure is read": (client, "read_problem"),
    "as it is judged": (client, "_may_repeat"),
    "as it is learnt from": (Verdicts, "hear"),
    "as it is passed on": (gateway, "pass_on"),
}


@pytest.mark.parametrize("place", IN_THE_MIDDLE)
async def test_nor_where_something_fails_that_never_should(
    outlit: Outlit, callers: Callers, said: io.StringIO, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    owner, name = IN_THE_MIDDLE[place]
    works = getattr(owner, name)

    def fails(*given: Any, **named: Any) -> Any:
        if of_the_gateways_client():
            del given, named  # ours; what the frames around hold is theirs
            raise Boom(place)
        return works(*given, **named)

    # By another name it is another server, to which no connection is kept.
    url = outlit.url.replace("127.0.0.1", "localhost") if name == "_create_connection" else outlit.url
    await set_up(callers, url=url)
    outlit.begin(says(answer(b'{"error":"e"}', "500 Oops")))
    monkeypatch.setattr(owner, name, fails)
    with exceptions() as found:
        answers = await call(callers, CALLS[1:3])
    monkeypatch.undo()
    assert any(isinstance(error, Boom) for error in found), "nothing failed"
    assert_nowhere(b"".join(answers), "in an answer")
    assert_nowhere(said.getvalue(), "in the log")
    assert_none_shows(found)


# -- what holds it -----------------------------------------------------------------------------------------


async def test_nothing_that_holds_the_key_shows_it(callers: Callers) -> None:
    await set_up(callers)
    await call(callers)
    settings = callers.found[0]
    rooms = callers.stack.service._rooms
    assert rooms is not None
    shown = [repr(settings), str(settings), settings.model_dump_json(), repr(settings.model_dump())]
    shown += [repr(rooms), repr(callers.stack.service), repr(vars(callers.stack.service))]
    shown += _of_all_within(rooms.gateway)
    assert len(shown) > 20
    for text in shown:
        assert_nowhere(text, text[:40])


def _of_all_within(thing: object, depth: int = 4) -> list[str]:
    """How it, its attributes, theirs, and so on, show themselves."""
    found = [repr(thing), str(thing)]
    names = [*getattr(thing, "__slots__", ()), *getattr(thing, "__dict__", ())]
    if depth and type(thing).__module__.startswith(("proxy.", "aiohttp.")):
        for name in names:
            found += _of_all_within(getattr(thing, name, None), depth - 1)
    return found


async def test_the_search_sees_what_the_gateway_raises(
    outlit: Outlit, callers: Callers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A gateway that kept the key as plain text would be caught by the same look at the same calls."""
    monkeypatch.setattr(gateway, "towards", _with_a_plain_key)
    await set_up(callers, url=outlit.url)
    outlit.begin(resets)
    with exceptions() as found:
        await call(callers)
    assert any(is_in(rendered(error)) for error in found)


def _with_a_plain_key(_headers: object, key: SecretStr, **_: object) -> CIMultiDict[str]:
    return CIMultiDict({"Authorization": f"Bearer {key.get_secret_value()}"})

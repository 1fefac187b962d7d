"""Which part of Outlit's API a path names: spelled plainly, or refused. Asked over bare connections.

What the gateway thinks a path is, Outlit has to think too: otherwise an allow-list, a plan's memory or the
token of the operations listener could be got round by another spelling.
"""

import re
from urllib.parse import unquote

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.gateway.callers import BASES, Callers
from tests.outlit import Outlit
from tests.stack import OPS_TOKEN, Reply

pytestmark = pytest.mark.asyncio(loop_scope="module")

PLAIN = re.compile(r"/api/[A-Za-z0-9._~!$&'()*+,;=:@%/-]+")


async def get(callers: Callers, target: bytes | str, method: str = "GET", body: bytes = b"") -> Reply:
    raw = target if isinstance(target, bytes) else target.encode()
    return await callers.raw(
        b"%s %s HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer %s\r\nContent-Length: %d\r\n\r\n%s"
        % (method.encode(), raw, OPS_TOKEN.encode(), len(body), body)
    )


CONFUSING = [
    "/platform/api/../metrics",
    "/platform/api/integrations/../tools/call",
    "/platform/api/integrations/..",
    "/platform/api/integrations/../",
    "/platform/api/integrations/.",
    "/platform/api/./integrations",
    "/platform/api/..",
    "/platform/api/%2e%2e/metrics",
    "/platform/api/%2E./metrics",
    "/platform/api/.%2e/i/v1/pk_1/events",
    "/platform/api/integrations/%2e%2e/tools/call",
    "/platform/api//integrations",
    "/platform/api/integrations//x",
    "/platform/api/integrations/x//",
    "/platform/api/integrations%2fx",
    "/platform/api/integrations/..%2ftools",
    "/platform/api%2fintegrations/x",
    "/platform/api/integrations%5cx",
    "/platform/api/integrations/..%5Ctools",
    "/platform/api/integrations\\..\\tools",
    "/platform/api/integrations/%00",
    "/platform/api/integrations/x%0d%0aX-Injected:%201",
    "/platform/api/integrations/%0a",
    "/platform/api/integrations/%7f",
    "/platform/api/integrations/%252e%252e/tools",
    "/platform/api/%2574ools",
    "/platform/api/integrations/%c0%ae%c0%ae/tools",
    "/platform/api/integrations/%",
    "/platform/api/integrations/%2",
    "/platform/api/integrations/%zz",
    "/platform/api/integrations/;/x/..;/tools",
    "/platform/api/integrations/..%20/tools/call",
    "/platform/api/integrations/%20../tools/call",
    "/platform/api/integrations/%20/tools/call",
    "/platform/api/integrations/%EF%BC%8E%EF%BC%8E/tools/call",
    "/platform/api/integrations/x%EF%BC%8F..%EF%BC%8Ftools",
    "/platform/api/%EF%BD%94ools/call",
    "/platform/api/Integrations",
    "/platform/api/INTEGRATIONS/x",
    "/platform/api/integrations/",
    "/platform/api/int%65grations",
    "/platform/api/integrations;x=1",
    "/platform/API/integrations",
    "/platform/api/i/v1/pk_1/events",
    "/platform/api/I/v1/pk_1/events",
    "/platform/api/%69/v1/pk_1/events",
    "/platform/api/i",
    "/platform/api/",
    "/platform/api",
    "/platform",
    "/platform/",
    "/platform/metrics",
    "/platform/livez/../api/integrations",
    "/platform/v2/api/integrations",
    "/platform/platform/api/integrations",
    "/api/platform/../integrations",
    "/Platform/api/integrations",
    "//platform/api/integrations",
    "/platform//api/integrations",
    "/%70latform/api/integrations",
    "/platform/%61pi/integrations",
    "/./platform/api/integrations",
    "/metrics/../platform/api/integrations",
    "/platform/../platform/api/integrations",
]


@pytest.mark.parametrize("target", CONFUSING)
async def test_a_path_that_two_readers_may_read_otherwise_goes_nowhere(
    outlit: Outlit, callers: Callers, target: str
) -> None:
    for each in (target, re.sub("^/platform/(?=api)", "/", target)):
        reply = await get(callers, each)
        assert reply.status in {400, 404}, reply.body
        assert b"outlit_proxy_" not in reply.body
        if each.startswith(("/platform/", "/api/")):
            assert reply.json["code"] in {"path_refused", "not_found"}
    assert outlit.requests == []


@pytest.mark.parametrize(
    "path",
    [
        "/Tools/Call",
        "/tools/Call",
        "/tools/call/",
        "/tools/call/x",
        "/tools/%63all",
        "/tools%2fcall",
        "/tools//call",
        "/tools/call;x",
        "/tools/call%20",
        "/tools/call%09",
        "/%20tools/call",
        "/tools/%EF%BD%83all",
        "/Validate-Api-Key",
        "/validate-api-key/",
        "/validate%2dapi%2dkey",
        "/validate-api-key;jsessionid=1",
    ],
)
async def test_no_spelling_gets_round_what_is_known_of_a_route(
    outlit: Outlit, callers: Callers, path: str
) -> None:
    """A tool that is not listed stays refused: no other spelling of the path is taken for another route."""
    await callers.reload(url=outlit.url, api_key=callers.secret, tools=("outlit_search",))
    for base in BASES:
        reply = await get(callers, f"{base}{path}", "POST", b'{"tool":"outlit_query"}')
        assert (reply.status, reply.json["code"]) in {(400, "path_refused"), (403, "tool_not_allowed")}
    assert outlit.requests == []


async def test_where_tools_are_listed_a_call_of_one_has_no_query(outlit: Outlit, callers: Callers) -> None:
    """Whoever reads queries and bodies alike could find another tool in it."""
    body, path = b'{"tool":"outlit_search"}', f"{BASES[0]}/tools/call"
    assert (await get(callers, f"{path}?tool=outlit_query", "POST", body)).status == 200
    await callers.reload(url=outlit.url, api_key=callers.secret, tools=("outlit_search",))
    reply = await get(callers, f"{path}?tool=outlit_query", "POST", body)
    assert (reply.status, reply.json["code"]) == (403, "tool_not_allowed")
    assert (await get(callers, path, "POST", body)).status == 200


PASSING = [
    "/integrations",
    "/integrations?connectedOnly=true",
    "/integrations?x=/../y&z=%2e%2e%2f&w=a;b=c",
    "/integrations?",
    "/integrations/slack/sync-status",
    "/integrations/a.b_c~d-e",
    "/integrations/Slack%20Two",
    "/integrations/caf%C3%A9",
    "/integrations/x:y@z,1",
    "/integrations/...",
    "/integrations/.well-known",
    "/v2/other.json",
    "/internal/integrations",
    "/id/1",
]


@pytest.mark.parametrize("path", PASSING)
async def test_a_plain_path_passes_as_it_is_spelled(outlit: Outlit, callers: Callers, path: str) -> None:
    for base in BASES:
        assert (await get(callers, f"{base}{path}")).status == 200
    assert [request.target.removesuffix("?") for request in outlit.requests] == [
        f"/api{path}".removesuffix("?")
    ] * 2


async def test_a_target_in_absolute_form_is_no_other_server(outlit: Outlit, callers: Callers) -> None:
    for target in ("http://evil.example/platform/api/integrations", "http://localhost/api/integrations"):
        assert (await get(callers, target)).status == 404
    assert outlit.requests == []


async def test_a_path_of_any_length_is_no_trouble(outlit: Outlit, callers: Callers) -> None:
    long = "/platform/api/integrations/" + "a" * 7_000
    assert (await get(callers, long)).status == 200
    assert outlit.requests[0].target == long.removeprefix("/platform")
    requests = outlit.begin()
    assert (await get(callers, long * 3)).status == 400
    for target in (b"/platform/api/integrations/\xff\xfe", b"/platform/api/integrations?\xff=\xfe"):
        assert (await get(callers, target)).status == 400
    assert requests == []
    assert (await get(callers, "/platform/api/integrations")).status == 200


PIECES = st.sampled_from(
    [
        "/",
        "/",
        "/",
        "..",
        ".",
        "%2e",
        "%2f",
        "%5c",
        "%00",
        "%25",
        "\\",
        ";",
        "i",
        "tools",
        "call",
        "a",
        "%41",
        "~",
    ]
)


@settings(max_examples=60)
@given(rest=st.lists(PIECES, min_size=1, max_size=8).map("".join))
@example(rest="integrations/..")
@example(rest="i/v1/pk_1/events")
async def test_what_passes_is_plain_and_what_is_not_plain_goes_nowhere(
    service: Callers, raw_outlit: Outlit, rest: str
) -> None:
    if not service.found or service.found[0].upstream.url != raw_outlit.url:
        await service.begin(url=raw_outlit.url)
    requests = raw_outlit.begin()
    reply = await get(service, f"/platform/api/{rest}")
    if reply.status == 200:
        (request,) = requests
        assert request.target == f"/api/{rest}"
        assert PLAIN.fullmatch(request.target)
        segments = [unquote(segment) for segment in request.target.split("/")[2:]]
        assert segments[0] not in {"", "i"}
        assert not {"", ".", ".."} & {*segments[:-1], segments[-1] or "-"}
        assert not re.search(r"[/\\%\x00]", "".join(segments))
    else:
        assert reply.status in {400, 404, 405}
        assert not requests

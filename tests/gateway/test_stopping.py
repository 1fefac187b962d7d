"""A service that stops: calls under way have its grace, new ones are told that it stops, and none is lost."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from yarl import URL

from proxy.settings import Settings
from tests.gateway.callers import Callers
from tests.gateway.test_refusals import assert_refused
from tests.outlit import Behave, Outlit, Request, after, answer, hangs, running_outlit, says
from tests.sandbox.bodies import client, event
from tests.stack import PATIENCE_S, Reply, running_stack


@asynccontextmanager
async def stopping(
    folder: Path, outlit: Outlit, behave: Behave, **delivery: float
) -> AsyncIterator[tuple[Callers, asyncio.Task[Reply]]]:
    """Callers of a service that was told to stop while a tool's call, which they get, was with Outlit."""
    found: list[Settings] = []
    async with running_stack(folder, lambda: found[0]) as stack:
        callers = Callers(stack, folder, found)
        await callers.begin(url=outlit.url, timeout_s=60.0, delivery=delivery)
        outlit.begin(behave)
        under_way = asyncio.create_task(callers.tool("outlit_schema"))
        await outlit.until_requests(1)
        stack.stop.set()
        yield callers, under_way
        async with asyncio.timeout(PATIENCE_S):
            await stack.serving


async def test_a_call_under_way_is_answered_and_a_new_one_is_told(tmp_path: Path) -> None:
    go = asyncio.Event()
    held, at_once = after(go, says(answer(b'{"tables": []}'))), says(answer())

    async def behave(request: Request, writer: asyncio.StreamWriter) -> None:
        await (held if request.target == "/api/tools/call" else at_once)(request, writer)

    async with (
        running_outlit() as outlit,
        stopping(tmp_path, outlit, behave, grace_s=60.0) as (callers, under_way),
    ):
        let_in = 0
        async with asyncio.timeout(PATIENCE_S):
            while (reply := await callers.ask("GET", "/integrations")).status == 200:
                let_in += 1
        assert_refused(reply, 503, "stopping", retryable=True)
        posted = await callers.stack.post(client(event()))
        assert posted.status == 200, "whose page is left now does not post again"
        assert (await callers.stack.get("/readyz")).status == 503
        go.set()
        reply = await under_way
        assert (reply.status, reply.body) == (200, b'{"tables": []}')
        targets = [request.target for request in outlit.requests if not request.target.endswith("/events")]
        assert targets == ["/api/tools/call"] + ["/api/integrations"] * let_in


async def test_a_call_that_hangs_and_a_post_that_does_not_end_take_no_more_than_the_grace(
    tmp_path: Path,
) -> None:
    grace_s = 6.0
    async with running_outlit() as outlit:
        delivery = {"grace_s": grace_s, "timeout_s": 3.0}
        async with stopping(tmp_path, outlit, hangs, **delivery) as (callers, under_way):
            began_s = asyncio.get_running_loop().time()
            front = URL(callers.stack.front_url)
            _, writer = await asyncio.open_connection(front.host, front.port)
            writer.write(b"POST /api/i/v1/pk_test/events HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n{")
            assert (await under_way).json["code"] == "stopping"
            await callers.stack.serving
            assert asyncio.get_running_loop().time() - began_s < grace_s
            writer.close()


async def test_what_the_grace_does_not_suffice_for_is_told_so(tmp_path: Path) -> None:
    async with (
        running_outlit() as outlit,
        stopping(tmp_path, outlit, hangs, grace_s=0.5) as (_, under_way),
    ):
        reply = await under_way
        assert_refused(reply, 503, "stopping")
        assert "may have been executed" in reply.json["error"]

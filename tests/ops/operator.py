"""What an operator asks of the operations listener, and how tests bring events to where that is found."""

import asyncio
import io
import itertools
import json
from collections.abc import Mapping
from typing import Any

from proxy.sandbox import Fault, What
from tests.sandbox.bodies import client, event
from tests.stack import KEY, OPS_TOKEN, PATIENCE_S, Reply, Stack

_NUMBERS = itertools.count(1)


async def ask(stack: Stack, method: str, path: str, body: Any = None, **query: object) -> Reply:
    """Ask with the token; `body` as it is where it is bytes, else as JSON."""
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    async with stack.http.request(
        method,
        f"{stack.ops_url}{path}",
        params={name: str(value) for name, value in query.items()},
        data=None if body is None else io.BytesIO(raw),
        headers={"Authorization": f"Bearer {OPS_TOKEN}"},
    ) as response:
        return Reply(response.status, response.headers, await response.read())


async def told(stack: Stack, path: str, **query: object) -> Any:
    """The answer to a GET that must succeed."""
    reply = await ask(stack, "GET", path, **query)
    assert reply.status == 200, reply.body
    return reply.json


async def done(stack: Stack, path: str, body: Any = None, **query: object) -> Any:
    """The answer to a POST that must succeed."""
    reply = await ask(stack, "POST", path, body, **query)
    assert reply.status == 200, reply.body
    return reply.json


def fresh(kind: str = "pageview", **fields: Any) -> dict[str, Any]:
    """An event with a uuid that no other has."""
    return event(kind, number=next(_NUMBERS), **fields)


async def books(stack: Stack, **expected: int) -> None:
    """Wait until the books say so."""
    seen: Mapping[str, int] = {}
    try:
        async with asyncio.timeout(PATIENCE_S):
            while any(seen.get(name) != value for name, value in expected.items()):
                seen = await stack.ledger()
    except TimeoutError:
        raise AssertionError(f"the books say {seen}, not {expected}") from None


async def nothing_under_way(stack: Stack) -> None:
    """Wait until every delivery is counted, too: the books are written a moment before."""
    async with asyncio.timeout(PATIENCE_S):
        while (await stack.metrics())("upstream_in_flight"):
            pass


async def die(stack: Stack, *events: dict[str, Any], key: str = KEY, **envelope: Any) -> list[str]:
    """Post events that upstream refuses, each for itself, and wait until they are dead; their uuids."""
    before = (await stack.ledger())["dead"]
    stack.fault(
        Fault(what=What.REFUSE_INDICES, indices=tuple(range(len(events))), requests=1, public_key=key)
    )
    reply = await stack.post(client(*events, **envelope), key)
    assert reply.status == 200, reply.body
    await books(stack, dead=before + len(events))
    return [each["uuid"] for each in events]


def outage(stack: Stack) -> None:
    """From now on upstream takes nothing."""
    stack.fault(Fault(what=What.STATUS, status=503))


def recovery(stack: Stack) -> None:
    """Upstream is well again."""
    stack.sandbox.programme.clear()

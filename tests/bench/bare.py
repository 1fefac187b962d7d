"""What the proxy is measured against: aiohttp with nothing around it.

python -m tests.bench.bare handler PORT
python -m tests.bench.bare client PORT EVENTS IN_FLIGHT
"""

import asyncio
import sys
import time
from itertools import cycle, islice

import aiohttp
from aiohttp import web

from proxy.bench.visits import PATH, Visits

_MAX_BODY_BYTES = 10_000_000
_READY_EVENTS = 50_000


async def handle(request: web.Request) -> web.Response:
    await request.read()
    return web.json_response({"success": True, "processed": 1})


def handler(port: int) -> None:
    """Read each body and nothing else."""
    app = web.Application(client_max_size=_MAX_BODY_BYTES)
    app.router.add_post("/api/i/v1/{key}/events", handle)
    web.run_app(app, host="127.0.0.1", port=port, access_log=None, print=None)


async def client(port: int, events: int, in_flight: int) -> None:
    """Post ready-made bodies, so many at a time, and read the answers; for ever."""
    visits = Visits(time.time() * 1000, events=events, posts=1)
    ready = cycle(list(islice(visits.posts(), _READY_EVENTS // events)))
    url = f"http://127.0.0.1:{port}{PATH}"
    connector = aiohttp.TCPConnector(limit=in_flight)
    async with aiohttp.ClientSession(connector=connector) as session, asyncio.TaskGroup() as tasks:

        async def post() -> None:
            for made in ready:
                async with session.post(url, data=made.body, headers=made.headers) as answer:
                    await answer.read()

        for _ in range(in_flight):
            tasks.create_task(post())


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["handler", port]:
            handler(int(port))
        case ["client", *numbers]:
            asyncio.run(client(*map(int, numbers)))
        case _:
            sys.exit(__doc__)

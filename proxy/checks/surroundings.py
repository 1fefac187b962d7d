"""What the machine must give: two addresses to listen on, file descriptors, and a whole installation."""

import asyncio
import errno
import json

import aiohttp

from proxy.checklist import Checked, error, ok, warning
from proxy.service import cannot_listen, descriptors, too_few_descriptors, unsafe_parser
from proxy.settings import ListenAddress, Settings

_ASK_S = 2.0
"""How long whoever holds an address may take to say who it is."""


def parser() -> Checked:
    """Whether requests are read by the parser in C."""
    name = "http parser"
    if problem := unsafe_parser():
        return error(name, problem)
    return ok(name, f"aiohttp {aiohttp.__version__} reads requests with its parser in C")


async def listener(setting: str, address: ListenAddress) -> Checked:
    """Whether an address can be listened on. It is bound and let go; nobody is ever let in."""
    try:
        server = await asyncio.get_running_loop().create_server(
            asyncio.Protocol, address.host or None, address.port, start_serving=False
        )
    except OSError as problem:
        if problem.errno == errno.EADDRINUSE and (holder := await _holder(address)):
            return warning(
                setting,
                f"{address} is taken by {holder}, which runs: a second one needs another address",
            )
        return error(setting, cannot_listen(setting, address, problem).removeprefix(f"{setting}: "))
    server.close()
    await server.wait_closed()
    return ok(setting, f"{address} can be listened on")


def open_files(settings: Settings) -> Checked:
    """Whether the system gives as many descriptors as connections are allowed."""
    name = "open files"
    problem = too_few_descriptors(settings)
    if problem is not None:
        return warning(name, problem)
    return ok(name, f"{descriptors(settings)} can be opened: enough for front.max_connections")


async def _holder(address: ListenAddress) -> str | None:
    """Which proxy of ours has an address; None where it is something else, or does not answer."""
    host = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}.get(address.host, address.host)  # noqa: S104  # compared, not bound
    url = f"http://{ListenAddress(host, address.port)}/status"
    try:
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=_ASK_S)) as session,
            session.get(url, allow_redirects=False) as answer,
        ):
            said = json.loads(await answer.read())
    except (aiohttp.ClientError, OSError, ValueError):
        return None
    match said:
        case {"version": str(version), "ledger": _}:
            return f"outlit-proxy {version}"
        case {"success": False, "processed": 0, "code": "not_found"}:  # what the front says of any other path
            return "an outlit-proxy"
        case _:
            return None

"""What the probes are told.

*Live*: the event loop answers; a task of the process's that dies ends it, so nothing else needs asking.
*Started*: everything is built and listens. *Ready*: an append would succeed now. Upstream being down makes
nothing unready: that is what the proxy is for.
"""

import asyncio
from dataclasses import dataclass

from proxy.buffer import Buffer, BufferFault

_CHECK_S = 2.0


@dataclass(slots=True)
class Health:
    """The process's own state; changed by the service alone."""

    started: bool = False
    stopping: bool = False


async def checks(health: Health, buffer: Buffer) -> dict[str, str]:
    """Each condition of being ready, by name: "ok", or what is wrong."""
    return {
        "started": "ok" if health.started else "not yet",
        "running": "stopping" if health.stopping else "ok",
        "buffer": await _buffer_check(buffer),
    }


async def _buffer_check(buffer: Buffer) -> str:
    try:
        async with asyncio.timeout(_CHECK_S):
            await buffer.check()
    except TimeoutError:
        return f"no answer within {_CHECK_S:g} s"
    except BufferFault as error:
        return str(error)
    return "ok"

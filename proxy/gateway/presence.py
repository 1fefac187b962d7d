"""Whether a call is still worth its place: its caller waits, and the process goes on."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Final, TypeVar

from aiohttp import web

_LOOK_S: Final = 0.5
_HEARD_OUT_S: Final = 5.0
"""So long what was asked for somebody who has left goes on: what Outlit says of a plan is worth knowing."""

T = TypeVar("T")


class CallerLeft(Exception):
    """Nobody waits for the answer any more."""


class Stopped(Exception):
    """The process ends, and cannot wait for the answer."""


async def while_waited_for(
    request: web.Request,
    work: Coroutine[Any, Any, T],
    *,
    is_worth_hearing: Callable[[], bool],
    is_over: Callable[[], bool],
) -> T:
    """What `work` returns; it is cancelled when its caller has left, or all is over.

    Where it `is_worth_hearing` it goes on for some time after its caller has left. Raises CallerLeft or
    Stopped where it was cancelled.
    """
    task = asyncio.ensure_future(work)
    try:
        while not task.done():
            await asyncio.wait((task,), timeout=_LOOK_S)
            if request.transport is None and not task.done():
                if is_worth_hearing():
                    await asyncio.wait((task,), timeout=_HEARD_OUT_S)
                if not task.done():
                    raise CallerLeft
            if is_over() and not task.done():
                raise Stopped
        return task.result()
    finally:
        task.cancel()
        await asyncio.wait((task,))

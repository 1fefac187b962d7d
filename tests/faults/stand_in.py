"""The stand-in for Outlit without its start: each is forked from a process that has imported it already.

Importing it takes as long as many a test here lasts, and none is about it.
"""

import asyncio
import multiprocessing
import os
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path

from proxy import sandbox
from tests.programs import START_S, Sandbox

_forking = multiprocessing.get_context("forkserver")
_forking.set_forkserver_preload([sandbox.__name__])


@contextmanager
def running_sandbox(folder: Path) -> Iterator[Sandbox]:
    """One as `outlit-proxy sandbox` makes it, in a process of its own that has seen nothing yet."""
    ours, its = _forking.Pipe()
    process = _forking.Process(target=_stand_in, args=(its, folder / "sandbox.log"), name="sandbox")
    process.start()
    its.close()
    with ours:
        try:
            assert ours.poll(START_S), "the sandbox does not start"
            yield Sandbox(ours.recv())
        finally:
            process.kill()
            process.join()


def _stand_in(asker: Connection, log_file: Path) -> None:
    with log_file.open("ab") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    asyncio.run(_serve(asker))


async def _serve(asker: Connection) -> None:
    """Tell `asker` the address, and go on until there is no asker any more."""
    served, is_alone = sandbox.Sandbox(), asyncio.Event()
    await served.start()
    asker.send(served.url)
    asyncio.get_running_loop().add_reader(asker.fileno(), is_alone.set)
    await is_alone.wait()

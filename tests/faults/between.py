"""What stands on the wire between a proxy and its Redis, and does to the answers what the test says.

It knows which answer belongs to which question, so it can swallow the answer to an append: Redis has done
what it was asked, and nobody hears of it.
"""

import asyncio
import hashlib
import threading
from collections import deque
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from proxy.buffer.redis import scripts

SCRIPTS = ("append", "claim", "settle", "pull_back", "reserve_letters")
_CHUNK_BYTES = 65_536
_REFUSAL = ord("-")


@dataclass(frozen=True, slots=True)
class Treatment:
    """What becomes of one answer."""

    delay_s: float = 0.0
    is_swallowed: bool = False
    """It never comes, nor does anything behind it, as where a network goes silent. Questions still arrive."""
    is_cut: bool = False
    """The connection ends in its stead."""


PASSED = Treatment()
SWALLOWED = Treatment(is_swallowed=True)
CUT = Treatment(is_cut=True)


def untouched(_what: str) -> Treatment:
    """Let every answer pass."""
    return PASSED


def always(_what: str) -> bool:
    """Let every question arrive."""
    return True


@dataclass(slots=True)
class Between:
    """One that listens on `port`. The rest is set by the test's thread, at any time."""

    port: int
    to_port: int
    """Where Redis is. Connections that are open stay where they lead."""
    treat: Callable[[str], Treatment] = untouched
    """Called for each answer with what was asked: a script's name, or a command in upper case.

    Not for a refusal, which is always passed on: nothing was done.
    """
    arrives: Callable[[str], bool] = always
    """Called for each question before Redis has it; False: neither it nor what follows it ever arrives."""
    lag_s: float | None = None
    """All that is sent arrives so much later, unread: for what is no dialogue, as between two Redis."""
    is_lost: bool = False
    """What is under way never arrives, and the connections end: the machine behind it is gone."""
    asked: list[str] = field(default_factory=list)
    """All that was asked so far."""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            up_reader, up_writer = await asyncio.open_connection("127.0.0.1", self.to_port)
        except (OSError, asyncio.CancelledError):
            writer.transport.abort()
            return
        pending = deque[str]()
        ways: list[Coroutine[Any, Any, None]]
        if self.lag_s is None:
            ways = [
                self._questions(reader, up_writer, pending),
                self._answers(up_reader, writer, pending),
            ]
        else:
            ways = [self._late(reader, up_writer), self._late(up_reader, writer)]
        tasks = [asyncio.ensure_future(way) for way in ways]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:  # also at the end of it all, which cancels this
            for task in tasks:
                task.cancel()
            for each in (writer, up_writer):
                each.transport.abort()
        for result in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(result, Exception) and not isinstance(result, OSError):
                raise result

    async def _questions(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, pending: deque[str]
    ) -> None:
        unread = bytearray()
        while data := await reader.read(_CHUNK_BYTES):
            unread += data
            start = 0
            while (end := _end_of_reply(unread, start)) is not None:
                what = _what(bytes(unread[start:end]))
                self.asked.append(what)
                if not self.arrives(what):
                    return
                pending.append(what)
                writer.write(unread[start:end])
                start = end
            del unread[:start]
            await writer.drain()

    async def _answers(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, pending: deque[str]
    ) -> None:
        unread = bytearray()
        is_silent = False
        while data := await reader.read(_CHUNK_BYTES):
            if is_silent:
                continue
            unread += data
            start = 0
            while not is_silent and (end := _end_of_reply(unread, start)) is not None:
                what, is_refusal = pending.popleft(), unread[start] == _REFUSAL
                treatment = PASSED if is_refusal else self.treat(what)
                if treatment.delay_s:
                    await asyncio.sleep(treatment.delay_s)
                if treatment.is_cut:
                    return
                is_silent = treatment.is_swallowed
                if not is_silent:
                    writer.write(unread[start:end])
                start = end
            del unread[:start]
            await writer.drain()

    async def _late(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        loop = asyncio.get_running_loop()
        queue: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()

        async def arrive() -> None:
            while True:
                at, data = await queue.get()
                await asyncio.sleep(max(0.0, at - loop.time()))
                if self.is_lost:
                    return
                writer.write(data)

        arriving = asyncio.ensure_future(arrive())
        try:
            while not self.is_lost and not arriving.done() and (data := await reader.read(_CHUNK_BYTES)):
                queue.put_nowait((loop.time() + (self.lag_s or 0.0), data))
        finally:
            arriving.cancel()


@contextmanager
def between(to_port: int, *, lag_s: float | None = None) -> Iterator[Between]:
    """Stand before the Redis that listens, or will listen, on `to_port` of this machine."""
    ready = threading.Event()
    made: list[Between] = []
    ending: list[Callable[[], object]] = []

    async def run() -> None:
        end = asyncio.Event()
        loop = asyncio.get_running_loop()
        ending.append(lambda: loop.call_soon_threadsafe(end.set))
        connections = set[asyncio.Task[None]]()

        def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.ensure_future(made[0].serve(reader, writer))
            connections.add(task)
            task.add_done_callback(connections.discard)

        server = await asyncio.start_server(connected, "127.0.0.1", 0)
        made.append(Between(server.sockets[0].getsockname()[1], to_port, lag_s=lag_s))
        ready.set()
        await end.wait()
        server.close()
        for task in list(connections):
            task.cancel()
        await asyncio.gather(*connections, return_exceptions=True)

    thread = threading.Thread(target=lambda: asyncio.run(run()), name="between")
    thread.start()
    ready.wait()
    try:
        yield made[0]
    finally:
        with suppress(RuntimeError):
            ending[0]()
        thread.join()


def _what(question: bytes) -> str:
    """A script's name, or the command."""
    parts = question.split(b"\r\n")
    command = parts[2].decode().upper()
    if command == "EVALSHA":
        return _names_of_scripts().get(parts[4].decode(), command)
    if command == "EVAL":
        length = int(parts[3][1:])
        text = question[question.index(parts[3]) + len(parts[3]) + 2 :][:length]
        sha = hashlib.sha1(text, usedforsecurity=False).hexdigest()
        return _names_of_scripts().get(sha, command)
    return command


_names: dict[str, str] = {}


def _names_of_scripts() -> dict[str, str]:
    if not _names:
        _names.update({scripts.load(name).sha: name for name in SCRIPTS})
    return _names


def _end_of_reply(data: bytearray, start: int) -> int | None:
    """Where the reply (or the question, an array) that begins at `start` ends; None: it is not all there."""
    left = 1  # replies to be read before this one is whole
    at = start
    while left:
        end = data.find(b"\r\n", at)
        if end < 0:
            return None
        kind, rest = data[at : at + 1], data[at + 1 : end]
        at, left = end + 2, left - 1
        match kind:
            case b"$" | b"=" | b"!":
                if int(rest) >= 0:
                    at += int(rest) + 2
            case b"*" | b"~" | b">":
                left += max(0, int(rest))
            case b"%":
                left += 2 * int(rest)
            case b"|":
                left += 2 * int(rest) + 1
            case _:
                pass
        if at > len(data):
            return None
    return at

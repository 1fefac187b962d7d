"""SIGTERM: under load, twice, during the start."""

import asyncio
import shutil
import signal
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.faults.connections import Connection, Fate, request_bytes
from tests.faults.installation import on_each_engine
from tests.faults.load import Client, Post, clients, post_again, under_load
from tests.faults.promises import assert_promises_kept
from tests.faults.tracing import Fault, started_with
from tests.programs import Proxy, Sandbox, http, wait_for

GRACE_S = 10.0


class Request(NamedTuple):
    """One request of the load's. Sent: wholly, or (of the slow) its headers."""

    fate: Fate
    sent_at: float


@dataclass(slots=True)
class Callers:
    """Clients that post until nobody listens, each with connections in its own manner."""

    url: str
    signalled_at: float | None = None  # by the test's thread
    requests: list[Request] = field(default_factory=list)

    def fates(self) -> tuple[Counter[Fate], Counter[Fate]]:
        """Of the requests that were sent before the signal, and after it."""
        before, after = Counter[Fate](), Counter[Fate]()
        for request in self.requests:
            assert self.signalled_at is not None
            (before if request.sent_at < self.signalled_at else after)[request.fate] += 1
        return before, after

    async def fresh(self, client: Client) -> None:
        """A connection for each request."""
        while (connection := await Connection.to(self.url)) is not None:
            await self._exchange(connection, [client])
            connection.close()

    async def kept(self, client: Client, *, at_once: int = 1) -> None:
        """One connection as long as it lasts; `at_once` requests are sent before the first is answered."""
        while (connection := await Connection.to(self.url)) is not None:
            while await self._exchange(connection, [client] * at_once):
                pass
            connection.close()

    async def slow(self, client: Client) -> None:
        """The second request is half sent when the signal comes, and the rest follows."""
        connection = await Connection.to(self.url)
        assert connection is not None
        await self._exchange(connection, [client])
        post = client.next_post()
        client.unanswered.append(post)
        request = request_bytes(post)
        half = len(request) - len(post.body) // 2
        sent_at = await connection.send(request[:half])
        while self.signalled_at is None:  # noqa: ASYNC110  # another thread says it
            await asyncio.sleep(0.005)
        await asyncio.sleep(0.2)  # the stop is well under way
        await connection.send(request[half:])
        await self._note(connection, client, post, sent_at)
        connection.close()

    async def _exchange(self, connection: Connection, posting: Sequence[Client]) -> bool:
        """Whether all were answered, so that the connection may go on."""
        posts = [client.next_post() for client in posting]
        for client, post in zip(posting, posts, strict=True):
            client.unanswered.append(post)
        sent_at = await connection.send(b"".join(map(request_bytes, posts)))
        fates = [
            await self._note(connection, client, post, sent_at)
            for client, post in zip(posting, posts, strict=True)
        ]
        return not connection.is_ending and all(fate is Fate.ANSWERED for fate in fates)

    async def _note(self, connection: Connection, client: Client, post: Post, sent_at: float) -> Fate:
        fate = await connection.fate()
        self.requests.append(Request(fate, sent_at))
        if fate is Fate.ANSWERED:
            client.note_kept(post)
        return fate


@contextmanager
def _calling(proxy: Proxy, posting: Sequence[Client]) -> Iterator[Callers]:
    callers = Callers(proxy.url)
    errors: list[BaseException] = []

    async def call() -> None:
        async with asyncio.TaskGroup() as tasks:
            for place, client in enumerate(posting):
                match place % 8:
                    case 0 | 1 | 2:
                        tasks.create_task(callers.fresh(client))
                    case 3 | 4:
                        tasks.create_task(callers.kept(client))
                    case 5 | 6:
                        tasks.create_task(callers.kept(client, at_once=3))
                    case _:
                        tasks.create_task(callers.slow(client))

    def run() -> None:
        try:
            asyncio.run(call())
        except BaseException as error:  # noqa: BLE001  # it is raised below
            errors.append(error)

    thread = threading.Thread(target=run, name="callers")
    thread.start()
    try:
        yield callers
    finally:
        thread.join()
    for error in errors:
        raise error


def _stop_under_load(proxy: Proxy, sandbox: Sandbox, *, times: int, seed: int) -> None:
    posting = clients(browsers=18, servers=6, seed=seed)
    for _ in range(times):
        proxy.start()
        post_again(proxy, posting)
        before = proxy.ledger()["accepted"]
        with _calling(proxy, posting) as callers:
            proxy.wait_until_accepted(before + 200)
            callers.signalled_at = time.monotonic()
            proxy.program.process.send_signal(signal.SIGTERM)
            assert proxy.program.wait_until_ended(GRACE_S) == 0, proxy.program.log
        before_it, after_it = callers.fates()
        assert before_it.keys() == {Fate.ANSWERED}, before_it
        # It still reads while it closes, and what it reads it answers.
        assert after_it.keys() <= {Fate.ANSWERED, Fate.UNREAD}, after_it
    proxy.start()
    post_again(proxy, posting)
    proxy.wait_until_empty(60)
    twice = assert_promises_kept(proxy, sandbox, posting)
    assert not twice, "what was in flight was not finished"
    assert proxy.program.stop() == 0, proxy.program.log


@pytest.mark.parametrize(("engine", "times"), [("sqlite", 5), ("redis", 2)], indirect=["engine"])
def test_sigterm_under_load_answers_every_request_that_was_read(
    install_proxy: Callable[..., Proxy], sandbox: Sandbox, times: int
) -> None:
    _stop_under_load(install_proxy(DELIVERY_GRACE=f"{GRACE_S:.0f}s"), sandbox, times=times, seed=20)


@pytest.mark.long
@pytest.mark.timeout(1200)
@on_each_engine
def test_fifty_sigterms_under_load_answer_every_request_that_was_read(
    install_proxy: Callable[..., Proxy], sandbox: Sandbox
) -> None:
    _stop_under_load(install_proxy(DELIVERY_GRACE=f"{GRACE_S:.0f}s"), sandbox, times=50, seed=21)


def test_a_second_sigterm_ends_it_at_once_and_loses_nothing(proxy: Proxy, sandbox: Sandbox) -> None:
    posting = clients(browsers=4, servers=2, seed=22)
    with under_load(proxy, posting):
        proxy.wait_until_accepted(50)
    with _half_sent(proxy, posting[0]):  # for which the first waits
        proxy.program.process.send_signal(signal.SIGTERM)
        wait_for("the stop to begin", lambda: b"stopping" in http(f"{proxy.ops_url}/readyz")[1])
        proxy.program.process.send_signal(signal.SIGTERM)
        assert proxy.program.wait_until_ended(5) == -signal.SIGTERM
    proxy.start()
    post_again(proxy, posting)
    proxy.wait_until_empty()
    assert_promises_kept(proxy, sandbox, posting)


def test_sigterm_during_the_first_start_ends_it_quietly(
    install_proxy: Callable[..., Proxy], tmp_path: Path
) -> None:
    """In the midst of loading, taking the lock, making the database, opening the listener."""
    for call, when in [("openat", 300), ("fsync", 1), ("pwrite64", 10), ("listen", 1)]:
        proxy = install_proxy()
        proxy.program.start(under=started_with(Fault(call, "signal=SIGTERM", when), tmp_path))
        # Before it has put itself in order it ends as any other program would.
        assert proxy.program.wait_until_ended() in {0, -signal.SIGTERM}, call
        assert "Traceback" not in proxy.program.log
        proxy.start()
        assert proxy.program.stop() == 0, call
        shutil.rmtree(proxy.database.parent)


@contextmanager
def _half_sent(proxy: Proxy, client: Client) -> Iterator[None]:
    """While the `with` lasts the proxy has read the headers of a request, and half of its body."""
    connection = socket.create_connection(("127.0.0.1", int(proxy.url.rpartition(":")[2])))
    post = client.next_post()
    client.unanswered.append(post)
    request = request_bytes(post)
    with connection:
        connection.sendall(request[:-10])
        wait_for("the proxy to have read it", lambda: proxy.metrics()["outlit_proxy_pending_body_bytes"] > 0)
        yield

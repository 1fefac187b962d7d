"""A load that costs little, so that on a core of its own it is the server that is the limit.

Ready-made requests on sockets of its own, one epoll, and of an answer no more than its status line and its
length: the answers of one server to posts of one shape are all alike. A post takes a fifth of what it takes
the cheapest handler to answer it; the tables print both processes' share of their cores.

An answer other than 200, or none within `PATIENCE_S`, ends the program: figures of refusals are no figures.
"""

import random
import select
import socket
import sys
import time
from array import array
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Self

from tests.bench.machine import Shares

CONNECTIONS = 256
PATIENCE_S = 30.0

_READ_BYTES = 65_536
_SEND_BUFFER_BYTES = 200_000  # a post of 100 events leaves in one call
_ENOUGH_EVENTS = 512


class Latencies:
    """From when a post was sent, or was due, to its whole answer, in seconds."""

    def __init__(self) -> None:
        self.all = array("d")

    def ms(self, share: float) -> float:
        """The latency in ms that this share of the posts did not exceed; 1: the longest."""
        ordered = sorted(self.all)
        return 1000 * ordered[min(len(ordered) - 1, int(share * len(ordered)))]


class Load:
    """Connections to one server. A context manager."""

    def __init__(self, port: int, connections: int = CONNECTIONS) -> None:
        self._epoll = select.epoll()
        self._sockets: dict[int, socket.socket] = {}
        for _ in range(connections):
            connection = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER_BYTES)
            connection.setblocking(False)
            self._sockets[connection.fileno()] = connection
            self._epoll.register(connection, select.EPOLLIN)
        self._receive = {number: connection.recv for number, connection in self._sockets.items()}
        self._send_on = {number: connection.send for number, connection in self._sockets.items()}
        self._unsent: dict[int, memoryview] = {}
        self._begun: dict[int, bytes] = {}  # answers of which a part has come
        self._answer_bytes = 0  # of a whole one, once one has been read
        self.answers = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._epoll.close()
        for connection in self._sockets.values():
            connection.close()

    # -- loads -----------------------------------------------------------------------------------------

    def all_of(self, requests: Iterable[bytes]) -> None:
        """Post all of these, as fast as they are answered."""
        source = iter(requests)
        waiting = 0
        for number, request in zip(self._sockets, source, strict=False):
            self._send(number, request)
            waiting += 1
        while waiting:
            for number in self._answered(PATIENCE_S):
                if (request := next(source, b"")) != b"":
                    self._send(number, request)
                else:
                    waiting -= 1

    def full(
        self, requests: Iterator[bytes], seconds: float, shares: Shares, *, warm_up_s: float = 0.3
    ) -> tuple[float, Latencies]:
        """The next post on a connection as soon as the last is answered: posts per second, and latencies.

        Ends early where there are no more requests.
        """
        clock = time.perf_counter
        sent = {}
        latencies = Latencies()
        took = latencies.all.append
        for number in self._sockets:
            self._send(number, next(requests))
            sent[number] = clock()
        begins_at = clock() + warm_up_s
        measuring = exhausted = False
        now = clock()
        while not exhausted and (not measuring or now < begins_at + seconds):
            for number in self._answered(PATIENCE_S):
                now = clock()
                took(now - sent.pop(number))
                request = next(requests, None)
                if request is None:
                    exhausted = True
                    break
                self._send(number, request)
                sent[number] = now
            if not measuring and now >= begins_at:
                measuring, begins_at = True, now
                del latencies.all[:]
                shares.begin()
        shares.end()
        self._finish(sent)
        if not measuring:
            sys.exit("the requests were used up before the server was warm: make more of them ready")
        return len(latencies.all) / (now - begins_at), latencies

    def paced(self, requests: Iterator[bytes], per_s: float, seconds: float) -> Latencies:
        """Posts at random moments, `per_s` on average, whether the last is answered or not.

        A latency counts from the moment at which the post was due, also where no connection was free then.
        """
        clock, rng = time.perf_counter, random.Random(1)
        latencies = Latencies()
        idle, due = deque(self._sockets), deque[float]()
        was_due: dict[int, float] = {}
        now = next_at = clock()
        ends_at = now + seconds
        while next_at < ends_at or due or was_due:
            while next_at <= now and next_at < ends_at:
                due.append(next_at)
                next_at += rng.expovariate(per_s)
            while due and idle:
                number = idle.popleft()
                was_due[number] = due.popleft()
                self._send(number, next(requests))
            until = next_at if next_at < ends_at else now + PATIENCE_S
            # A select, for an epoll waits for whole milliseconds.
            if select.select([self._epoll], [], [], max(0.0, until - clock()))[0]:
                for number in self._answered(0):
                    latencies.all.append(clock() - was_due.pop(number))
                    idle.append(number)
            elif not next_at < ends_at:
                sys.exit(f"{len(was_due)} posts were not answered within {PATIENCE_S:.0f} s")
            now = clock()
        return latencies

    # -- the connections -------------------------------------------------------------------------------

    def _finish(self, waiting: dict[int, float]) -> None:
        while waiting:
            for number in self._answered(PATIENCE_S):
                waiting.pop(number, None)

    def _send(self, number: int, request: bytes) -> None:
        sent = self._send_on[number](request)
        if sent < len(request):
            self._unsent[number] = memoryview(request)[sent:]
            self._epoll.modify(number, select.EPOLLIN | select.EPOLLOUT)

    def _send_more(self, number: int) -> None:
        rest = self._unsent[number]
        sent = self._send_on[number](rest)
        if sent < len(rest):
            self._unsent[number] = rest[sent:]
        else:
            del self._unsent[number]
            self._epoll.modify(number, select.EPOLLIN)

    def _answered(self, within_s: float) -> Iterator[int]:
        """The connections on which a whole answer has come."""
        ready = self._epoll.poll(within_s, _ENOUGH_EVENTS)
        if not ready and within_s:
            sys.exit(f"no answer within {within_s:.0f} s")
        for number, what in ready:
            if what & select.EPOLLOUT:
                self._send_more(number)
            if what & ~select.EPOLLOUT:
                answer = self._receive[number](_READ_BYTES)
                if (
                    len(answer) == self._answer_bytes and answer.startswith(b"HTTP/1.1 200 ")
                ) or self._is_whole(number, answer):
                    self.answers += 1
                    yield number

    def _is_whole(self, number: int, part: bytes) -> bool:
        """The slow way: for the first answer, for one that comes in parts, for one that is not like it."""
        if not part:
            sys.exit("the server closed a connection")
        answer = self._begun.pop(number, b"") + part
        head, found, body = answer.partition(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0] or 0)
        if not found or len(body) < length:
            self._begun[number] = answer
            return False
        if not answer.startswith(b"HTTP/1.1 200 ") or len(body) > length:
            sys.exit(f"an answer other than 200: {answer[:2_000].decode(errors='replace')}")
        self._answer_bytes = len(answer)
        return True

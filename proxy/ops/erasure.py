"""A person's right to be forgotten: takes out all that is held of them, and their dead letters.

What is being delivered at the moment cannot be taken back, so its queue is tried again until it is not, at
most for as long as a lease lasts. What was delivered before is upstream's to erase; of it the buffer
remembers the uuids of batches alone. Neither answer, log nor metric says who it was.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import structlog
from aiohttp import web

from proxy.buffer import Buffer, BufferFault, Erased
from proxy.lanes import Lane, QueueId
from proxy.ledger import Dropped
from proxy.metrics import Metrics
from proxy.ops.answers import BadParameter, as_json
from proxy.ops.parameters import Parameters, read_key, read_visitor
from proxy.wire import jsontext
from proxy.wire.limits import PublicKey
from proxy.wire.person import Person

_AGAIN_S = 0.1
"""Least time between two tries; where the last one took longer, so long: others need the buffer too."""

_MARGIN_S = 1.0
_REMEMBERED_LANES = 1_000


@dataclass(frozen=True, slots=True)
class _Whom:
    """Whose events: all of one queue, or those that name one person."""

    by: str
    is_theirs: Callable[[bytes, bytes], bool]
    key: PublicKey | None
    queue: QueueId | None = None


class Erasure:
    """Answers `/erase`. `lease_s`: the longest that a delivery keeps a queue; a reload may change it."""

    def __init__(self, buffer: Buffer, metrics: Metrics, lease_s: float) -> None:
        self._buffer = buffer
        self._metrics = metrics
        self.lease_s = lease_s
        self._log = structlog.get_logger("ops")

    async def erase(self, request: web.Request) -> web.Response:
        """Erase one person, who is named in the body: a query stands in the logs of whatever lies between."""
        Parameters.of_query(request).refuse_others()
        whom = _whom(await request.read())
        erased, fault = await self._erase(whom)
        self._log.info("erased", by=whom.by, held=erased.held, dead=erased.dead, leased=erased.leased)
        answer = {"erased": {"held": erased.held, "dead": erased.dead}, "leased": erased.leased}
        if fault is not None:
            error = f"{fault}; what is counted here is erased: ask again for the rest"
            return as_json({"error": error, **answer}, status=503)
        return as_json(answer)

    async def _erase(self, whom: _Whom) -> tuple[Erased, BufferFault | None]:
        """Erase until nothing of theirs is being delivered, or patience or the buffer ends it."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self.lease_s + _MARGIN_S
        total = Erased()
        while True:
            began = loop.time()
            try:
                erased = await self._buffer.erase(whom.is_theirs, key=whom.key, queue=whom.queue)
            except BufferFault as fault:
                return total, fault
            self._metrics.dropped[Dropped.ERASED].inc(erased.held + erased.dead)
            total = Erased(total.held + erased.held, total.dead + erased.dead, erased.leased)
            if not erased.leased or loop.time() >= deadline:
                return total, None
            await asyncio.sleep(max(_AGAIN_S, loop.time() - began))


def _whom(body: bytes) -> _Whom:
    given = Parameters(_texts(body))
    key = given.take("key", read_key)
    queue, email, user_id = (
        given.take("visitor", read_visitor),
        given.take("email", _read_email),
        given.take("user_id", _read_user_id),
    )
    given.refuse_others()
    match queue, email, user_id:
        case _, None, None if queue is not None:
            return _Whom("visitor", lambda _header, _text: True, key, queue)
        case None, Person(), None:
            return _Whom("email", _names(email), key)
        case None, None, Person():
            return _Whom("user_id", _names(user_id), key)
    raise BadParameter("visitor, email, user_id", "give one of them, and only one")


def _texts(body: bytes) -> dict[str, str]:
    example = 'write {"visitor": "…"}, {"email": "…"} or {"user_id": "…"}'
    try:
        given = jsontext.decode(body)
    except jsontext.Unreadable as error:
        raise BadParameter("body", f"no JSON ({error}): {example}") from None
    if not isinstance(given, dict):
        raise BadParameter("body", f"no JSON object: {example}")
    for name, value in given.items():
        if not isinstance(value, str):
            raise BadParameter(name, "not a string: write it in quotes")
    return given


def _read_email(text: str) -> Person:
    if "@" not in text:
        raise ValueError("not an e-mail address: write it as ann@example.com")
    return Person("email", text)


def _read_user_id(text: str) -> Person:
    if not text:
        raise ValueError("is empty: write the id that the site gives its user")
    return Person("userId", text)


def _names(person: Person) -> Callable[[bytes, bytes], bool]:
    """Whether an event under a lane's header is this person's. May be called on any thread."""

    @lru_cache(_REMEMBERED_LANES)
    def are_all(header: bytes) -> bool:
        return person.is_named_by_envelope(Lane.of_header(header).envelope)

    return lambda header, text: are_all(header) or person.is_named_by_event(text)

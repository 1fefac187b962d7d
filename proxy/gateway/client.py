"""One call of the Platform API, asked again only where nothing was executed or Outlit says so.

A POST may send a notification or count towards a plan. So what may have run is never sent twice by us: not
after a time-out, a reset or a 500.
"""

import zlib
from dataclasses import dataclass, field
from math import inf
from typing import Final

import aiohttp
from multidict import CIMultiDict, CIMultiDictProxy
from prometheus_client import Counter
from tenacity import (
    AsyncRetrying,
    RetryCallState,
    retry_if_result,
    stop_after_attempt,
    stop_before_delay,
    wait_random_exponential,
)
from yarl import URL

from proxy.log import forget_variables
from proxy.outgoing import CONNECT_ATTEMPTS, Outgoing, Sent, in_words, left_s
from proxy.wire.answers import printable
from proxy.wire.platform import Problem, read_problem
from proxy.wire.rate_headers import read_rate_headers

MAX_READ_BYTES: Final = 65_536
"""Of a body that is read to its end, or understood: a longer one is passed on while it comes."""

_CONNECT_S: Final = 10.0
_LONGEST_WAIT_S: Final = 5.0
"""Whoever is told to come again later than that is told so, instead of being kept waiting."""


@dataclass(frozen=True, slots=True)
class Ask:
    """A call as it goes out. `is_safe`: it changes nothing, so it may be repeated whatever became of it.

    `is_of_validity`: a 503 to it means "try again".
    """

    method: str
    url: str
    headers: CIMultiDict[str]
    body: bytes = field(repr=False)
    is_safe: bool
    is_of_validity: bool


@dataclass(frozen=True, slots=True)
class Got:
    """An answer has begun. `start`: what is read of its body; `is_whole`: that is all of it.

    `is_decoded`: without the encoding that it came in.
    """

    response: aiohttp.ClientResponse
    start: bytes = b""
    is_whole: bool = False
    is_decoded: bool = False
    problem: Problem = field(default_factory=Problem)

    @property
    def status(self) -> int:
        return self.response.status

    def close(self) -> None:
        """Give it up, and its connection with what is unread."""
        self.response.close()


@dataclass(frozen=True, slots=True)
class Lost:
    """No answer came. `may_have_run`: it was sent, or may have been. `is_late`: the time was over."""

    may_have_run: bool
    is_late: bool
    error: str


class PlatformClient(Outgoing):
    """The way to one Platform API. An async context manager; may be asked from many tasks at once."""

    def __init__(self, requests: Counter) -> None:
        super().__init__()
        self._requests = requests

    async def ask(self, ask: Ask, deadline_s: float, timeout_s: float) -> Got | Lost:
        """Ask until `deadline_s` of the event loop, which is `timeout_s` after the call came.

        The answer's body may be read until then; close or release it.
        """
        attempts = AsyncRetrying(
            stop=stop_after_attempt(CONNECT_ATTEMPTS) | stop_before_delay(left_s(deadline_s)),
            wait=_wait_s,
            retry=retry_if_result(lambda outcome: _may_repeat(ask, outcome)),
            before_sleep=_give_up,
            retry_error_callback=_outcome,
        )
        return await attempts(self._attempt, ask, deadline_s, timeout_s)

    async def _attempt(self, ask: Ask, deadline_s: float, timeout_s: float) -> Got | Lost:
        within_s = left_s(deadline_s)
        sent = Sent()
        self._requests.inc()
        try:
            response = await self.session.request(
                ask.method,
                URL(ask.url, encoded=True),
                data=ask.body or None,
                headers=ask.headers,
                allow_redirects=False,
                timeout=aiohttp.ClientTimeout(total=within_s, connect=min(_CONNECT_S, within_s)),
                trace_request_ctx=sent,
            )
            return await _begun(response, ask)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            forget_variables(error)  # the head of the request, and in it the key, is one of them
            is_late = isinstance(error, TimeoutError) and sent.anything
            return Lost(sent.anything, is_late, _in_words(error, sent, timeout_s))
        except Exception as error:
            forget_variables(error)
            raise


async def _begun(response: aiohttp.ClientResponse, ask: Ask) -> Got:
    """An answer that has begun. What is short is read to its end: where it breaks off that can still be told.

    Raises what the client library does.
    """
    if response.status not in range(200, 600):
        response.close()
        raise aiohttp.ClientPayloadError("an answer with a status that is none")
    is_to_be_understood = response.status >= 400 or ask.is_of_validity
    is_short = response.content_length is not None and response.content_length <= MAX_READ_BYTES
    if not is_to_be_understood and not is_short:
        return Got(response)
    body = bytearray()
    try:
        while len(body) < MAX_READ_BYTES and (
            part := await response.content.read(MAX_READ_BYTES - len(body))
        ):
            body += part
    except BaseException:  # a cancelled one, too, has a connection that is good for nothing
        response.close()
        raise
    if not response.content.at_eof():
        return Got(response, bytes(body))
    response.release()
    read = _decoded(bytes(body), response.headers) if is_to_be_understood else None
    if read is None:
        return Got(response, bytes(body), is_whole=True)
    problem = read_problem(response.status, read) if response.status >= 400 else Problem()
    return Got(response, read, is_whole=True, is_decoded=True, problem=problem)


def _decoded(body: bytes, headers: CIMultiDictProxy[str]) -> bytes | None:
    """A body without the encoding that it came in; None where that is not known, or leads too far."""
    match ",".join(headers.getall("Content-Encoding", ["identity"])).strip().lower():
        case "identity":
            return body
        case "gzip" | "x-gzip":
            unpacking = zlib.decompressobj(zlib.MAX_WBITS | 16)
            try:
                read = unpacking.decompress(body, MAX_READ_BYTES)
            except zlib.error:
                return None
            is_all = unpacking.eof and not (unpacking.unconsumed_tail or unpacking.unused_data)
            return read if is_all else None
    return None


def _in_words(error: Exception, sent: Sent, timeout_s: float) -> str:
    """What went wrong, without a word of what came: what is no HTTP may quote the request, and its key."""
    is_ours = isinstance(error, TimeoutError | OSError)
    what = in_words(error, "answer" if sent.anything else "connection", timeout_s) if is_ours else ""
    return printable(f"{type(error).__name__}{what}")


def _may_repeat(ask: Ask, outcome: Got | Lost) -> bool:
    if isinstance(outcome, Lost):
        return not outcome.may_have_run or (ask.is_safe and not outcome.is_late)
    told_s = _told_to_wait_s(outcome)
    if told_s is not None and told_s > _LONGEST_WAIT_S:
        return False
    if outcome.problem.is_retryable and outcome.problem.refusal is None:
        return True
    return (ask.is_safe and outcome.status >= 500) or (ask.is_of_validity and outcome.status == 503)


def _told_to_wait_s(outcome: Got | Lost) -> float | None:
    if isinstance(outcome, Lost) or "Retry-After" not in outcome.response.headers:
        return None
    told_s = read_rate_headers(outcome.response.headers).retry_after_s
    return inf if told_s is None else told_s  # what cannot be read is no leave to come at once


def _outcome(state: RetryCallState) -> Got | Lost:
    outcome = state.outcome.result() if state.outcome else None
    if not isinstance(outcome, Got | Lost):
        raise TypeError("an attempt without an outcome")
    return outcome


def _wait_s(state: RetryCallState) -> float:
    random_s = wait_random_exponential(multiplier=0.1, max=2.0)(state)
    return max(random_s, _told_to_wait_s(_outcome(state)) or 0.0)


def _give_up(state: RetryCallState) -> None:
    outcome = _outcome(state)
    if isinstance(outcome, Got):
        outcome.close()

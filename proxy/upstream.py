"""One POST to the Ingest API: a batch out, an answer back, or none and the word whether it may have arrived.

Nothing here decides what an answer means. It follows no redirect (a POST would become a GET to wherever it
points), reads a bounded part of the answer, and waits no longer than it is told; `outgoing` has the rest.
"""

import asyncio

import aiohttp
from tenacity import (
    AsyncRetrying,
    retry_if_result,
    stop_after_attempt,
    stop_before_delay,
    wait_random_exponential,
)
from yarl import URL

from proxy.lanes import Lane
from proxy.outgoing import CONNECT_ATTEMPTS, Outgoing, Sent, in_words, left_s
from proxy.wire.answers import Answer, NoAnswer, printable
from proxy.wire.limits import PublicKey
from proxy.wire.rate_headers import read_rate_headers
from proxy.wire.request import events_path

MAX_ANSWER_BYTES = 262_144
"""How much of an answer is read: a long error for each of 100 events; the rest is not waited for."""


class Upstream(Outgoing):
    """The way to one Ingest API. An async context manager; `post` may be called from many tasks at once.

    It has as many connections as there are calls of `post` at one time.
    """

    def __init__(self, url: str, *, timeout_s: float) -> None:
        super().__init__()
        self.go_by(url, timeout_s=timeout_s)

    def go_by(self, url: str, *, timeout_s: float) -> None:
        """Send there from the next request on, and wait so long for its answer."""
        self._url = url.rstrip("/")
        self._timeout_s = timeout_s

    async def post(self, key: PublicKey, lane: Lane, body: bytes) -> Answer | NoAnswer:
        """Send one batch. Within the time-out a connection is tried again as long as nothing was sent."""
        deadline = asyncio.get_running_loop().time() + self._timeout_s
        url = URL(self._url + events_path(key), encoded=True)
        of_client = {
            "X-Forwarded-For": lane.client_ip,
            "User-Agent": lane.user_agent,
            "Origin": lane.origin,
        }
        headers = {name: value for name, value in of_client.items() if value is not None}
        headers["Content-Type"] = "application/json"
        attempts = AsyncRetrying(
            stop=stop_after_attempt(CONNECT_ATTEMPTS) | stop_before_delay(self._timeout_s),
            wait=wait_random_exponential(multiplier=0.05, max=0.5),
            retry=retry_if_result(_was_not_sent),
            retry_error_callback=lambda state: state.outcome.result() if state.outcome else None,
        )
        return await attempts(self._attempt, url, headers, body, deadline)

    async def _attempt(
        self, url: URL, headers: dict[str, str], body: bytes, deadline: float
    ) -> Answer | NoAnswer:
        sent = Sent()
        try:
            response = await self.session.post(
                url,
                data=body,
                headers=headers,
                allow_redirects=False,
                timeout=aiohttp.ClientTimeout(total=left_s(deadline)),
                trace_request_ctx=sent,
            )
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            what = in_words(error, "answer" if sent.anything else "connection", self._timeout_s)
            return NoAnswer(may_have_arrived=sent.anything, error=printable(f"{type(error).__name__}{what}"))
        return await _read(response)


async def _read(response: aiohttp.ClientResponse) -> Answer:
    """The answer, with as much of its body as comes in time and fits."""
    body = bytearray()
    try:
        while len(body) < MAX_ANSWER_BYTES and (
            part := await response.content.read(MAX_ANSWER_BYTES - len(body))
        ):
            body += part
    except (aiohttp.ClientError, TimeoutError, OSError):
        response.close()  # the status came, and it decides
    else:
        if response.content.at_eof():
            response.release()
        else:
            response.close()
    return Answer(response.status, read_rate_headers(response.headers), bytes(body))


def _was_not_sent(outcome: Answer | NoAnswer) -> bool:
    return isinstance(outcome, NoAnswer) and not outcome.may_have_arrived

"""The proxy's own figures, read from its operations listener as any operator's tools would."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import aiohttp
from prometheus_client.parser import text_string_to_metric_families

_PREFIX = "outlit_proxy_"


@dataclass(frozen=True, slots=True)
class Figures:
    """What the metrics say at one moment. The first five are of the buffer, the others of the process."""

    accepted: int = 0
    held: int = 0
    delivered: int = 0
    dead: int = 0
    dropped: int = 0
    difference: int = 0
    """Books less a recount of the data, as of the last recount."""
    oldest_held_at: float | None = None
    """Unix seconds at which the oldest held event was accepted; None where nothing is held."""
    requests: int = 0
    """Upstream requests, answered or not."""
    sent: int = 0
    """Events in these, each time that they were sent."""
    rate_limited: int = 0
    """Upstream requests that were answered 429."""
    ambiguous: int = 0
    duplicate: int = 0
    """Events that clients sent again and that were recognised."""

    @property
    def balance(self) -> bool:
        """Whether every accepted event is in exactly one place, by the books and by the recount."""
        return self.difference == 0 and self.accepted == (
            self.held + self.delivered + self.dead + self.dropped
        )


class Watch:
    """Asks one proxy's operations listener."""

    def __init__(self, session: aiohttp.ClientSession, ops_url: str, token: str) -> None:
        """`token`: the operator's."""
        self._session = session
        self._url = ops_url
        self._headers = {"Authorization": f"Bearer {token}"}

    async def figures(self, *, recount: bool = False) -> Figures:
        """The figures of now; `recount`: their difference, too. Raises aiohttp.ClientError."""
        if recount:
            async with self._session.get(f"{self._url}/ledger", headers=self._headers) as response:
                response.raise_for_status()
        async with self._session.get(f"{self._url}/metrics") as response:
            response.raise_for_status()
            return read_figures(await response.text())

    async def retry(self, key: str) -> None:
        """As the operator: have what waits for a later try sent now. Raises aiohttp.ClientError."""
        async with self._session.post(f"{self._url}/keys/{key}/retry", headers=self._headers) as response:
            if response.status != 404:  # nothing was ever accepted
                response.raise_for_status()


def read_figures(exposition: str) -> Figures:
    """Read what ``/metrics`` answers. Raises aiohttp.ClientError: the buffer does not answer."""
    samples = _samples(exposition)
    if not samples[f"{_PREFIX}buffer_up", frozenset()]:
        raise aiohttp.ClientError("the buffer does not answer")

    def value(name: str, **labels: str) -> int:
        return int(samples[_PREFIX + name, frozenset(labels.items())])

    oldest_held_at = samples[f"{_PREFIX}oldest_held_timestamp_seconds", frozenset()]
    return Figures(
        accepted=value("ledger_events", outcome="accepted"),
        held=value("ledger_events", outcome="held"),
        delivered=value("ledger_events", outcome="delivered"),
        dead=value("ledger_events", outcome="dead"),
        dropped=value("ledger_events", outcome="dropped"),
        difference=value("ledger_difference"),
        oldest_held_at=oldest_held_at or None,
        requests=value("batch_events_count"),
        sent=value("batch_events_sum"),
        rate_limited=value("upstream_requests_total", verdict="rate_limited"),
        ambiguous=value("deliveries_ambiguous_total"),
        duplicate=value("events_duplicate_total"),
    )


def _samples(exposition: str) -> Mapping[tuple[str, frozenset[Any]], float]:
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(exposition)
        for sample in family.samples
    }

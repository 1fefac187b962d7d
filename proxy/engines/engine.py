"""What an engine is to the rest of the process, whichever it is."""

from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

from proxy.buffer import Buffer, Quota, Terms
from proxy.buffer.bench import Bench
from proxy.checklist import Checked
from proxy.lanes import QueueId
from proxy.metrics import Metrics
from proxy.settings import Settings

_NO_LIMIT_PER_S: Final = 1_000_000.0
"""Requests per second a key that no benchmark reaches."""


class StartRefused(Exception):
    """The process cannot start; the message is one line with the remedy."""


@dataclass(frozen=True, slots=True)
class Engine:
    """A buffer, and what goes with it.

    `shown`: what it is, for the line at the start. `set_terms`: has all of it go by others. `watch`: to be
    run beside it for ever, None where there is nothing to watch; raises BufferBroken where the process must
    end.
    """

    buffer: Buffer
    shown: Mapping[str, object]
    set_terms: Callable[[Terms], None]
    watch: Callable[[], Coroutine[Any, Any, None]] | None = None

    def go_by(self, settings: Settings) -> None:
        """Take over what of these an open buffer can."""
        self.set_terms(terms_of(settings))


class Kind(Protocol):
    """One engine, of which the settings say where it is. What is raised: see the functions of this room."""

    async def open(self, metrics: Metrics, apart: str) -> Engine:
        """See `open_engine`."""

    async def open_bench(self) -> Bench:
        """See `open_bench`."""

    async def clean_bench(self, queues: Iterable[QueueId]) -> None:
        """See `clean_bench`."""

    def look(self, *, offline: bool) -> AsyncIterator[Checked]:
        """See `look_at_buffer`."""


def terms_of(settings: Settings) -> Terms:
    """What a buffer goes by."""
    quota = settings.front.unknown_key_quota
    return Terms(
        linger_s=settings.delivery.linger_s,
        lease_s=settings.delivery.lease_s,
        limit_per_s=settings.delivery.limit_per_s,
        rate_share=settings.delivery.rate_share,
        dedup_window_s=settings.buffer.dedup_window_s,
        max_bytes=settings.buffer.max_bytes,
        max_bytes_per_key=settings.buffer.max_bytes_per_key,
        dead_max_bytes=settings.dead.max_bytes,
        # Where keys are listed no other comes as far as the buffer.
        quota=None if settings.front.public_keys else Quota(quota.queues, quota.keys),
    )


def bench_terms_of(settings: Settings) -> Terms:
    """What a benchmark's buffer goes by: all is due at once, nothing is limited."""
    return Terms(
        linger_s=0.0,
        lease_s=settings.delivery.lease_s,
        limit_per_s=_NO_LIMIT_PER_S,
        dedup_window_s=settings.buffer.dedup_window_s,
        max_bytes=settings.buffer.max_bytes,
        max_bytes_per_key=settings.buffer.max_bytes_per_key,
        dead_max_bytes=settings.dead.max_bytes,
    )

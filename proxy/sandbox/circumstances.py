"""What is so for a while, whatever is sent: another limit, another client on the same key, a longer way."""

from dataclasses import dataclass

from proxy.sandbox.bounds import OrderError, bounded, check_latency, check_times
from proxy.sandbox.window import LIMIT_MAX, Kind, Limit


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitChange:
    """Another limit. Where several are on, each changes what the one before it left."""

    limit: int | None = None
    """Requests a second and public key; None leaves them."""
    window: Kind | None = None
    """None leaves the kind, and with it what was counted; of another kind nothing is taken yet."""
    burst: int | None = None
    """Of a bucket. Without a `window` it is that of the bucket there is, and means nothing elsewhere."""
    after_s: float = 0.0
    seconds: float | None = None

    def __post_init__(self) -> None:
        """Refuse what could not be counted by."""
        check_times(self.after_s, self.seconds)
        if self.limit is None and self.window is None and self.burst is None:
            raise OrderError("Another limit needs limit, window or burst")
        Limit(1 if self.limit is None else self.limit, self.window or Kind.BUCKET, self.burst)

    def of(self, limit: Limit) -> Limit:
        """Give what it makes of `limit`."""
        window = self.window or limit.window
        burst = self.burst if self.burst is not None else limit.burst
        return Limit(self.limit or limit.limit, window, burst if window is Kind.BUCKET else None)

    def document(self) -> dict[str, object]:
        """Give it as the JSON object that `orders` reads."""
        return _document(self, "limit", "window", "burst", "after_s", "seconds")


@dataclass(frozen=True, slots=True, kw_only=True)
class Stranger:
    """Somebody else who uses a key, and with it the key's budget: `per_s` requests a second, by chance."""

    public_key: str
    per_s: float
    """On average; they come as independent callers' do (a Poisson process), up to `LIMIT_MAX`."""
    after_s: float = 0.0
    seconds: float | None = None

    def __post_init__(self) -> None:
        """Refuse who could not be."""
        check_times(self.after_s, self.seconds)
        bounded("per_s", self.per_s, 0.001, LIMIT_MAX)

    def document(self) -> dict[str, object]:
        """Give it as the JSON object that `orders` reads."""
        return _document(self, "public_key", "per_s", "after_s", "seconds")


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """The way here and back of every request: half of it lies before the request counts, half behind."""

    latency_ms: int = 0
    latency_to_ms: int | None = None
    """With it, the latency is by chance, evenly from `latency_ms` to this."""
    after_s: float = 0.0
    seconds: float | None = None

    def __post_init__(self) -> None:
        """Refuse what could not be waited for."""
        check_times(self.after_s, self.seconds)
        check_latency(self.latency_ms, self.latency_to_ms)

    def document(self) -> dict[str, object]:
        """Give it as the JSON object that `orders` reads."""
        return _document(self, "latency_ms", "latency_to_ms", "after_s", "seconds")


def _document(of: object, *names: str) -> dict[str, object]:
    values = ((name, getattr(of, name)) for name in names)
    return {name: value for name, value in values if value not in (None, 0.0)}

"""What may be ordered of the sandbox, in figures, and the error that says what may not."""

from typing import Final

MOST: Final = 1_000_000_000
"""Of seconds and of requests: for ever, in all but name."""
LATENCY_MS_MAX: Final = 600_000
"""Ten minutes, beyond any sender's time-out."""


class OrderError(ValueError):
    """An order that cannot be. The message says what is wrong with it and what could stand there."""


def bounded(name: str, value: float | None, least: float, most: float) -> None:
    """Raise OrderError unless `value` is None or in these bounds."""
    # Written so that NaN, too, is out of bounds.
    if value is not None and not least <= value <= most:
        raise OrderError(f"{name} must be {least} to {most}, not {value}")


def check_times(after_s: float, seconds: float | None) -> None:
    """Raise OrderError unless something can begin and last like that."""
    bounded("after_s", after_s, 0, MOST)
    bounded("seconds", seconds, 0, MOST)


def check_latency(latency_ms: int, latency_to_ms: int | None) -> None:
    """Raise OrderError unless these are the ends of a range, or one latency without a second end."""
    bounded("latency_ms", latency_ms, 0, LATENCY_MS_MAX)
    bounded("latency_to_ms", latency_to_ms, latency_ms, LATENCY_MS_MAX)

"""How the last reload of the settings went: the words of ``GET /status``."""

from dataclasses import dataclass


@dataclass(slots=True)
class Reloads:
    """What became of SIGHUP. Written by the service alone; read by whoever shows it.

    `at_ms`: Unix milliseconds of the last reload, good or not; None before the first.
    `error`: what was wrong with the settings, one line each; they were left as they were.
    `needs_restart`: names of settings that have another value now than the one in use, which only a restart
    changes; a good reload leaves them as they were.
    """

    at_ms: int | None = None
    successful: bool = True
    error: str | None = None
    needs_restart: tuple[str, ...] = ()

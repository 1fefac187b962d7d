"""How the operations listener says things: JSON, times as text, and errors with their remedy."""

from collections.abc import Mapping
from datetime import UTC, datetime

import orjson
from aiohttp import web


class BadParameter(Exception):
    """A parameter of a request cannot be used: answered with 400. `why` also says what to write instead."""

    def __init__(self, name: str, why: str) -> None:
        super().__init__(f"{name}: {why}")
        self.name = name


def as_json(value: object, *, status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
    """An answer of one JSON value in one line. Texts that are JSON already stand in it as `as_it_is`."""
    return web.Response(
        status=status, body=orjson.dumps(value) + b"\n", content_type="application/json", headers=headers
    )


def as_it_is(text: bytes) -> orjson.Fragment:
    """A JSON text of the buffer's as part of an answer: to read and write it again could change it."""
    return orjson.Fragment(text)


def moment(ms: int) -> str:
    """Unix milliseconds as ISO 8601 in UTC: 2026-07-01T12:00:00.000Z."""
    at = datetime.fromtimestamp(ms / 1000, UTC)
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")

"""Header values that a fault sends, true or not: texts with places for moments and for chance.

| place | stands for |
|---|---|
| ``{now}`` | Unix seconds of the sandbox's clock, rounded down |
| ``{now_ms}`` | the same moment in milliseconds |
| ``{date}`` | the same moment as an HTTP date |
| ``{now+60}``, ``{date-60}`` | the moment so many seconds later, or earlier |
| ``{now~3}`` | a moment by chance, from 3 s earlier to 3 s later, in whole seconds |
| ``{random:0..100}`` | an integer by chance, both ends included |
"""

import re
from collections.abc import Iterator
from email.utils import formatdate
from random import Random
from typing import Final

from proxy.sandbox.bounds import OrderError

PLACES: Final = "{now}, {now_ms}, {date}, each with +n, -n or ~n seconds, and {random:a..b}"

_PLACE: Final = re.compile(
    r"\{(?:(now|now_ms|date)(?:([+~-])([0-9]{1,10}))?|random:(-?[0-9]{1,15})\.\.(-?[0-9]{1,15}))\}", re.ASCII
)
_NAME: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_VALUE: Final = re.compile(r"[\x20-\x7e]{0,8000}")
_OF_THE_CONNECTION: Final = frozenset({"connection", "content-length", "transfer-encoding"})
_LATEST_S: Final = 253_402_300_799.0
"""The end of the year 9999: later moments have no HTTP date."""


def check(name: str, value: str | None) -> None:
    """Raise OrderError unless a fault can send such a header."""
    wrong = next(_wrong(name, value), None)
    if wrong is not None:
        raise OrderError(wrong)


def told(value: str, now: float, chance: Random) -> str:
    """Give `value` with its places filled as of `now`, Unix seconds."""

    def filled(place: re.Match[str]) -> str:
        moment, way, seconds, least, most = place.groups()
        if moment is None:
            return str(chance.randint(int(least), int(most)))
        away_s = int(seconds or 0)
        if way == "~":
            away_s = chance.randint(-away_s, away_s)
        at = now - away_s if way == "-" else now + away_s
        match moment:
            case "now":
                return str(int(at))
            case "now_ms":
                return str(int(at * 1000))
            case _:
                return formatdate(min(max(0.0, at), _LATEST_S), usegmt=True)

    return _PLACE.sub(filled, value)


def _wrong(name: str, value: str | None) -> Iterator[str]:
    if _NAME.fullmatch(name) is None:
        yield f"headers: {name!a} is no header's name"
    if name.lower() in _OF_THE_CONNECTION:
        yield f"headers: {name} belongs to the connection; half_answer, endless and the resets spoil that"
    if value is None:
        return
    if _VALUE.fullmatch(value) is None:
        yield f"headers: {name} must be at most 8000 printable ASCII characters"
    # A misspelt place would be sent as it stands.
    if re.search(r"[{}]", _PLACE.sub("", value)):
        yield f"headers: {name} holds an unknown place: known are {PLACES}"
    for place in _PLACE.finditer(value):
        if place[4] is not None and int(place[4]) > int(place[5]):
            yield f"headers: {name}: {place[0]} has no integers in it"

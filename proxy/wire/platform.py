"""What the Platform API says when a call fails, and which tool a call is for; its answers as values.

Failures come in several shapes: ``{"error"}`` mostly; ``{"code", "message", "retryable", "requestId"}`` from
newer gateways, which some routes put into their ``error``; and of plans and billing ``{"error", "code",
"plan", "feature", "resetAt"}``. What is not of them says nothing.
"""

import re
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from proxy.wire import jsontext
from proxy.wire.answers import printable

PLAN_STATUSES: Final = (402, 403, 429)

_NAME_CHARS = 64
_API_KEY = re.compile(r"(?<![a-z0-9])ok_[!-~]+", re.IGNORECASE)
"""Whoever answers in Outlit's place has just been given a key, and may repeat it; names are shown to all."""
_TOOL_CHARS = 256
_ODD_BYTES = 65_536
"""Of what only a slow reader understands: everything else waits while it reads."""

_LATEST_MS = 10**14
"""In the year 5138: beyond it a number is no time of day in milliseconds."""


@dataclass(frozen=True, slots=True)
class Kept:
    """An answer as it came, to be given again."""

    status: int
    content_type: str
    body: bytes


@dataclass(frozen=True, slots=True)
class PlanRefusal:
    """A plan does not allow a call, and none like it until `reset_at_ms` (Unix milliseconds; None: unknown).

    `code`, `feature`, `plan` are Outlit's words, shortened, printable, and without an API key.
    """

    code: str
    feature: str | None
    plan: str | None
    reset_at_ms: int | None


@dataclass(frozen=True, slots=True)
class Problem:
    """What a failure says. `is_retryable`: that the same call may succeed at once."""

    is_retryable: bool = False
    refusal: PlanRefusal | None = None


def read_problem(status: int, body: bytes) -> Problem:
    """Read the body of an answer that is no success."""
    try:
        read = jsontext.decode(body)
    except jsontext.Unreadable:
        return Problem()
    if not isinstance(read, dict):
        return Problem()
    if isinstance(inner := read.get("error"), dict):
        read = {**inner, **read}
    return Problem(read.get("retryable") is True, _refusal(read) if status in PLAN_STATUSES else None)


def _refusal(read: dict[str, Any]) -> PlanRefusal | None:
    code = _name(read.get("code"))
    if code is None or "resetAt" not in read:
        return None
    return PlanRefusal(code, _name(read.get("feature")), _name(read.get("plan")), _moment(read["resetAt"]))


def _name(value: object) -> str | None:
    if not isinstance(value, str) or not value:
        return None
    return printable(_API_KEY.sub("ok_…", value)[:_NAME_CHARS])


def _moment(value: object) -> int | None:
    # Some write whole numbers as floats. NaN and infinities are no whole numbers.
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        return None
    return value if 0 < value < _LATEST_MS else None


def read_validity(body: bytes) -> bool | None:
    """What an answer of ``validate-api-key`` says of the key; None: nothing."""
    try:
        read = jsontext.decode(body)
    except jsontext.Unreadable:
        return None
    valid = read.get("valid") if isinstance(read, dict) else None
    return valid if isinstance(valid, bool) else None


class NoTool(ValueError):
    """The body of a tool call does not say which tool it is for. The message says why."""


def read_tool_call(body: bytes) -> tuple[str, bytes]:
    """The tool that a body of ``tools/call`` names, and the call written anew. Raises NoTool.

    What is sent is what was read: of a doubled name, or of bytes that some take for another encoding, others
    could read another tool than we did, and an allow-list would be none. Values stay as they were written.
    """
    parts = _parts(body)
    if any(name != "tool" and name.casefold() == "tool" for name in parts):
        raise NoTool('the body has a name that some would take for "tool"')
    try:
        tool = msgspec.json.decode(parts["tool"], type=str)
    except (KeyError, msgspec.DecodeError):
        raise NoTool('the body has no "tool", a text') from None
    if not 0 < len(tool) <= _TOOL_CHARS:
        raise NoTool(f'"tool" must have 1 to {_TOOL_CHARS} characters')
    try:
        return tool, msgspec.json.encode(parts)
    except UnicodeEncodeError:
        raise NoTool("the body has a name with half a character") from None


_PARTS = msgspec.json.Decoder(dict[str, msgspec.Raw])


def _parts(body: bytes) -> dict[str, msgspec.Raw]:
    """What an object holds, each value as it is written."""
    try:
        body.decode("utf-8")
        return _PARTS.decode(body)
    except UnicodeDecodeError:
        raise NoTool("the body is not UTF-8") from None
    except RecursionError:
        raise NoTool("the body nests too deeply") from None
    except msgspec.DecodeError:
        if len(body) > _ODD_BYTES or jsontext.nests_too_deep(body):
            raise NoTool(
                "the body is no JSON, or too large for what is odd in it (half a character)"
            ) from None
    # It may be odd and valid all the same: half a surrogate pair, say.
    try:
        read = jsontext.decode(body)
        if not isinstance(read, dict):
            raise NoTool('the body is no JSON object: {"tool": "outlit_…", "input": {…}}')
        return {name: msgspec.Raw(jsontext.encode(value)) for name, value in read.items()}
    except (jsontext.Unreadable, jsontext.Unkeepable):
        raise NoTool("the body is no JSON that can be read") from None

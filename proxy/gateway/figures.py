"""What operators see of the gateway: values, without a key or anything that was made of one."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Refused:
    """Something that a plan has used up, as Outlit said it; such calls are answered here until it is back.

    `code`, `feature`, `plan`: Outlit's words, short and printable. `is_own`: of `gateway.api_key`, not of a
    caller's own key. `since_ms`, `until_ms`: Unix milliseconds. `answered`: calls that were answered here.
    """

    code: str
    feature: str | None
    plan: str | None
    status: int
    is_own: bool
    since_ms: int
    until_ms: int
    answered: int


@dataclass(frozen=True, slots=True)
class Figures:
    """How the gateway is.

    `api_key`: whether there is one for callers with ops.token. `tools`: those that may be called; "*": all.
    `key_refused_at_ms`: when Outlit refused `gateway.api_key`, Unix milliseconds; None if it has taken it
    since, or never refused it.
    """

    api_key: bool
    tools: tuple[str, ...]
    in_flight: int
    refused: tuple[Refused, ...]
    key_refused_at_ms: int | None

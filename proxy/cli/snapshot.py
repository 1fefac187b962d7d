"""What `GET /status` says, as lines for people: what is wrong first, then the figures, then the keys.

`status` prints them, `top` draws them again and again. Pure: the proxy's own times are all that is looked at.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from proxy.cli.client import printable
from proxy.cli.keys import key_lines
from proxy.cli.terminal import counted, lasting, sized

Tone = Literal["plain", "strong", "warning", "error", "dim"]

Snapshot = Mapping[str, Any]
"""The JSON of `/status`. What the buffer would have to tell is null where it did not answer."""

_UNKNOWN = "unknown: the buffer does not answer"
_OWN_KEY = "gateway.api_key"


@dataclass(frozen=True, slots=True)
class Line:
    """One line. Of `flows` every word is to be read, however narrow the terminal; others may be cut."""

    text: str
    tone: Tone = "plain"
    flows: bool = False


def is_well(snapshot: Snapshot) -> bool:
    """Ready, and nothing of severity error."""
    return snapshot["ready"] and all(trouble["severity"] != "error" for trouble in snapshot["troubles"])


def lines_of(snapshot: Snapshot) -> Iterator[Line]:
    """All of it."""
    yield _head(snapshot)
    if snapshot["troubles"]:
        yield Line("")
        for trouble in snapshot["troubles"]:
            yield from _trouble(trouble)
    yield Line("")
    for name, text, tone in _figures(snapshot):
        yield Line(f"{name:<9} {text}", tone)
    if snapshot["keys"]:
        yield Line("")
        yield from _keys(snapshot)


def summary(snapshot: Snapshot) -> str:
    """One line of the most important, for a log or a pipe."""
    rates, ledger = snapshot["rates"], snapshot["ledger"]
    said = [
        snapshot["at"],
        "ready" if snapshot["ready"] else "NOT READY",
        f"accepted {rates['accepted_per_s']:.1f}/s",
        f"delivered {rates['delivered_per_s']:.1f}/s",
        f"{rates['events_per_request']:.1f} events/request",
        f"budget {_share(rates['budget_used'])}",
    ]
    if ledger is not None:
        said += [
            f"held {ledger['held']:,}",
            f"oldest {_ago(snapshot, snapshot['oldest_held_at'])}",
            f"to drain {lasting(snapshot['time_to_drain_s'])}",
            f"dead {ledger['dead']:,}",
        ]
    gateway = snapshot.get("gateway")  # a proxy that is older has none
    if gateway is not None and gateway["in_flight"]:
        said.append(f"gateway {gateway['in_flight']} in flight")
    said += [_named(trouble) for trouble in snapshot["troubles"]]
    return printable("  ".join(said))


def _head(snapshot: Snapshot) -> Line:
    up = _ago(snapshot, snapshot["started_at"])
    name = f"outlit-proxy {snapshot['version']}"
    if snapshot["ready"]:
        return Line(printable(f"{name}: ready, up for {up}, {snapshot['at']}"), "strong")
    why = "; ".join(f"{check}: {word}" for check, word in snapshot["checks"].items() if word != "ok")
    return Line(printable(f"{name}: not ready ({why}), up for {up}, {snapshot['at']}"), "error", flows=True)


def _trouble(trouble: Mapping[str, Any]) -> Iterator[Line]:
    tone: Tone = "error" if trouble["severity"] == "error" else "warning"
    said = f"{trouble['severity']}: {_named(trouble)}: {trouble['what']}"
    yield Line(printable(said), tone, flows=True)
    yield Line(printable(f"  {trouble['what_to_do']} (README {trouble['section']})"), flows=True)


def _named(trouble: Mapping[str, Any]) -> str:
    return trouble["name"] if trouble["key"] is None else f"{trouble['name']} {trouble['key']}"


def _figures(snapshot: Snapshot) -> Iterator[tuple[str, str, Tone]]:
    failing = snapshot["rates"]["failed_per_s"] > 0
    dying = any(snapshot["dead"]["by_reason"].values())
    yield "events", _books(snapshot["ledger"]), "plain"
    yield "rates", _rates(snapshot["rates"]), "plain"
    yield "requests", _requests(snapshot["rates"]), "warning" if failing else "plain"
    yield "waiting", _waiting(snapshot), "plain"
    yield "dead", _dead(snapshot["dead"]), "warning" if dying else "plain"
    yield "buffer", _buffer(snapshot["buffer"]), "plain"
    yield "upstream", _upstream(snapshot["upstream"]), "plain"
    if (gateway := snapshot.get("gateway")) is not None and gateway["on"]:  # a proxy that is older has none
        yield "gateway", *_gateway(snapshot, gateway)
    config = snapshot["config"]
    if not config["successful"]:
        yield "settings", printable(f"the last reload failed: {config['error']}"), "error"
    elif config["reloaded_at"] is not None:
        yield "settings", f"reloaded {_ago(snapshot, config['reloaded_at'])} ago", "plain"


def _rates(rates: Mapping[str, float]) -> str:
    return (
        f"accepted {rates['accepted_per_s']:.1f}/s, delivered {rates['delivered_per_s']:.1f}/s, refused"
        f" {rates['rejected_per_s']:.1f}/s: by this process, over {lasting(rates['window_s'])}"
    )


def _requests(rates: Mapping[str, Any]) -> str:
    return (
        f"{rates['requests_per_s']:.1f}/s, {rates['failed_per_s']:.1f}/s of them failed,"
        f" {rates['events_per_request']:.1f} events each; {_share(rates['budget_used'])} of the budget used"
    )


def _upstream(upstream: Mapping[str, Any]) -> str:
    share = "" if upstream["rate_share"] == 1 else f" × {upstream['rate_share']:g}"
    limit = f"{upstream['limit_per_s']:g}{share} requests/s a key"
    return printable(f"{upstream['url']}, {limit}, {upstream['in_flight']} in flight")


def _gateway(snapshot: Snapshot, gateway: Mapping[str, Any]) -> tuple[str, Tone]:
    """Which tools, whose key, and calls under way, a refused key, used-up plans where there are."""
    tools = "all tools" if gateway["tools"] == "all" else counted(len(gateway["tools"]), "tool")
    keys = _OWN_KEY if gateway["api_key"] else "callers' own keys"
    said = [f"on, {tools}, {keys}"]
    if gateway["in_flight"]:
        said.append(f"{counted(gateway['in_flight'], 'call')} in flight")
    tone: Tone = "plain"
    if gateway["refused"]:
        tone = "warning"
        first, *others = gateway["refused"]
        what = f"{first['feature'] or first['code']} used up for another {_ahead(snapshot, first['until'])}"
        key = _OWN_KEY if first["key"] == _OWN_KEY else f"{first['key']} key"
        said.append(f"{what} ({key}, {first['answered']:,} answered here)")
        if others:
            said.append(f"{len(others)} more used up")
    if gateway["key_refused_at"] is not None:
        tone = "error"
        said.append(f"Outlit refuses {_OWN_KEY}, for {_ago(snapshot, gateway['key_refused_at'])}")
    return printable("; ".join(said)), tone


def _books(ledger: Mapping[str, int] | None) -> str:
    if ledger is None:
        return _UNKNOWN
    said = (
        f"accepted {ledger['accepted']:,} = held {ledger['held']:,} + delivered {ledger['delivered']:,}"
        f" + dead {ledger['dead']:,} + dropped {ledger['dropped']:,}"
    )
    return f"{said}, DIFFERENCE {ledger['difference']:,}" if ledger["difference"] else said


def _waiting(snapshot: Snapshot) -> str:
    ledger, queues = snapshot["ledger"], snapshot["buffer"]["queues"]
    if ledger is None:
        return _UNKNOWN
    if not ledger["held"]:
        return "nothing"
    return (
        f"{counted(ledger['held'], 'event')} in {counted(queues, 'queue')}, the oldest for"
        f" {_ago(snapshot, snapshot['oldest_held_at'])}, {lasting(snapshot['time_to_drain_s'])} to drain"
    )


def _dead(dead: Mapping[str, Any]) -> str:
    count = _UNKNOWN if dead["count"] is None else counted(dead["count"], "letter")
    new = [f"{reason} {number:,}" for reason, number in dead["by_reason"].items() if number]
    return f"{count}; since the start {', '.join(new)}: see `dead list`" if new else count


def _buffer(buffer: Mapping[str, Any]) -> str:
    stored = "?" if buffer["stored_bytes"] is None else sized(buffer["stored_bytes"])
    return f"{buffer['engine']}, durability {buffer['durability']}, {stored} of {sized(buffer['max_bytes'])}"


def _keys(snapshot: Snapshot) -> Iterator[Line]:
    keys: Sequence[Mapping[str, Any]] = snapshot["keys"]
    head, *rows = key_lines(keys)
    yield Line(head, "dim")
    for key, row in zip(keys, rows, strict=True):
        yield Line(row, "plain" if key["paused"] is None else "warning")
    if snapshot["keys_left_out"]:
        yield Line(f"and {counted(snapshot['keys_left_out'], 'key')} more: `keys list` has all", "dim")


def _ago(snapshot: Snapshot, at: str | None) -> str:
    """How long ago that was, by the proxy's own clock."""
    if at is None:
        return "-"
    return lasting(max(0.0, -_until_s(snapshot, at)))


def _ahead(snapshot: Snapshot, at: str) -> str:
    """How long it is until then, by the proxy's own clock."""
    return lasting(max(0.0, _until_s(snapshot, at)))


def _until_s(snapshot: Snapshot, at: str) -> float:
    """Seconds from the snapshot to a moment, below 0 where that was before."""
    return (datetime.fromisoformat(at) - datetime.fromisoformat(snapshot["at"])).total_seconds()


def _share(part: float | None) -> str:
    return "-" if part is None else f"{part:.0%}"

"""``outlit-proxy send``: one marked event, followed to its outcome.

It is a `custom` event of a server, and always of the same user, who is called after this command. So what it
leaves in Outlit is one easily recognised profile, however often it is sent; a browser's event would count as
a visit of a new visitor each time.
"""

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import click
import uuid_utils

from proxy.cli.client import Failed, ask, printable, url_of
from proxy.cli.operations import Operations, ops_url_option
from proxy.cli.options import Seconds, config_with_token_option
from proxy.cli.terminal import as_json, counted
from proxy.settings import Settings

EVENT_NAME = "outlit_proxy_send"
USER_ID = "outlit-proxy-send"

_POST_TIMEOUT_S = 15.0
"""The front holds a request for at most 5 s, for its buffer."""

_LOOK_S = 0.2
"""Least time between two looks; ten times as long as a look took where that is more, for to look for an event
that is held means to search all that is."""


@dataclass(frozen=True, slots=True)
class Look:
    """What is known of the event at one moment: the proxy's answer, and the seconds since it was accepted.

    `obstacle`: what its key suffers from, where the event waits; else None.
    """

    known: dict[str, Any]
    after_s: float
    obstacle: str | None = None

    @property
    def fate(self) -> str:
        """Held, delivered, dead, dropped or unknown."""
        return str(self.known["fate"])

    @property
    def is_last(self) -> bool:
        """Whether nothing more becomes of it."""
        return self.fate in ("delivered", "dead", "dropped")

    def in_words(self) -> str:
        """What stands behind the fate."""
        match self.fate:
            case "delivered":
                said = f"after {self.after_s:.1f} s"
            case "dead":
                letter = self.known["dead"][0]
                said = f"{letter['reason']}: {letter['message']}; see `dead show {letter['id']}`"
            case "dropped":
                said = "erased, or its dead letter purged or evicted, meanwhile"
            case "held":
                said = _why_held(self.known["held"][0], self.obstacle)
            case _:
                said = "no event of this uuid; is --ops-url the proxy that the event was sent to?"
        if self.known["ambiguous"]:
            said += " (an answer was lost: Outlit may have got it twice)"
        return printable(said)


@click.command(short_help="Post one marked event and follow it.")
@click.option("--key", required=True, metavar="PK", help="The public key to send it under.")
@click.option("--url", metavar="URL", help="Where the event goes, as a client's apiHost; else front.listen.")
@click.option(
    "--timeout",
    "timeout_s",
    type=Seconds(0.1, 3600),
    default=30,
    show_default=True,
    metavar="SECONDS",
    help="How long it is followed.",
)
@click.option("--json", "in_json", is_flag=True, help="One JSON object at the end, for a script.")
@ops_url_option
@config_with_token_option
def send(
    *, settings: Settings, ops_url: str | None, key: str, url: str | None, timeout_s: float, in_json: bool
) -> None:
    """Post one marked event, and follow it to its outcome. Exits 0 only if it was delivered.

    It is a custom event "outlit_proxy_send" of the user "outlit-proxy-send", delivered like any other.

    \b
    outlit-proxy send --key pk_abc
    outlit-proxy send --key pk_abc --url https://t.example.com --timeout 60
    """  # noqa: D301  # click's mark for "as it stands"
    operations = Operations.of(settings, ops_url)
    front = (url or url_of(settings.front.listen, "front.listen", "--url")).rstrip("/")
    uuid = str(uuid_utils.uuid7())
    _look(operations, key, uuid)  # before anything is sent: whether it can be followed at all
    say = _silent if in_json else click.echo
    started = time.monotonic()
    _post(f"{front}{settings.front.path_prefixes[0]}/{key}/events", uuid)
    accepted = time.monotonic()
    say(f"accepted   by {front} in {1000 * (accepted - started):.0f} ms, as {uuid}")
    last = _followed(_looks(operations, key, uuid, accepted, timeout_s), say)
    if in_json:
        click.echo(as_json({**last.known, "after_s": round(last.after_s, 3)}))
    if last.fate != "delivered":
        within = "" if last.is_last else f" within {timeout_s:g} s"
        raise Failed(f"not delivered{within}: {last.fate}, {last.in_words()}")


def _event(uuid: str, timestamp_ms: int) -> dict[str, object]:
    """The marked event."""
    return {
        "type": "custom",
        "eventName": EVENT_NAME,
        "userId": USER_ID,
        "url": f"server://{USER_ID}",
        "path": "/",
        "timestamp": timestamp_ms,
        "uuid": uuid,
        "properties": {"note": "sent by the command outlit-proxy send, to see whether events arrive"},
    }


def _look(operations: Operations, key: str, uuid: str) -> dict[str, Any]:
    """What the proxy knows of the event now. Raises Failed."""
    known = operations.get(f"/events/{uuid}", {"key": key}, also=404)
    if "fate" not in known:  # something else that answers 404
        raise Failed(f"{operations.url} is not where operations listen: {operations.correction}")
    return known


def _obstacle(operations: Operations, key: str, known: dict[str, Any]) -> str | None:
    """What of the key may be what the event waits for. Raises Failed."""
    if known["fate"] != "held" or known["held"][0]["leased"]:
        return None
    fares = operations.get(f"/keys/{key}")
    if fares["paused"] is not None:
        return f"its key is paused ({fares['paused']})"
    # The event has no Origin, as those of servers have none.
    return "Outlit forbids clients without an Origin" if "" in fares["forbidden_origins"] else None


def _post(url: str, uuid: str) -> None:
    body = {"source": "server", "events": [_event(uuid, time.time_ns() // 1_000_000)]}
    answer = ask(
        url,
        json.dumps(body).encode(),
        headers={"Content-Type": "application/json"},
        timeout_s=_POST_TIMEOUT_S,
    )
    if answer.status != 200:
        said = answer.body.decode(errors="replace")[:500]
        raise Failed(f"not accepted: {url} answered {answer.status}: {said}")


def _looks(operations: Operations, key: str, uuid: str, accepted: float, timeout_s: float) -> Iterator[Look]:
    """Looks at the event until it has its outcome, or time is up; at least one."""
    while True:
        began = time.monotonic()
        known = _look(operations, key, uuid)
        now = time.monotonic()
        seen = Look(known, now - accepted, _obstacle(operations, key, known))
        yield seen
        if seen.is_last or seen.after_s >= timeout_s:
            return
        time.sleep(min(max(_LOOK_S, 10 * (now - began)), timeout_s - seen.after_s))


def _followed(looks: Iterator[Look], say: Callable[[str], None]) -> Look:
    """Say what changes, and give the last look."""
    said = None
    for last in looks:
        held = [(event["attempts"], event["leased"]) for event in last.known["held"][:1]]
        state = (last.fate, held, last.known["ambiguous"], last.obstacle)
        if state != said:
            say(f"{last.fate:<9}  {last.in_words()}")
            said = state
    return last


def _why_held(event: dict[str, Any], obstacle: str | None) -> str:
    if event["leased"]:
        return "is being delivered"
    if obstacle is not None:
        return f"{obstacle}: see `keys list`"
    due = f"due in {event['due_in_s']:.1f} s" if event["due_in_s"] > 0 else "due, and waits for its turn"
    return f"{counted(event['attempts'], 'attempt')} failed, {due}" if event["attempts"] else due


def _silent(_line: str) -> None:
    pass

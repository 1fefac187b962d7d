"""``outlit-proxy keys``: how each public key fares, and the operator's levers on it."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

import click

from proxy.cli.client import printable
from proxy.cli.operations import Operations, operations_options
from proxy.cli.terminal import as_json, counted, lasting, sure, table
from proxy.ledger import Pause
from proxy.ops.pauses import QUEUE_WAITS, WORDS

_FORBIDDEN = "Outlit answers 403 to requests of {}; enable that domain at Outlit, then `keys retry`"

_json_option = click.option("--json", "in_json", is_flag=True, help="One JSON object, for a script.")


@click.group(short_help="Public keys: list, pause, resume, retry.")
def keys() -> None:
    """Public keys: what each holds and how it fares; pause, resume or retry one.

    \b
    outlit-proxy keys list
    outlit-proxy keys pause pk_abc
    """  # noqa: D301  # click's mark for "as it stands"


@keys.command(name="list")
@click.option("--key", metavar="PK", help="This one alone.")
@_json_option
@operations_options
def list_(*, operations: Operations, key: str | None, in_json: bool) -> None:
    """List the keys, and say of those that are paused why, and what to do.

    \b
    outlit-proxy keys list
    outlit-proxy keys list --key pk_abc --json
    """  # noqa: D301  # click's mark for "as it stands"
    page = operations.get("/keys") if key is None else {"keys": [operations.get(_path(key))]}
    if in_json:
        click.echo(as_json(page))
        return
    for line in key_lines(page["keys"]):
        click.echo(line)
    click.echo(counted(len(page["keys"]), "key"))
    for shown in page["keys"]:
        for line in _remarks(shown):
            click.echo(line)


@keys.command()
@click.argument("key", metavar="PK")
@click.option("--yes", is_flag=True, help="Do not ask.")
@_json_option
@operations_options
def pause(*, operations: Operations, key: str, yes: bool, in_json: bool) -> None:
    """Send nothing of a key until it is resumed.

    Its posts are still accepted, up to buffer.max_bytes_per_key. What is in flight is finished. Nothing but
    `resume` ends it, a restart neither.

    \b
    outlit-proxy keys pause pk_abc
    """  # noqa: D301  # click's mark, as above
    sure(f"Send nothing of {key} until it is resumed? Its events stay in the buffer meanwhile.", yes=yes)
    answer = operations.post(f"{_path(key)}/pause")
    if in_json:
        click.echo(as_json(answer))
        return
    held = counted(answer["books"]["held"], "event")
    click.echo(f"{key} is paused, with {held} held: nothing is sent until `keys resume {key}`")


@keys.command()
@click.argument("key", metavar="PK")
@_json_option
@operations_options
def resume(*, operations: Operations, key: str, in_json: bool) -> None:
    """End the pause of a key that `pause` began; it sends again within a second.

    \b
    outlit-proxy keys resume pk_abc
    """  # noqa: D301  # click's mark, as above
    answer = operations.post(f"{_path(key)}/resume")
    if in_json:
        click.echo(as_json(answer))
        return
    click.echo(f"{key} is resumed{_to_go(answer)}")
    for line in _remarks(answer):
        click.echo(line)


@keys.command()
@click.argument("key", metavar="PK")
@_json_option
@operations_options
def retry(*, operations: Operations, key: str, in_json: bool) -> None:
    """Try a key and all its queues at once, without waiting for the end of their back-offs and pauses.

    For when what was wrong at Outlit is mended. Where Outlit had refused the key, or failed, one request goes
    ahead of the others to see. A pause by `pause` stays.

    \b
    outlit-proxy keys retry pk_abc
    """  # noqa: D301  # click's mark, as above
    answer = operations.post(f"{_path(key)}/retry")
    if in_json:
        click.echo(as_json(answer))
        return
    click.echo(f"{key} is retried: {counted(answer['waited'], 'queue')} had waited{_to_go(answer)}")
    if answer["by_operator"]:
        click.echo(f"{key} is paused by `keys pause`: nothing is sent until `keys resume {key}`")
    elif answer["paused"] is not None:
        click.echo(f"{key} was paused ({answer['paused']}): one request goes first, to see")


def _path(key: str) -> str:
    return f"/keys/{quote(key, safe='')}"


def _to_go(shown: dict[str, Any]) -> str:
    held = shown["books"]["held"]
    return f"; {counted(held, 'event')} held, {lasting(shown['time_to_drain_s'])} to drain" if held else ""


def key_lines(shown: Sequence[Mapping[str, Any]]) -> list[str]:
    """A line a key: whether it sends, what it holds, how long that has waited and will take."""
    names = ("key", "state", "held", "queues", "oldest", "to drain", "rate/s", "dead", "ambiguous")
    return table(
        names,
        [
            (
                key["key"],
                _state(key),
                f"{key['books']['held']:,}",
                f"{key['queues']:,}",
                _age(key["oldest_held_at"]),
                lasting(key["time_to_drain_s"]) if key["books"]["held"] else "-",
                f"{key['rate_per_s']:.4g} of {key['limit_per_s']:.4g}",
                f"{key['books']['dead']:,}",
                f"{key['ambiguous']:,}",
            )
            for key in shown
        ],
    )


def _state(key: Mapping[str, Any]) -> str:
    if key["paused"] is None:
        return "sends" if key["confirmed"] else "unconfirmed"
    if key["by_operator"]:
        return "paused"
    left_s = key["paused_for_s"]
    return f"{key['paused']}, {lasting(left_s)}" if left_s else f"{key['paused']}, probing"


def _age(moment: str | None) -> str:
    if moment is None:
        return "-"
    # By this machine's clock; one that is behind the buffer's must not show a time below zero.
    return lasting(max(0.0, (datetime.now(UTC) - datetime.fromisoformat(moment)).total_seconds()))


def _remarks(key: dict[str, Any]) -> list[str]:
    """What is wrong with a key, and what to do about it."""
    remarks = [] if key["paused"] is None else [f"{key['paused']}: {WORDS[Pause(key['paused'])]}"]
    if origins := key["forbidden_origins"]:
        named = ", ".join(printable(origin) or "clients without an Origin" for origin in origins)
        remarks.append(f"forbidden: {_FORBIDDEN.format(named)}")
    if key["queue_waits"]:
        remarks.append(f"waits: {QUEUE_WAITS}")
    return [f"{key['key']}: {remark}" for remark in remarks]

"""``outlit-proxy dead``: look at dead letters, put them back into their queues, or give them up."""

import functools
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TextIO

import click

from proxy.cli.client import Failed, printable
from proxy.cli.operations import LONG_TIMEOUT_S, Operations, operations_options
from proxy.cli.progress import interruptible, progress
from proxy.cli.terminal import as_json, counted, sure, table
from proxy.ledger import Dead
from proxy.settings.values import parse_duration

_PAGE = 100
"""Dead letters that an export asks for at once: of a megabyte each at most."""

_FOR_THEIR_OWNER = 0o600


@click.group(short_help="Dead letters: list, show, replay, export, purge.")
def dead() -> None:
    """Dead letters: accepted events that upstream refused.

    \b
    outlit-proxy dead list --since 2h
    outlit-proxy dead replay --reason forbidden
    """  # noqa: D301  # click's mark for "as it stands"


def _moment(_context: click.Context, parameter: click.Parameter, text: str | None) -> str | None:
    """A time, or how long ago, as the time that every request of this command then means."""
    if text is None:
        return None
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        try:
            at = datetime.now(UTC) - timedelta(seconds=parse_duration(text))
        except (ValueError, OverflowError):
            raise click.BadParameter(
                "write a time (2026-07-01, 2026-07-01T12:00Z) or how long ago (90s, 2h, 3d)", param=parameter
            ) from None
    return (at if at.tzinfo else at.replace(tzinfo=UTC)).isoformat()


_FILTERS = (
    click.option("--id", type=click.IntRange(1), metavar="ID", help="This one."),
    click.option("--key", metavar="PK", help="Of this public key."),
    click.option("--reason", type=click.Choice([str(reason) for reason in Dead]), help="Dead for this."),
    click.option("--uuid", metavar="UUID", help="Of this event."),
    click.option("--visitor", metavar="UUID", help="Of this visitor."),
    click.option("--since", callback=_moment, metavar="TIME", help="Dead since then: a UTC time, or 2h ago."),
    click.option("--until", callback=_moment, metavar="TIME", help="Dead before then."),
)
_NAMES = ("id", "key", "reason", "uuid", "visitor", "since", "until")


def _filters(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the filters, and pass those that are given as `which`."""

    @functools.wraps(command)
    def with_which(*args: Any, **given: Any) -> Any:
        which = {name: value for name in _NAMES if (value := given.pop(name)) is not None}
        return command(*args, which=which, **given)

    for add in reversed(_FILTERS):
        with_which = add(with_which)
    return with_which


_json_option = click.option("--json", "in_json", is_flag=True, help="One JSON object, for a script.")


@dead.command(name="list")
@_filters
@click.option(
    "--limit", type=click.IntRange(1, 1000), default=100, show_default=True, help="At most so many."
)
@_json_option
@operations_options
def list_(*, operations: Operations, which: Mapping[str, object], limit: int, in_json: bool) -> None:
    """List dead letters, the newest first, and say how many there are.

    \b
    outlit-proxy dead list --reason refused --since 2h
    """  # noqa: D301  # click's mark for "as it stands"
    page = operations.get("/dead", {**which, "limit": limit})
    if in_json:
        click.echo(as_json(page))
        return
    for line in _table(page["dead"]):
        click.echo(line)
    shown = len(page["dead"])
    more = f"; the newest {shown:,} are shown, `export` has all" if shown < page["count"] else ""
    click.echo(f"{counted(page['count'], 'dead letter')}{more}")


@dead.command()
@click.argument("number", metavar="ID", type=click.IntRange(1))
@_json_option
@operations_options
def show(*, operations: Operations, number: int, in_json: bool) -> None:
    """Show one with everything that it would be sent with.

    \b
    outlit-proxy dead show 17
    """  # noqa: D301  # click's mark, as above
    letter = operations.get(f"/dead/{number}")
    if in_json:
        click.echo(as_json(letter))
        return
    for name, value in letter.items():
        if isinstance(value, dict):
            click.echo(f"{name}:\n{json.dumps(value, indent=2)}")
        else:
            click.echo(f"{name}: {'-' if value is None else printable(str(value))}")


@dead.command()
@_filters
@click.option(
    "--output",
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False),
    help="A file that does not exist yet, made readable for you alone; else stdout.",
)
@operations_options
def export(*, operations: Operations, which: Mapping[str, object], output: Path | None) -> None:
    """Write all of them, the newest first, with all that `show` shows: a line of JSON each.

    Ctrl-C ends it behind a whole line.

    \b
    outlit-proxy dead export --key pk_abc --output dead.ndjson
    """  # noqa: D301  # click's mark, as above
    written, pages = 0, _pages(operations, which)
    with _opened(output) as file, interruptible() as interrupted:
        first = next(pages)
        page: dict[str, Any] | None = first
        total: int = first["count"]
        # What is written to a terminal is its own progress.
        with progress(total, "exporting", hidden=file.isatty()) as more_done:
            while page is not None:
                file.writelines(as_json(letter) + "\n" for letter in page["dead"])
                written += len(page["dead"])
                more_done(len(page["dead"]))
                page = None if interrupted() else next(pages, None)
    if interrupted() and written < total:
        raise Failed(f"interrupted; wrote {written:,} of {total:,}")
    click.echo(f"{counted(written, 'dead letter')} written", err=True)


def _changing(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options of a command that changes something."""
    for add in (
        operations_options,
        _json_option,
        click.option("--yes", is_flag=True, help="Do not ask."),
        click.option("--dry-run", is_flag=True, help="Say how many these are, and change nothing."),
        click.option(
            "--all", "everything", is_flag=True, help="All of them: needed where no filter is given."
        ),
        _filters,
    ):
        command = add(command)
    return command


@dead.command()
@_changing
def replay(*, operations: Operations, **given: Any) -> None:
    """Put dead letters back at the tails of their queues, in the order in which they had been accepted.

    Done in portions: after Ctrl-C it says how many were replayed, and asking again does the rest.

    \b
    outlit-proxy dead replay --since 2h --dry-run
    """  # noqa: D301  # click's mark, as above
    _change(operations, "replay", "replayed", **given)


@dead.command()
@_changing
def purge(*, operations: Operations, **given: Any) -> None:
    """Give dead letters up for good.

    Done in portions: after Ctrl-C it says how many were purged.

    \b
    outlit-proxy dead purge --until 30d
    """  # noqa: D301  # click's mark, as above
    _change(operations, "purge", "purged", **given)


def _change(
    operations: Operations,
    verb: str,
    done: str,
    *,
    which: dict[str, object],
    everything: bool,
    dry_run: bool,
    yes: bool,
    in_json: bool,
) -> None:
    if everything == bool(which):
        raise click.UsageError(
            "leave out --all or the filters." if which else f"say which to {verb}: by a filter, or --all."
        )
    asked = {**which, "all": everything or None}
    # What is counted is what is done: `up_to_id` keeps out what dies while somebody thinks it over.
    answer = operations.post(f"/dead/{verb}", {**asked, "dry_run": True}, timeout_s=LONG_TIMEOUT_S)
    if answer["count"] and not dry_run:
        sure(f"{verb.capitalize()} {counted(answer['count'], 'dead letter')}?", yes=yes)
        asked["up_to_id"] = answer["up_to_id"]
        answer[done] = _in_portions(operations, verb, done, asked, answer["count"], quiet=in_json)
    if in_json:
        click.echo(as_json(answer))
    elif dry_run:
        click.echo(f"{counted(answer['count'], 'dead letter')} would be {done}")
    else:
        click.echo(f"{counted(answer[done], 'dead letter')} {done}")


def _in_portions(
    operations: Operations, verb: str, done: str, asked: Mapping[str, object], count: int, *, quiet: bool
) -> int:
    """Do it a portion after the other, and say how many were done; also where that ends too soon."""
    so_far = 0
    with interruptible() as interrupted, progress(count, done, hidden=quiet) as more_done:
        while so_far < count and not interrupted():
            try:
                portion = {**asked, "portion": True}
                part = operations.post(f"/dead/{verb}", portion, timeout_s=LONG_TIMEOUT_S)[done]
            except Failed as error:
                if not so_far:
                    raise
                raise Failed(f"{error.message}; {_of(so_far, count, done)}") from None
            if not part:  # somebody else was faster
                break
            so_far += part
            more_done(part)
    if interrupted() and so_far < count:
        raise Failed(f"interrupted; {_of(so_far, count, done)}")
    return so_far


def _of(so_far: int, count: int, done: str) -> str:
    return f"{done} {so_far:,} of {count:,}: ask again for the rest"


def _pages(operations: Operations, which: Mapping[str, object]) -> Iterator[dict[str, Any]]:
    """All pages; the first one also has their `count`."""
    before: int | None = None
    while True:
        page = operations.get("/dead", {**which, "full": True, "limit": _PAGE, "before": before})
        yield page
        before = page["before"]
        if before is None:
            return


@contextmanager
def _opened(output: Path | None) -> Iterator[TextIO]:
    if output is None:
        yield sys.stdout
        return
    try:
        descriptor = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _FOR_THEIR_OWNER)
        with open(descriptor, "w", encoding="ascii") as file:  # noqa: PTH123  # of a descriptor
            yield file
    except FileExistsError:
        raise Failed(f"{output} exists: give the name of a new file") from None
    except OSError as error:
        raise Failed(f"{output}: {(error.strerror or str(error)).lower()}") from None


def _table(letters: list[dict[str, Any]]) -> list[str]:
    """A line a letter, its message last: that has any length."""
    names = ("id", "died_at", "key", "reason", "attempts", "uuid", "message")
    return table(
        [name.replace("_", " ") for name in names],
        [[str(letter[name]) for name in names] for letter in letters],
    )

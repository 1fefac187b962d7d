"""``outlit-proxy bench``: what the buffer costs and how the limit is used, measured where it will work."""

import asyncio
import sys
from collections.abc import AsyncIterator
from dataclasses import asdict

import click

from proxy import log
from proxy.bench import (
    ALLOWED,
    APPENDS,
    DATA,
    SHAPES,
    AppendCost,
    Case,
    ClaimCost,
    HeldSize,
    Table,
    Usage,
    all_queues,
    as_document,
    cases,
    measure_appends,
    measure_claims,
    measure_held,
    measure_usage,
    names,
)
from proxy.buffer import BufferFault
from proxy.buffer.bench import Bench, BenchRefused
from proxy.cli.options import Seconds, buffer_options
from proxy.cli.terminal import as_json
from proxy.engines import StartRefused, clean_bench, open_bench
from proxy.settings import Settings

Measured = ClaimCost | AppendCost | HeldSize

_DUE = (1, 1_000, 100_000)


@click.group()
def bench() -> None:
    """Measure what the proxy costs here.

    \b
    outlit-proxy bench buffer
    outlit-proxy bench budget --only alone
    """  # noqa: D301  # click's mark for "as it stands"


@bench.command()
@click.option(
    "--due",
    type=click.IntRange(1, 100_000),
    multiple=True,
    default=_DUE,
    show_default=True,
    help="Queues that are due while claims are measured.",
)
@click.option(
    "--samples",
    type=click.IntRange(10, 10_000),
    default=500,
    show_default=True,
    help="Calls, for each figure.",
)
@click.option(
    "--events",
    type=click.IntRange(100, 200_000),
    default=20_000,
    show_default=True,
    help="Held events, for each row of what they take.",
)
@click.option("--clean", is_flag=True, help="Only take out what a benchmark that was killed has left.")
@click.option("--json", "in_json", is_flag=True, help="One JSON object at the end, for a script.")
@buffer_options
def buffer(
    *, settings: Settings, due: tuple[int, ...], samples: int, events: int, clean: bool, in_json: bool
) -> None:
    """Measure claims, settlements, appends and the size of held events, on the buffer of the settings.

    On Redis it works under a public key of its own, which no proxy delivers, and takes all of it out again;
    100,000 queues take some 130 MB of memory meanwhile. With SQLite it makes a file of its own beside the
    buffer's. A minute or two; what it slows down meanwhile is whatever else uses that Redis, or that disk.

    \b
    outlit-proxy bench buffer
    outlit-proxy bench buffer --buffer redis://localhost --json
    """  # noqa: D301  # click's mark for "as it stands"
    log.configure("auto", "warning")  # to stderr: stdout is for the table
    try:
        if clean:
            asyncio.run(clean_bench(settings, all_queues()))
        else:
            asyncio.run(_run(settings, due, samples, events, in_json=in_json))
    except (StartRefused, BenchRefused, BufferFault) as error:
        sys.exit(f"outlit-proxy bench buffer: {error}")


@bench.command()
@click.option(
    "--seconds",
    type=click.IntRange(1, 3_600),
    default=60,
    show_default=True,
    help="That count, for each case.",
)
@click.option(
    "--warm-up",
    "warm_up_s",
    type=Seconds(0, 3_600),
    default=30,
    show_default=True,
    help="Seconds before these, in which a gate learns.",
)
@click.option(
    "--only",
    type=click.Choice(names()),
    multiple=True,
    metavar="CASE",
    help="Only these: a case such as fixed/alone, or all of a window or a scene.  [default: all]",
)
@click.option("--json", "in_json", is_flag=True, help="One JSON object at the end, for a script.")
@buffer_options
def budget(
    *, settings: Settings, seconds: int, warm_up_s: float, only: tuple[str, ...], in_json: bool
) -> None:
    """Measure how much of upstream's limit is used, and how often it is exceeded.

    Proxies without a front send a backlog to a sandbox in a process of its own, which allows 100 requests a
    second in one of its windows and takes 20 to 200 ms for each. A case is a window (fixed, sliding-log,
    sliding-counter, bucket-100, bucket-10) and a scene:

    \b
    alone         one proxy
    stranger      somebody else makes 30 requests a second with the same key
    three         three proxies that know nothing of each other
    three-shares  the same with delivery.rate_share = 1/3
    replicas      three on one Redis
    lowered       the limit falls to 10, and rises to 100 again

    Utilisation is what was granted of what the window allowed and a stranger left. With SQLite each proxy has
    a temporary file, below TMPDIR; in a Redis nothing is touched or left. A case takes a minute and a half.
    A machine that is busy with something else uses less of the limit: that is measured, too.

    \b
    outlit-proxy bench budget --only alone
    outlit-proxy bench budget --only fixed/stranger --seconds 300 --json
    outlit-proxy bench budget --buffer redis://localhost
    """  # noqa: D301  # click's mark for "as it stands"
    log.configure("auto", "error")  # to stderr: stdout is for the table, and pauses are what is measured
    chosen = tuple(cases(only, on_redis=settings.buffer.url.is_redis))
    if not chosen:
        raise click.BadParameter("replicas share a Redis: name one with --buffer", param_hint="--only")
    try:
        asyncio.run(_measure_usages(settings, chosen, warm_up_s, seconds, in_json=in_json))
    except* (StartRefused, BenchRefused, BufferFault) as group:
        sys.exit(f"outlit-proxy bench budget: {_first(group)}")


async def _measure_usages(
    settings: Settings, chosen: tuple[Case, ...], warm_up_s: float, seconds: int, *, in_json: bool
) -> None:
    measured: list[Usage] = []
    for case in chosen:
        measured.append(await measure_usage(settings, case, warm_up_s, seconds))
        if in_json:
            continue
        row = _usage_row(measured[-1])
        if len(measured) == 1:
            click.echo(f"{ALLOWED}; {warm_up_s:g} s to learn, {seconds} s counted")
            table = Table(*row, first_width=max(len(str(each)) for each in chosen), say=click.echo)
        table.row(*row.values())
    if in_json:
        click.echo(as_json({"usages": [as_document(usage) for usage in measured]}))


def _usage_row(usage: Usage) -> dict[str, str]:
    back_s = "" if usage.back_in_use_s is None else f"{usage.back_in_use_s}"
    return {
        "case": usage.case,
        "utilisation, %": f"{100 * usage.utilisation:.1f}",
        "429": f"{usage.limited:,}",
        "429, %": f"{100 * usage.limited_share:.3f}",
        "events/request": f"{usage.events / usage.granted:.1f}" if usage.granted else "",
        "requests": f"{usage.granted + usage.limited:,}",
        "stranger's": f"{usage.strangers:,}" if usage.strangers else "",
        "used again after, s": back_s,
    }


def _first(group: BaseException) -> BaseException:
    while isinstance(group, BaseExceptionGroup):
        group = group.exceptions[0]
    return group


async def _run(settings: Settings, due: tuple[int, ...], samples: int, events: int, *, in_json: bool) -> None:
    measured: list[Measured] = []
    bench = await open_bench(settings)
    try:
        if not in_json:
            click.echo(f"{bench.store}\n{DATA}")
        tables = _Tables()
        async for figures in _measured(bench, due, samples, events):
            measured.append(figures)
            if not in_json:
                tables.show(figures)
    finally:
        await bench.close()
    if in_json:
        click.echo(as_json({"store": bench.store, **_by_kind(measured)}))


async def _measured(bench: Bench, due: tuple[int, ...], samples: int, events: int) -> AsyncIterator[Measured]:
    for queues in due:
        yield await measure_claims(bench, queues, samples)
    for number in APPENDS:
        yield await measure_appends(bench, number, samples)
    for events_a_post, posts in SHAPES:
        yield await measure_held(bench, events_a_post, posts, events)


_JSON_NAMES: dict[type[Measured], str] = {ClaimCost: "claims", AppendCost: "appends", HeldSize: "held"}


def _by_kind(measured: list[Measured]) -> dict[str, list[dict[str, object]]]:
    return {
        name: [asdict(figures) for figures in measured if isinstance(figures, kind)]
        for kind, name in _JSON_NAMES.items()
    }


class _Tables:
    """A table for each kind of figures, a row as soon as it is measured."""

    def __init__(self) -> None:
        self._kind: type[Measured] | None = None

    def show(self, figures: Measured) -> None:
        row = _row(figures)
        if type(figures) is not self._kind:
            self._kind = type(figures)
            self._table = Table(*row, say=click.echo)
        self._table.row(*row.values())


def _row(figures: Measured) -> dict[str, str]:
    """What stands in a row, by the titles of the columns."""
    match figures:
        case ClaimCost():
            return {
                "queues due": f"{figures.due_queues:,}",
                "claim, µs": _us(figures.claim_us),
                "of it in the store": _us(figures.claim_store_us),
                "read, µs": _us(figures.read_us),
                "settle, µs": _us(figures.settle_us),
                "in the store": _us(figures.settle_store_us),
            }
        case AppendCost():
            return {
                "events a request": f"{figures.events}",
                "append, µs": _us(figures.alone_us),
                "of it in the store": _us(figures.alone_store_us),
                "64 at once, µs each": _us(figures.concurrent_us),
                "in the store": _us(figures.concurrent_store_us),
            }
        case HeldSize():
            return {
                "events a queue": f"{figures.events_a_queue}",
                "posts a queue": f"{figures.posts_a_queue}",
                "an event's text, bytes": f"{figures.text_bytes:,.0f}",
                "stored bytes an event": f"{figures.stored_bytes:,.0f}",
            }


def _us(value: float | None) -> str:
    return "" if value is None else f"{value:,.0f}"

"""``outlit-proxy sandbox``: a stand-in for Outlit to point a proxy at."""

import asyncio
import os
import re
import signal
import sys
from dataclasses import replace
from pathlib import Path

import click

from proxy.sandbox import LIMIT_PER_S, Kind, Limit, Link, OrderError, Rules, Sandbox, Script, script_of
from proxy.settings import ListenAddress, parse_listen

_LATENCY = re.compile(r"([0-9]{1,9})(?:-([0-9]{1,9}))?", re.ASCII)


def _link(_context: click.Context, parameter: click.Parameter, text: str | None) -> Link | None:
    if text is None:
        return None
    found = _LATENCY.fullmatch(text)
    if found is None:
        raise click.BadParameter(f"{text!r} is no latency: say 40, or 20-200 for a range", param=parameter)
    try:
        return Link(latency_ms=int(found[1]), latency_to_ms=None if found[2] is None else int(found[2]))
    except OrderError as error:
        raise click.BadParameter(str(error), param=parameter) from None


def _script(_context: click.Context, parameter: click.Parameter, file: Path | None) -> Script:
    if file is None:
        return Script()
    try:
        return script_of(file.read_bytes())
    except OSError as error:
        raise click.BadParameter(f"{file}: {error.strerror}", param=parameter) from None
    except OrderError as error:
        raise click.BadParameter(f"{file}: {error}", param=parameter) from None


@click.command(short_help="Stand in for Outlit's Ingest and Platform API.")
@click.option("--listen", default="127.0.0.1:9300", show_default=True, metavar="HOST:PORT")
@click.option(
    "--window",
    type=click.Choice([str(kind) for kind in Kind]),
    default=str(Kind.FIXED),
    show_default=True,
    help="How requests are counted.",
)
@click.option(
    "--limit",
    type=click.IntRange(1),
    default=LIMIT_PER_S,
    show_default=True,
    help="Requests a second, for each public key.",
)
@click.option("--burst", type=click.IntRange(1), help="Of a bucket: what it holds.  [default: the limit]")
@click.option(
    "--latency",
    "link",
    metavar="MS[-MS]",
    callback=_link,
    help="Of every request, there and back; a range is drawn from evenly.  [default: none]",
)
@click.option("--strict", is_flag=True, help="Refuse unknown fields, as the published schema does.")
@click.option(
    "--script",
    metavar="FILE",
    type=click.Path(path_type=Path),
    callback=_script,
    help="JSON of what is to happen, and when.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Of all chance.")
@click.option(
    "--record",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Write what it receives there, a line a request.",
)
def sandbox(  # noqa: PLR0913  # the command's options
    *,
    listen: str,
    window: str,
    limit: int,
    burst: int | None,
    link: Link | None,
    strict: bool,
    script: Script,
    seed: int,
    record: Path | None,
) -> None:
    """Stand in for both of Outlit's APIs: strict, with their limits, and whatever can go wrong, on request.

    What it received can be read back, and faults, another limit, a stranger on a key, a longer way and an
    exhausted plan can be ordered while it runs, or from the start by a script:

    \b
    outlit-proxy sandbox --window bucket --burst 10 --latency 20-200
    outlit-proxy sandbox --script bad-day.json --record received.jsonl
    curl -d '{"what": "status", "status": 503, "seconds": 10}' 127.0.0.1:9300/_sandbox/faults
    curl -d '{"limit": 10, "seconds": 60}' 127.0.0.1:9300/_sandbox/limits
    curl -d '{"public_key": "pk_test", "per_s": 30}' 127.0.0.1:9300/_sandbox/strangers
    curl -d '{"what": "plan", "allowance": 3, "reset_in_s": 60}' 127.0.0.1:9300/_sandbox/platform
    curl 127.0.0.1:9300/_sandbox/record
    curl 127.0.0.1:9300/_sandbox/calls

    A script has an array for each of these, and `after_s` in each order says when it begins:

    \b
    {"faults":    [{"what": "status", "status": 403, "origin": "https://a.example", "after_s": 5},
                   {"what": "refuse", "event": "poison"},
                   {"what": "headers", "headers": {"X-RateLimit-Reset": "{now_ms}"}, "every": 3}],
     "limits":    [{"limit": 10, "after_s": 30, "seconds": 60}],
     "strangers": [{"public_key": "pk_test", "per_s": 30}],
     "links":     [{"latency_ms": 20, "latency_to_ms": 200}],
     "platform":  [{"what": "plan", "allowance": 3, "reset_in_s": 60},
                   {"what": "answer", "status": 503, "route": "validate", "requests": 1}]}
    """  # noqa: D301  # click's mark for "as it stands"
    try:
        address = parse_listen(listen)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--listen") from None
    try:
        counted = Limit(limit, Kind(window), burst)
    except OrderError as error:
        raise click.BadParameter(str(error), param_hint="--burst") from None
    if link is not None:
        script = replace(script, links=(link, *script.links))
    stand_in = Sandbox(
        limit=counted, rules=Rules(strict=strict), script=script, record_file=record, seed=seed
    )
    try:
        asyncio.run(_serve(stand_in, address))
    except OrderError as error:
        sys.exit(f"outlit-proxy sandbox: {error}")
    except OSError as error:
        why = os.strerror(error.errno).lower() if error.errno else str(error)
        where = error.filename or f"cannot listen on {address}"
        sys.exit(f"outlit-proxy sandbox: {where}: {why}; choose another one")


async def _serve(stand_in: Sandbox, address: ListenAddress) -> None:
    stop = asyncio.Event()
    for asked in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(asked, stop.set)
    await stand_in.start(address.host or "0.0.0.0", address.port)  # noqa: S104  # what `:9300` asks for
    try:
        click.echo(
            f"sandbox at {stand_in.url}; plays the Ingest API (/api/i/v1/pk_…/events) and the Platform API"
            f" (the rest of /api/, Bearer ok_…); orders and records below {stand_in.url}/_sandbox/",
            err=True,
        )
        await stop.wait()
    finally:
        await stand_in.stop()

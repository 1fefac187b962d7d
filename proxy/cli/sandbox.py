"""``outlit-proxy sandbox``: a stand-in for Outlit to point a proxy at."""

import asyncio
import signal
import sys
from pathlib import Path

import click

from proxy.sandbox import WINDOWS, Sandbox
from proxy.settings import ListenAddress, parse_listen


@click.command()
@click.option("--listen", default="127.0.0.1:9300", show_default=True, metavar="HOST:PORT")
@click.option("--window", type=click.Choice(sorted(WINDOWS)), default="fixed", show_default=True)
@click.option("--limit", type=click.IntRange(1), default=100, show_default=True, help="Requests a window.")
@click.option("--strict", is_flag=True, help="Refuse unknown fields, as the published schema does.")
@click.option(
    "--record",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Write what it receives there, a line a request.",
)
def sandbox(*, listen: str, window: str, limit: int, strict: bool, record: Path | None) -> None:
    """Stand in for Outlit's Ingest API: strict, with its limits, and faults on request.

    Faults are switched while it runs; what it received can be read back.

    \b
    outlit-proxy sandbox --record received.jsonl
    curl -d '{"what": "status", "status": 503, "seconds": 10}' 127.0.0.1:9300/_sandbox/faults
    curl 127.0.0.1:9300/_sandbox/record
    """  # noqa: D301  # click's mark for "as it stands"
    try:
        address = parse_listen(listen)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--listen") from None
    try:
        asyncio.run(_serve(Sandbox(limit=limit, window=window, strict=strict, record_file=record), address))
    except OSError as error:
        sys.exit(f"outlit-proxy sandbox: {error}")


async def _serve(stand_in: Sandbox, address: ListenAddress) -> None:
    stop = asyncio.Event()
    for asked in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(asked, stop.set)
    await stand_in.start(address.host or "0.0.0.0", address.port)  # noqa: S104  # what `:9300` asks for
    try:
        click.echo(f"sandbox at {stand_in.url}; faults and record below {stand_in.url}/_sandbox/", err=True)
        await stop.wait()
    finally:
        await stand_in.stop()

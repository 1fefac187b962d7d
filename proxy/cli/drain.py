"""``outlit-proxy drain``: have the running proxy empty its buffer before it is told to stop."""

import time

import click

from proxy.cli.client import Failed, printable
from proxy.cli.operations import Operations, operations_options
from proxy.cli.terminal import as_json, counted

_LOOK_S = 0.25


@click.command(short_help="Send at once all that is held, before a stop.")
@click.option(
    "--wait",
    "wait_s",
    type=click.FloatRange(0, 86_400),
    default=0,
    metavar="SECONDS",
    help="Come back when nothing is held, or after so long, with exit code 1.  [default: at once]",
)
@click.option("--undo", is_flag=True, help="Let events wait for delivery.linger again.")
@click.option("--json", "in_json", is_flag=True, help="One JSON object, for a script.")
@operations_options
def drain(*, operations: Operations, wait_s: float, undo: bool, in_json: bool) -> None:
    """From now on no event waits for company: all leave as fast as Outlit's limit allows.

    Posts are accepted as before, and the proxy stays ready. It holds until the proxy ends, or `--undo`, and
    may be repeated. For the preStop hook of a sidecar, whose application still posts; for a change of buffer,
    once nobody posts any more.

    \b
    outlit-proxy drain
    outlit-proxy drain --wait 60
    """  # noqa: D301  # click's mark for "as it stands"
    if undo and wait_s:
        raise click.UsageError("--undo waits for nothing: leave --wait out.")
    if undo:
        answer = operations.delete("/drain")
    else:
        answer = operations.post("/drain")
        until = time.monotonic() + wait_s
        while answer["held"] != 0 and time.monotonic() < until:
            time.sleep(min(_LOOK_S, max(0.0, until - time.monotonic())))
            answer = operations.post("/drain")
    if in_json:
        click.echo(as_json(answer))
    elif answer["held"] is None:
        click.echo("what is held is not known: the buffer does not answer")
    else:
        doing = "no longer draining" if undo else "draining"
        click.echo(f"{doing}: {counted(answer['held'], 'event')} held")
    if wait_s and answer["held"] != 0:
        raise Failed(f"not empty after {wait_s:g} s: {_left(operations)}")


def _left(operations: Operations) -> str:
    """What is held, key by key, and why."""
    held = [key for key in operations.get("/keys")["keys"] if key["books"]["held"]]
    words = [
        f"{key['key']} holds {counted(key['books']['held'], 'event')}"
        + (f" ({key['paused']})" if key["paused"] else "")
        for key in held
    ]
    return printable("; ".join(words)) or "what is left could not be seen"

"""``outlit-proxy drain``: have the running proxy empty its buffer before it is told to stop."""

import time
from typing import Any

import click

from proxy.cli.client import Failed, printable
from proxy.cli.operations import Operations, operations_options
from proxy.cli.options import Seconds
from proxy.cli.terminal import as_json, counted

_LOOK_S = 0.25

_PATIENCE_S = 10.0
"""For an answer, without --wait."""

_LEAST_PATIENCE_S = 1.0
"""For an answer, when the time of --wait is over or nearly so."""


@click.command(short_help="Send at once all that is held, before a stop.")
@click.option(
    "--wait",
    "wait_s",
    type=Seconds(0, 86_400),
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
        answer = operations.delete("/drain", timeout_s=_PATIENCE_S)
    elif wait_s:
        answer = _waited(operations, wait_s)
    else:
        answer = operations.post("/drain", timeout_s=_PATIENCE_S)
    if in_json:
        click.echo(as_json(answer))
    elif answer["held"] is None:
        click.echo("what is held is not known: the buffer does not answer")
    else:
        doing = "no longer draining" if undo else "draining"
        click.echo(f"{doing}: {counted(answer['held'], 'event')} held")
    if wait_s and answer["held"] != 0:
        left = "the buffer does not answer" if answer["held"] is None else _left(operations)
        raise Failed(f"not empty after {wait_s:g} s: {left}")


def _waited(operations: Operations, wait_s: float) -> dict[str, Any]:
    """The last answer: that nothing is held, or what is when the time is over."""
    until = time.monotonic() + wait_s
    while True:
        try:
            answer = operations.post("/drain", timeout_s=max(_LEAST_PATIENCE_S, until - time.monotonic()))
        except Failed as error:
            if time.monotonic() < until:
                raise
            raise Failed(f"not known to be empty after {wait_s:g} s: {error.message}") from None
        left_s = until - time.monotonic()
        if answer["held"] == 0 or left_s <= 0:
            return answer
        time.sleep(min(_LOOK_S, left_s))


def _left(operations: Operations) -> str:
    """What is held, key by key, and why."""
    try:
        keys = operations.get("/keys", timeout_s=_LEAST_PATIENCE_S)["keys"]
    except Failed:
        keys = []
    held = [key for key in keys if key["books"]["held"]]
    words = [
        f"{key['key']} holds {counted(key['books']['held'], 'event')}"
        + (f" ({key['paused']})" if key["paused"] else "")
        for key in held
    ]
    return printable("; ".join(words)) or "what is left could not be seen"

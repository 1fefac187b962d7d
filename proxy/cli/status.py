"""``outlit-proxy status``: one look at a proxy that runs."""

import os
import sys
from collections.abc import Mapping
from typing import Any, Final

import click

from proxy.cli.operations import Operations, open_operations_options
from proxy.cli.snapshot import Tone, is_well, lines_of
from proxy.cli.terminal import as_json

_TIMEOUT_S = 5.0

_STYLES: Final[Mapping[Tone, Mapping[str, Any]]] = {
    "plain": {},
    "strong": {"bold": True},
    "warning": {"fg": "yellow"},
    "error": {"fg": "red", "bold": True},
    "dim": {"dim": True},
}


@click.command(short_help="Show how a running proxy fares.")
@click.option("--json", "in_json", is_flag=True, help="One JSON object, for a script: what GET /status says.")
@open_operations_options
def status(*, operations: Operations, in_json: bool) -> None:
    """Show what a running proxy holds, how fast it goes, and what is wrong with it and what to do.

    Needs no token; with ops.token public keys are shown whole. Exits 0 if the proxy is ready and nothing is
    wrong but for warnings, else 1, also where it does not answer.

    \b
    outlit-proxy status
    outlit-proxy status --ops-url http://10.0.0.7:9090
    outlit-proxy status --json | jq .ledger.held
    """  # noqa: D301  # click's mark for "as it stands"
    snapshot = operations.status(_TIMEOUT_S)
    if in_json:
        click.echo(as_json(snapshot))
    else:
        colours = False if "NO_COLOR" in os.environ else None  # None: where stdout is a terminal
        for line in lines_of(snapshot):
            click.echo(click.style(line.text, **_STYLES[line.tone]), color=colours)
    if not is_well(snapshot):
        sys.exit(1)

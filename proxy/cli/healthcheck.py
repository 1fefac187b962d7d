"""``outlit-proxy healthcheck``: readiness as an exit code, for containers without curl."""

import sys

import click

from proxy.cli.client import ask, printable, url_of
from proxy.cli.operations import ops_url_option
from proxy.cli.options import settings_to_ask
from proxy.settings import Settings

_TIMEOUT_S = 4.0

_SHOWN_CHARACTERS = 200
"""Of an answer, which may be another server's page."""


@click.command()
@ops_url_option
@settings_to_ask
def healthcheck(*, settings: Settings, ops_url: str | None) -> None:
    """Exit 0 if the running proxy is ready, else 1.

    \b
    outlit-proxy healthcheck
    outlit-proxy healthcheck --ops-url http://127.0.0.1:9090
    """  # noqa: D301  # click's mark for "as it stands"
    url = ops_url or url_of(settings.ops.listen, "ops.listen", "--ops-url")
    answer = ask(f"{url.rstrip('/')}/readyz", timeout_s=_TIMEOUT_S)
    lines = answer.body.decode(errors="replace").strip().splitlines()
    said = printable("; ".join(lines))[:_SHOWN_CHARACTERS]
    if answer.status != 200:
        sys.exit(said)
    click.echo(said)

"""The command line: ``outlit-proxy``, and ``python -m proxy``."""

import click

from proxy import __version__
from proxy.cli.bench import bench
from proxy.cli.config import config
from proxy.cli.dead import dead
from proxy.cli.demo import demo
from proxy.cli.erase import erase
from proxy.cli.healthcheck import healthcheck
from proxy.cli.keys import keys
from proxy.cli.run import run
from proxy.cli.sandbox import sandbox
from proxy.cli.send import send


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="outlit-proxy")
def main() -> None:
    """A first-party ingest proxy for Outlit."""


for _command in (run, demo, sandbox, healthcheck, config, send, keys, dead, erase, bench):
    main.add_command(_command)

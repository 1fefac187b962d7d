"""``outlit-proxy healthcheck``: readiness as an exit code, for containers without curl."""

import sys
import urllib.error
import urllib.request

import click

from proxy.cli.options import settings_options
from proxy.settings import Settings

_TIMEOUT_S = 4.0


@click.command()
@click.option("--ops-url", metavar="URL", help="Where operations listen; else ops.listen of these settings.")
@settings_options
def healthcheck(*, settings: Settings, ops_url: str | None) -> None:
    """Exit 0 if the running proxy is ready, else 1.

    \b
    outlit-proxy healthcheck
    outlit-proxy healthcheck --ops-url http://127.0.0.1:9090
    """  # noqa: D301  # click's mark for "as it stands"
    url = (ops_url or _local(settings)).rstrip("/") + "/readyz"
    try:
        # Whatever HTTP proxy the environment names, this process is asked directly.
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(url, timeout=_TIMEOUT_S) as answer:
            click.echo(answer.read().decode().strip())
    except urllib.error.HTTPError as error:
        sys.exit(error.read().decode().strip())
    except (OSError, ValueError) as error:
        sys.exit(f"outlit-proxy healthcheck: {url}: {getattr(error, 'reason', error)}")


def _local(settings: Settings) -> str:
    """The listener on this machine; an address that means every interface is reached by the loopback."""
    host, port = settings.ops.listen.host, settings.ops.listen.port
    host = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104  # compared
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

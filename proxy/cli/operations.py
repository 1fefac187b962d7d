"""The running proxy's operations, as commands ask for them: where, with which token, and what goes wrong."""

import functools
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

import click

from proxy.cli.client import Failed, Misused, ask, url_of
from proxy.cli.options import config_option
from proxy.settings import Settings

_TIMEOUT_S = 900.0
"""An erasure waits for deliveries, as long as a lease may last (600 s)."""


@dataclass(frozen=True, slots=True)
class Operations:
    """The operations listener of a proxy that runs. Every method raises Failed."""

    url: str
    token: str

    @classmethod
    def of(cls, settings: Settings, ops_url: str | None) -> "Operations":
        """The one of these settings, or at `ops_url`; the token is of the settings either way."""
        if settings.ops.token is None:
            raise Failed(
                "ops.token is not set: give the proxy's, in its settings file,"
                " OUTLIT_PROXY_OPS_TOKEN or OUTLIT_PROXY_OPS_TOKEN_FILE"
            )
        url = ops_url or url_of(settings.ops.listen, "ops.listen", "--ops-url")
        return cls(url.rstrip("/"), settings.ops.token.get_secret_value())

    def get(self, path: str, query: Mapping[str, object] | None = None, *, also: int = 200) -> dict[str, Any]:
        """The answer to a GET with status 200, or `also`."""
        return self._asked("GET", path, query, None, also)

    def post(
        self, path: str, query: Mapping[str, object] | None = None, body: Mapping[str, object] | None = None
    ) -> dict[str, Any]:
        """The answer to a POST: what was done."""
        return self._asked("POST", path, query, json.dumps(body or {}).encode(), 200)

    def _asked(
        self, method: str, path: str, query: Mapping[str, object] | None, body: bytes | None, also: int
    ) -> dict[str, Any]:
        given = {name: _text(value) for name, value in (query or {}).items() if value is not None}
        answer = ask(
            f"{self.url}{path}?{urlencode(given)}" if given else f"{self.url}{path}",
            body,
            method=method,
            headers={"Authorization": f"Bearer {self.token}", "Content-Type": "application/json"},
            timeout_s=_TIMEOUT_S,
        )
        if answer.status == 401:
            raise Failed(f"{self.url} does not take this ops.token: give the one that the proxy runs with")
        if answer.status == 403:
            raise Failed(
                f"{self.url} runs without ops.token, so this is off there: set it, and start it again"
            )
        value = _object(answer.body)
        if value is not None and answer.status in (200, also):
            return value
        error = (value or {}).get("error")
        if error is None:
            raise Failed(
                f"{self.url} answered {answer.status}, not as operations do: see ops.listen, --ops-url"
            )
        raise (Misused if answer.status == 400 else Failed)(str(error))


def operations_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--config` and `--ops-url`, and pass the command the proxy's `operations`."""

    @functools.wraps(command)
    def with_operations(*args: Any, settings: Settings, ops_url: str | None, **given: Any) -> Any:
        return command(*args, operations=Operations.of(settings, ops_url), **given)

    return ops_url_option(config_option(with_operations))


ops_url_option = click.option(
    "--ops-url", metavar="URL", help="Where operations listen; else ops.listen of the settings."
)


def _object(body: bytes) -> dict[str, Any] | None:
    """The JSON object that a body is, None where it is none."""
    try:
        value = json.loads(body)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)

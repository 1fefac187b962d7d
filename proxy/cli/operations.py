"""The running proxy's operations, as commands ask for them: where, with which token, and what goes wrong."""

import functools
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

import click

from proxy.cli.client import Answer, Failed, Misused, ask, lines_of, url_of
from proxy.cli.options import config_option
from proxy.settings import Settings

_TIMEOUT_S = 30.0

LONG_TIMEOUT_S = 900.0
"""For what goes through all that is held; an erasure waits for deliveries, too: a lease may last 600 s."""

_SILENCE_S = 30.0
"""A stream that brings nothing for so long is broken: the proxy gives a sign of life each 10 s."""


@dataclass(frozen=True, slots=True)
class Operations:
    """The operations listener of a proxy that runs. Every method raises Failed."""

    url: str
    token: str | None

    @classmethod
    def of(cls, settings: Settings, ops_url: str | None, *, needs_token: bool = True) -> "Operations":
        """The one of these settings, or at `ops_url`; the token is of the settings either way."""
        token = settings.ops.token
        if token is None and needs_token:
            raise Failed(
                "ops.token is not set: give the proxy's, in its settings file,"
                " OUTLIT_PROXY_OPS_TOKEN or OUTLIT_PROXY_OPS_TOKEN_FILE"
            )
        url = ops_url or url_of(settings.ops.listen, "ops.listen", "--ops-url")
        return cls(url.rstrip("/"), None if token is None else token.get_secret_value())

    def get(
        self,
        path: str,
        query: Mapping[str, object] | None = None,
        *,
        also: int = 200,
        timeout_s: float = _TIMEOUT_S,
    ) -> dict[str, Any]:
        """The answer to a GET with status 200, or `also`."""
        return self._asked("GET", path, query, None, also, timeout_s)

    def status(self, timeout_s: float) -> dict[str, Any]:
        """One snapshot: what `GET /status` says."""
        snapshot = self.get("/status", timeout_s=timeout_s)
        if "troubles" not in snapshot:
            raise Failed(f"{self.url}/status says something else: see ops.listen, --ops-url")
        return snapshot

    def stream(self, path: str, query: Mapping[str, object]) -> Iterator[dict[str, Any]]:
        """The lines of an answer that goes on, each as it comes."""
        headers = self._authorization()
        for line in lines_of(self._url(path, query), headers=headers, timeout_s=_SILENCE_S):
            if isinstance(line, Answer):
                raise self._refusal(line)
            value = _object(line)
            if value is None:
                raise Failed(f"{self.url} sends something else than samples: see ops.listen, --ops-url")
            yield value

    def post(
        self,
        path: str,
        query: Mapping[str, object] | None = None,
        body: Mapping[str, object] | None = None,
        *,
        timeout_s: float = _TIMEOUT_S,
    ) -> dict[str, Any]:
        """The answer to a POST: what was done."""
        return self._asked("POST", path, query, json.dumps(body or {}).encode(), 200, timeout_s)

    def delete(self, path: str, *, timeout_s: float) -> dict[str, Any]:
        """The answer to a DELETE: what was undone."""
        return self._asked("DELETE", path, None, None, 200, timeout_s)

    def _asked(
        self,
        method: str,
        path: str,
        query: Mapping[str, object] | None,
        body: bytes | None,
        also: int,
        timeout_s: float,
    ) -> dict[str, Any]:
        answer = ask(
            self._url(path, query),
            body,
            method=method,
            headers={**self._authorization(), "Content-Type": "application/json"},
            timeout_s=timeout_s,
        )
        if answer.status in (200, also) and (value := _object(answer.body)) is not None:
            return value
        raise self._refusal(answer)

    def _url(self, path: str, query: Mapping[str, object] | None) -> str:
        given = {name: _text(value) for name, value in (query or {}).items() if value is not None}
        return f"{self.url}{path}?{urlencode(given)}" if given else f"{self.url}{path}"

    def _authorization(self) -> dict[str, str]:
        return {} if self.token is None else {"Authorization": f"Bearer {self.token}"}

    def _refusal(self, answer: Answer) -> Failed:
        """Why an answer is not the one that was wanted."""
        if answer.status == 401:
            return Failed(f"{self.url} does not take this ops.token: give the one that the proxy runs with")
        if answer.status == 403:
            return Failed(
                f"{self.url} runs without ops.token, so this is off there: set it, and start it again"
            )
        error = (_object(answer.body) or {}).get("error")
        if error is None:
            return Failed(
                f"{self.url} answered {answer.status}, not as operations do: see ops.listen, --ops-url"
            )
        return (Misused if answer.status == 400 else Failed)(str(error))


def operations_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--config` and `--ops-url`, and pass the command the proxy's `operations`."""
    return _with_operations(command, needs_token=True)


def open_operations_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The same for what needs no token, and says more where one is set."""
    return _with_operations(command, needs_token=False)


def _with_operations(command: Callable[..., Any], *, needs_token: bool) -> Callable[..., Any]:
    @functools.wraps(command)
    def with_operations(*args: Any, settings: Settings, ops_url: str | None, **given: Any) -> Any:
        operations = Operations.of(settings, ops_url, needs_token=needs_token)
        return command(*args, operations=operations, **given)

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

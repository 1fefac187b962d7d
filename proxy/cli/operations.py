"""The running proxy's operations, as commands ask for them: where, with which token, and what goes wrong."""

import functools
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode, urlsplit

import click

from proxy.cli.client import Answer, Failed, Misused, Sent, ask, lines_of, sent, url_of
from proxy.cli.options import config_option, config_with_token_option
from proxy.settings import Settings

_TIMEOUT_S = 30.0

LONG_TIMEOUT_S = 900.0
"""For what goes through all that is held; an erasure waits for deliveries, too: a lease may last 600 s."""

_SILENCE_S = 30.0
"""A stream that brings nothing for so long is broken: the proxy gives a sign of life each 10 s."""

NOT_A_HOST = "ops.allowed_hosts there does not name this host: ask by its IP address, or add the name"
IS_OFF = "it runs without ops.token, so this is off there: set it, and reload it"
WITHOUT_A_PATH = "write --ops-url without a path"


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

    @property
    def correction(self) -> str:
        """What to do where something else than operations answers there."""
        return WITHOUT_A_PATH if urlsplit(self.url).path else "see ops.listen, --ops-url"

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
            raise Failed(f"{self.url}/status says something else: {self.correction}")
        return snapshot

    def stream(self, path: str, query: Mapping[str, object]) -> Iterator[dict[str, Any]]:
        """The lines of an answer that goes on, each as it comes."""
        headers = self._authorization()
        for line in lines_of(self._url(path, query), headers=headers, timeout_s=_SILENCE_S):
            if isinstance(line, Answer):
                raise self._refusal(line)
            value = object_of(line)
            if value is None:
                raise Failed(f"{self.url} sends something else than samples: {self.correction}")
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

    def forwarded(
        self,
        method: str,
        path: str,
        query: Mapping[str, object] | None,
        body: bytes | None,
        timeout_s: float,
    ) -> AbstractContextManager[Sent]:
        """A request for Outlit, sent to the proxy; its answer is of any status and any size."""
        headers = self._authorization() if body is None else self._headers()
        return sent(self._url(path, query), body, method=method, headers=headers, timeout_s=timeout_s)

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
            headers=self._headers(),
            timeout_s=timeout_s,
        )
        if answer.status in (200, also) and (value := object_of(answer.body)) is not None:
            return value
        raise self._refusal(answer)

    def _url(self, path: str, query: Mapping[str, object] | None) -> str:
        given = {name: _text(value) for name, value in (query or {}).items() if value is not None}
        return f"{self.url}{path}?{urlencode(given)}" if given else f"{self.url}{path}"

    def _authorization(self) -> dict[str, str]:
        return {} if self.token is None else {"Authorization": f"Bearer {self.token}"}

    def _headers(self) -> dict[str, str]:
        return {**self._authorization(), "Content-Type": "application/json"}

    def _refusal(self, answer: Answer) -> Failed:
        """Why an answer is not the one that was wanted."""
        if answer.status == 401:
            return Failed(f"{self.url} does not take this ops.token: give the one that the proxy runs with")
        said = object_of(answer.body) or {}
        error, code = said.get("error"), said.get("code")
        if answer.status == 403 and code in (None, "gateway_off", "host_not_allowed"):
            return Failed(f"{self.url}: {NOT_A_HOST if code == 'host_not_allowed' else IS_OFF}")
        if error is None:
            return Failed(f"{self.url} answered {answer.status}, not as operations do: {self.correction}")
        # Of no thing, but of the route; of a path below the gateway's by its code.
        if answer.status == 404 and (error == "not found" or code == "not_found"):
            has_path = urlsplit(self.url).path
            why = WITHOUT_A_PATH if has_path else "that proxy is older than this command"
            return Failed(f"{self.url} does not know this request: {why}")
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

    return ops_url_option((config_with_token_option if needs_token else config_option)(with_operations))


ops_url_option = click.option(
    "--ops-url", metavar="URL", help="Where operations listen; else ops.listen of the settings."
)


def object_of(body: bytes) -> dict[str, Any] | None:
    """The JSON object that a body is, None where it is none."""
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)

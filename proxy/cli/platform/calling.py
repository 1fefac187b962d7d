"""Asking Outlit by way of the proxy that runs: its answer, or one line of why there is none.

What these commands hold is `ops.token`. Outlit's key is the proxy's; here it has no flag, and is not sent.
"""

import functools
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, NoReturn

from proxy.cli.client import BrokenOff, Failed, Incoming
from proxy.cli.operations import Operations, ops_url_option
from proxy.cli.options import config_with_token_option
from proxy.cli.platform.refusals import MAY_BE_DONE, Refusal, in_words, read
from proxy.cli.platform.showing import write
from proxy.settings import Settings

_PATIENCE_S = 5.0
"""How much longer than gateway.timeout is waited: the proxy knows better what kept it."""

_STATUS_TIMEOUT_S = 5.0


@dataclass(frozen=True, slots=True)
class RunningGateway:
    """The gateway of a proxy that runs. `timeout_s`: of each wait for an answer, or for more of it."""

    operations: Operations
    timeout_s: float

    @contextmanager
    def asked(
        self,
        method: str,
        route: str,
        query: Mapping[str, object] | None = None,
        body: bytes | None = None,
        *,
        changes_nothing: bool = True,
    ) -> Iterator[Incoming]:
        """The answer of a route such as `tools/call`, of any status. Raises Failed where there is none.

        Unless it `changes_nothing`, what ends the wait for an answer says that it may have been done.
        """
        path = f"/platform/api/{route}"
        with self.operations.forwarded(method, path, query, body, self.timeout_s) as request:
            try:
                yield request.answer()
            except BrokenOff as error:
                if changes_nothing:
                    raise
                raise Failed(f"{error.message}; {MAY_BE_DONE}") from None

    def refusal(self, answer: Incoming, body: bytes) -> Refusal:
        """What an answer means that was not wanted. Raises Failed where there is no gateway to give it."""
        refusal = read(answer.status, answer.headers, body)
        # Anybody may answer so; an old proxy, too.
        if not refusal.is_own and (answer.status == 404 or not refusal.is_json):
            status = self.operations.status(_STATUS_TIMEOUT_S)
            if "gateway" not in status:
                raise Failed(f"{self.operations.url}: {status['version']} has no gateway: it is too old")
        return refusal

    def in_words(self, refusal: Refusal, *, changes_nothing: bool = True) -> str:
        """The same as one line."""
        return in_words(refusal, self.operations.url, datetime.now(UTC), changes_nothing=changes_nothing)

    def refuse(self, answer: Incoming, *, changes_nothing: bool = True, in_json: bool) -> NoReturn:
        """End the command for such an answer, and write its body before if `in_json`."""
        body = b"".join(answer.parts)
        refusal = self.refusal(answer, body)
        if in_json:
            write([body], answer.headers, in_json=True)
        raise Failed(self.in_words(refusal, changes_nothing=changes_nothing))


def gateway_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--config` and `--ops-url`, and pass the command the proxy's `gateway`."""

    @functools.wraps(command)
    def with_gateway(*args: Any, settings: Settings, ops_url: str | None, **given: Any) -> Any:
        gateway = RunningGateway(Operations.of(settings, ops_url), settings.gateway.timeout_s + _PATIENCE_S)
        return command(*args, gateway=gateway, **given)

    return ops_url_option(config_with_token_option(with_gateway))

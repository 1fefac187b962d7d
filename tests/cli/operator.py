"""An operator at a shell beside a proxy that runs, and the clients who post to it."""

import itertools
import json
import os
import pty
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from click.testing import CliRunner, Result

from proxy.cli import main
from tests.programs import OPS_TOKEN, OUTLIT_PROXY, Proxy, Sandbox, http, wait_for
from tests.sandbox.bodies import client, event

TIMEOUT_S = 60
_NUMBERS = itertools.count(1)


@dataclass(frozen=True, slots=True)
class Operator:
    """Runs commands with the settings of the proxy, as they stand in the environment."""

    proxy: Proxy
    sandbox: Sandbox

    @property
    def environment(self) -> dict[str, str]:
        return {
            "OUTLIT_PROXY_OPS_LISTEN": urlsplit(self.proxy.ops_url).netloc,
            "OUTLIT_PROXY_FRONT_LISTEN": urlsplit(self.proxy.url).netloc,
            "OUTLIT_PROXY_OPS_TOKEN": OPS_TOKEN,
        }

    def run(self, *arguments: str, **changed: str | None) -> Result:
        """A command without a terminal; `changed`: variables that differ, None where one is missing."""
        result = CliRunner().invoke(main, arguments, env={**self.environment, **changed})
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exc_info
        assert OPS_TOKEN not in result.output
        return result

    def told(self, *arguments: str) -> Any:
        """What a command that must succeed says as JSON."""
        result = self.run(*arguments, "--json")
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout)

    def on_a_terminal(
        self, arguments: Sequence[str], typed: str, meanwhile: Callable[[], object] = lambda: None
    ) -> tuple[int, str]:
        """The same at a terminal, where somebody answers its question; the exit code and all it said."""
        ours, theirs = pty.openpty()
        process = subprocess.Popen(
            [OUTLIT_PROXY, *arguments],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env={**os.environ, **self.environment, "TERM": "xterm"},
        )
        os.close(theirs)
        shown = b""
        try:
            while part := _read(ours):
                shown += part
                if shown.endswith(b"[y/N]: "):
                    meanwhile()
                    os.write(ours, typed.encode())
            return process.wait(TIMEOUT_S), shown.decode().replace("\r\n", "\n")
        finally:
            process.kill()
            process.wait()
            os.close(ours)

    # -- clients ---------------------------------------------------------------------------------------

    def post(self, key: str, *events: dict[str, Any], **envelope: Any) -> list[str]:
        """Events that are accepted; their uuids."""
        status, body = http(f"{self.proxy.url}/api/i/v1/{key}/events", client(*events, **envelope))
        assert status == 200, body
        return [each["uuid"] for each in events]

    def die(self, key: str, *events: dict[str, Any], **envelope: Any) -> list[str]:
        """Events that upstream refuses, each for itself; their uuids, once they are dead letters."""
        before = self.dead(key)
        self.sandbox.fault("refuse_indices", indices=list(range(len(events))), requests=1, public_key=key)
        uuids = self.post(key, *events, **envelope)
        wait_for("dead letters", lambda: self.dead(key) == before + len(events))
        return uuids

    def dead(self, key: str) -> int:
        """How many dead letters a key has."""
        count: int = self.told("dead", "list", "--key", key)["count"]
        return count

    def outage(self, key: str) -> None:
        """From now on upstream takes nothing of this key."""
        self.sandbox.fault("status", status=503, public_key=key)


def fresh(kind: str = "pageview", **fields: Any) -> dict[str, Any]:
    """An event with a uuid that no other has."""
    return event(kind, number=next(_NUMBERS), **fields)


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65_536)
    except OSError:  # the other end is closed
        return b""

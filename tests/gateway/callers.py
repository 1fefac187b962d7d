"""A service with its gateway between callers and an upstream, for all tests of a module."""

import asyncio
import hashlib
import io
import itertools
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from multidict import CIMultiDict
from pydantic import SecretStr
from yarl import URL

from proxy.ops.reloads import Reloads
from proxy.settings import Settings
from tests.stack import OPS_TOKEN, PATIENCE_S, Reply, Stack, read_reply, settings_of

BASES = ("/platform/api", "/api")
"""Where the gateway is found: by name, and where the vendor's own clients look."""

Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]

_NUMBERS = itertools.count(1)


def fresh_key() -> str:
    """A key that nobody had before."""
    return f"ok_{next(_NUMBERS):06d}" + "Zq7-kEy_" * 5


def mark(key: str) -> str:
    """How the sandbox's record tells keys apart."""
    return f"sha256:{hashlib.sha256(key.encode()).hexdigest()[:16]}"


def _is_done(reloads: Reloads) -> bool:
    return reloads.at_ms is not None


@dataclass
class Callers:
    """Callers of a gateway that runs, and the operator who sets it up anew for each test."""

    stack: Stack
    folder: Path
    found: list[Settings]
    """What the service finds when it reads its settings again."""
    api_key: str = ""
    """gateway.api_key of now."""
    own_key: str = ""
    """A caller's own, the test's alone."""

    @property
    def secret(self) -> SecretStr:
        """gateway.api_key of now, for another reload."""
        return SecretStr(self.api_key)

    async def begin(self, *, url: str | None = None, **gateway: Any) -> None:
        """Nothing is known and nothing ordered: other keys, no orders, an empty record, an upstream's URL."""
        self.api_key, self.own_key = fresh_key(), fresh_key()
        given: dict[str, Any] = {"api_key": self.secret, "timeout_s": 5.0, **gateway}
        await self.reload(url=url, **given)
        self.stack.sandbox.platform.incidents.clear()
        self.stack.sandbox.platform.calls.clear()

    async def reload(
        self,
        *,
        url: str | None = None,
        ops: Mapping[str, Any] | None = None,
        delivery: Mapping[str, Any] | None = None,
        **gateway: Any,
    ) -> None:
        """Have the service go by other settings; what is known already stays known."""
        tables = {"ops": ops or {}, "delivery": delivery or {}, "gateway": gateway}
        settings = settings_of(self.folder, url or self.stack.sandbox.url, **tables)
        self.found[:] = [settings]
        reloads = self.stack.service._reloads
        reloads.at_ms = None
        self.stack.service.reload()
        async with asyncio.timeout(PATIENCE_S):
            while not _is_done(reloads):  # noqa: ASYNC110  # the service's own state, which tells nobody
                await asyncio.sleep(0.001)
        assert (reloads.successful, reloads.needs_restart) == (True, ())

    # -- calling ---------------------------------------------------------------------------------------

    def authorized(self, caller: str) -> dict[str, str]:
        """`caller`: `operator` (ops.token), `own` (a key of their own), or a key as it is."""
        bearer = {"operator": OPS_TOKEN, "own": self.own_key}.get(caller, caller)
        return {"Authorization": f"Bearer {bearer}"}

    async def ask(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        caller: str = "operator",
        base: str = BASES[0],
        headers: Mapping[str, str] | None = None,
    ) -> Reply:
        """`path`: below /api. `body`: bytes as they are, anything else as JSON, None for none."""
        sent = {**self.authorized(caller), **(headers or {})}
        data = None
        if body is not None:
            data = io.BytesIO(body if isinstance(body, bytes) else json.dumps(body).encode())
            sent.setdefault("Content-Type", "application/json")
        url = URL(f"{self.stack.ops_url}{base}{path}", encoded=True)
        async with self.stack.http.request(
            method, url, data=data, headers=sent, allow_redirects=False
        ) as response:
            return Reply(response.status, CIMultiDict(response.headers), await response.read())

    async def tool(
        self,
        name: str = "outlit_list_customers",
        caller: str = "operator",
        given: Mapping[str, Any] | None = None,
        **more: Any,
    ) -> Reply:
        """Call a tool; `given`: its input."""
        body = {"tool": name, "input": given or {}}
        return await self.ask("POST", "/tools/call", body, caller=caller, **more)

    async def raw(self, request: bytes, *, until_closed: bool = False) -> Reply:
        """Send bytes on a connection of their own to the operations listener, and read one answer.

        `until_closed`: its body ends where the connection does.
        """
        url = URL(self.stack.ops_url)
        reader, writer = await asyncio.open_connection(url.host, url.port)
        try:
            writer.write(request)
            reply = await read_reply(reader)
            if until_closed:
                reply = replace(reply, body=reply.body + await reader.read())
            return reply
        finally:
            writer.close()
            await asyncio.gather(writer.wait_closed(), return_exceptions=True)

    @asynccontextmanager
    async def connections(self, number: int) -> AsyncIterator[list[Connection]]:
        """So many to the operations listener, on which nothing was said yet."""
        url = URL(self.stack.ops_url)
        connections = [await asyncio.open_connection(url.host, url.port) for _ in range(number)]
        try:
            yield connections
        finally:
            for _, writer in connections:
                writer.close()
            closing = (writer.wait_closed() for _, writer in connections)
            await asyncio.gather(*closing, return_exceptions=True)

    # -- the operator ----------------------------------------------------------------------------------

    async def retry(self) -> Reply:
        """Have the gateway forget what it remembers of plans."""
        async with self.stack.http.post(
            f"{self.stack.ops_url}/gateway/retry", headers=self.authorized("operator")
        ) as response:
            return Reply(response.status, response.headers, await response.read())

    async def status(self, caller: str = "operator") -> Any:
        """What `/status` says of the gateway."""
        reply = await self.stack.get("/status", **self.authorized(caller))
        assert reply.status == 200
        return reply.json["gateway"]

    async def counted(self, doing: Callable[[], Awaitable[Any]]) -> Callable[..., float]:
        """By how much each metric grew while it was done."""
        before = await self.stack.metrics()
        await doing()
        now = await self.stack.metrics()
        return lambda name, **labels: now(name, **labels) - before(name, **labels)

    # -- the sandbox -----------------------------------------------------------------------------------

    async def order(self, *orders: Mapping[str, Any]) -> None:
        """Have the sandbox answer, or fail, like this."""
        await self._control("POST", "platform", [dict(order) for order in orders])

    async def clear_orders(self) -> None:
        await self._control("DELETE", "platform")

    async def calls(self) -> list[dict[str, Any]]:
        """Every call that the sandbox got since the test began, in the order of arrival."""
        return [json.loads(line) for line in (await self._control("GET", "calls")).split(b"\n") if line]

    async def executed(self) -> list[dict[str, Any]]:
        """Those of them that did what they were for."""
        return [call for call in await self.calls() if call["executed"]]

    async def _control(self, method: str, path: str, body: Any = None) -> bytes:
        url = f"{self.stack.sandbox.url}/_sandbox/{path}"
        async with self.stack.http.request(method, url, json=body) as response:
            said = await response.read()
            assert response.status in {200, 201, 204}, said
            return said

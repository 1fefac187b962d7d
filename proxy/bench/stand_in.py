"""The sandbox as an upstream to measure against: a process of its own, spoken to over HTTP only.

Nothing of it is imported: what is measured shares neither its event loop nor its reading of the contract.
"""

import asyncio
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp
import orjson

from proxy.buffer.bench import BenchRefused

_START_S = 20.0
_STOP_S = 5.0


@dataclass(frozen=True, slots=True)
class Arrival:
    """One request, as the stand-in saw it: at `at`, Unix seconds on its clock, it counted."""

    at: float
    status: int | None
    events: int


@dataclass(frozen=True, slots=True)
class StandIn:
    """A sandbox that runs."""

    url: str
    _http: aiohttp.ClientSession

    async def order(self, sort: str, order: Mapping[str, object]) -> None:
        """Have something happen there: `sort` is the name of a route of its controls."""
        async with self._http.post(f"{self.url}/_sandbox/{sort}", data=orjson.dumps(order)) as answer:
            answer.raise_for_status()

    async def strangers_taken(self) -> int:
        """Requests that strangers have made until now and were granted."""
        async with self._http.get(f"{self.url}/_sandbox/stats") as answer:
            taken: dict[str, int] = (await answer.json())["strangers"]["taken"]
            return sum(taken.values())

    async def arrivals(self) -> list[Arrival]:
        """Every request since it was started, in order."""
        arrivals = []
        async with self._http.get(f"{self.url}/_sandbox/record") as answer:
            while line := await answer.content.readline():
                entry: Mapping[str, Any] = orjson.loads(line)
                arrivals.append(Arrival(entry["received_at"], entry["status"], len(entry["taken"])))
        return arrivals


@asynccontextmanager
async def standing_in(arguments: Sequence[str]) -> AsyncIterator[StandIn]:
    """Run ``outlit-proxy sandbox`` with these arguments, on a free port. Raises BenchRefused."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "proxy", "sandbox", "--listen", "127.0.0.1:0", *arguments),
        stdout=DEVNULL,
        stderr=PIPE,
    )
    try:
        async with aiohttp.ClientSession(trust_env=False, read_bufsize=2**22) as http:
            yield StandIn(await _url(process), http)
    finally:
        if process.returncode is None:
            process.terminate()
            try:
                await asyncio.wait_for(process.wait(), _STOP_S)
            except TimeoutError:
                process.kill()
                await process.wait()


async def _url(process: Process) -> str:
    """The address in the line that it says when it listens."""
    if process.stderr is None:
        raise TypeError("its stderr is a pipe")
    try:
        line = (await asyncio.wait_for(process.stderr.readline(), _START_S)).decode()
    except TimeoutError:
        line = ""
    words = line.split()
    if words[:2] != ["sandbox", "at"]:
        raise BenchRefused(f"the sandbox did not start: {line.strip() or 'it said nothing'}")
    return words[2].rstrip(";")

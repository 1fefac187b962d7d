"""The Sentinels of a service: who its primary is."""

import asyncio
from collections import Counter
from collections.abc import Sequence

from proxy.buffer.contract import BufferFault, BufferUnavailable
from proxy.buffer.redis.link.entrance import Address, Entrance, shown
from proxy.buffer.redis.link.errors import Misconfigured
from proxy.buffer.redis.link.keeping import Keeping
from proxy.buffer.redis.link.server import Ask, Server


class Sentinels:
    """All are asked at once, and the majority counts: one that is cut off names the primary of yesterday."""

    def __init__(self, hosts: Sequence[tuple[str, int]], entrance: Entrance, service: str) -> None:
        self._service = service
        self._servers = [_fixed(host, entrance) for host in hosts]
        self._where = ", ".join(map(shown, hosts))
        self._asking: set[asyncio.Task[Address | None]] = set()

    async def primary(self) -> Address:
        """Where the primary is. Raises BufferUnavailable."""
        votes: Counter[Address] = Counter()
        faults: list[BufferFault] = []
        asking = {asyncio.create_task(self._asked(each), name="ask a Sentinel") for each in self._servers}
        self._asking |= asking
        for task in asking:
            task.add_done_callback(self._forget)
        while asking:
            done, asking = await asyncio.wait(asking, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                error = task.exception()
                if isinstance(error, BufferFault):
                    faults.append(error)
                elif address := task.result():
                    votes[address] += 1
                    if votes[address] > len(self._servers) // 2:
                        return address
        if votes:
            return votes.most_common(1)[0][0]
        if len(faults) < len(self._servers):
            raise Misconfigured(
                f'the Sentinels at {self._where} know no service "{self._service}": correct buffer.url'
            )
        raise BufferUnavailable(f"no Sentinel answers: {faults[0]}") from faults[0]

    async def close(self) -> None:
        if self._asking:
            await asyncio.wait(self._asking)
        await asyncio.gather(*(server.close() for server in self._servers))

    async def _asked(self, sentinel: Server) -> Address | None:
        found = await sentinel.ask("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self._service)
        return None if found is None else (found[0].decode(), int(found[1]))

    def _forget(self, task: "asyncio.Task[Address | None]") -> None:
        self._asking.discard(task)
        if not task.cancelled():
            task.exception()


async def check_primary(ask: Ask) -> None:
    """Return if the server of this connection is a primary. Raises BufferUnavailable."""
    role = await ask("ROLE")
    if role[0] != b"master":
        raise BufferUnavailable(
            "the server that the Sentinels name as primary says it is a replica: a failover is under way"
        )


def _fixed(host: Address, entrance: Entrance) -> Server:
    async def find() -> Address:
        return host

    return Server(find, entrance, Keeping())

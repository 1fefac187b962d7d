"""The door: a link to whatever stands behind `buffer.url`."""

from proxy.buffer.redis.link.cluster import ClusterLink
from proxy.buffer.redis.link.contract import Link
from proxy.buffer.redis.link.entrance import Address, entrance_of, entrance_of_sentinels
from proxy.buffer.redis.link.errors import Misconfigured
from proxy.buffer.redis.link.keeping import Durability, Keeping
from proxy.buffer.redis.link.sentinels import Sentinels, check_primary
from proxy.buffer.redis.link.server import Ask, Greet, Server
from proxy.buffer.redis.link.standalone import StandaloneLink
from proxy.settings.redis_url import Target

__all__ = ["Ask", "Durability", "Greet", "Misconfigured", "open_link"]


async def open_link(
    target: Target,
    *,
    durability: Durability = "everysec",
    replicas: int = 1,
    wait_timeout_s: float = 1.0,
    greet: Greet | None = None,
) -> Link:
    """A link that has been connected once; it must be closed.

    `replicas`, `wait_timeout_s`: for `kept` (see `Keeping`). `greet(ask)` is awaited on each new connection
    to the server that has the fleet's layout, before anything else is asked on it; where it raises a
    BufferFault, the connection is refused, and who needed it gets that.
    Raises BufferUnavailable (Misconfigured, where trying again is of no use), or what `greet` raised.
    """
    keeping = Keeping(durability, replicas, wait_timeout_s)
    entrance = entrance_of(target)
    if target.kind == "cluster":
        cluster = ClusterLink(target.hosts, entrance, keeping, greet)
        try:
            await cluster.connect()
        except BaseException:
            await cluster.close()
            raise
        return cluster
    sentinels = None
    if target.kind == "sentinel":
        sentinels = Sentinels(target.hosts, entrance_of_sentinels(target), target.service)
        primary = Server(sentinels.primary, entrance, keeping, _first_primary(greet))
    else:
        address: Address = target.path or target.hosts[0]

        async def find() -> Address:
            return address

        primary = Server(find, entrance, keeping, greet)
    link = StandaloneLink(primary, sentinels)
    try:
        await primary.opened(kept=False)
    except BaseException:
        await link.close()
        raise
    return link


def _first_primary(greet: Greet | None) -> Greet:
    """Under Sentinels: nothing is to be looked at on a server that is no primary."""

    async def both(ask: Ask) -> None:
        await check_primary(ask)
        if greet is not None:
            await greet(ask)

    return both

"""When a write counts as kept: what is asked behind it, on its connection and in its round trip."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from hiredis import ReplyError

from proxy.buffer.contract import BufferUnavailable
from proxy.buffer.redis.link.calls import pack
from proxy.buffer.redis.link.errors import Misconfigured, refusal

if TYPE_CHECKING:
    from proxy.buffer.redis.link.wire import Wire

Durability = Literal["everysec", "always", "replica"]


@dataclass(frozen=True, slots=True)
class Keeping:
    """The durability that the operator chose.

    `everysec`: kept when it is done; Redis syncs it within a second. `always`: when it is on the disk of the
    primary. `replica`: when so many `replicas` have it in memory. Redis waits `wait_timeout_s` for that at
    most; then the write is there, but nobody may say that it is kept.

    WAIT and WAITAOF wait for the last write *of their connection* (from Redis 7.2 on). So what was found done
    before proves nothing, unless the script wrote something itself.
    """

    durability: Durability = "everysec"
    replicas: int = 1
    wait_timeout_s: float = 1.0

    @property
    def waits(self) -> bool:
        """Whether Redis holds answers back until the write is kept."""
        return self.durability != "everysec"

    @property
    def longest_s(self) -> float:
        """How much longer than others a kept write may take."""
        return self.wait_timeout_s if self.waits else 0.0

    async def behind(self, wire: "Wire") -> bytes:
        """The packed command to send behind each kept write on this connection; empty, where none is needed.

        Raises BufferUnavailable where the server cannot keep as was chosen.
        """
        timeout_ms = max(1, round(self.wait_timeout_s * 1000))
        match self.durability:
            case "everysec":
                return b""
            case "replica":
                return pack(("WAIT", self.replicas, timeout_ms))
            case "always":
                # Nothing was written on it, so a server that can answers at once.
                [answer] = await wire.exchange(pack(("WAITAOF", 1, 0, 1)), 1)
                if not isinstance(answer, ReplyError):
                    return pack(("WAITAOF", 1, 0, timeout_ms))
                if "unknown command" in str(answer):
                    return b""  # before 7.2: with `appendfsync always` the answer itself comes after the sync
                if "appendonly is disabled" in str(answer):
                    raise Misconfigured(
                        f"Redis at {wire.where} has no append-only file, which durability always needs:"
                        " set its appendonly yes and appendfsync always"
                    )
                raise refusal(answer, "WAITAOF", wire.where)

    def check(self, answer: Any, where: str) -> None:
        """Return if this answer to what was sent `behind` says kept. Raises BufferUnavailable."""
        if isinstance(answer, ReplyError):
            raise refusal(answer, "WAIT" if self.durability == "replica" else "WAITAOF", where)
        if self.durability == "replica" and answer < self.replicas:
            raise BufferUnavailable(
                f"kept by {answer} of {self.replicas} replicas of Redis at {where} within"
                f" {self.wait_timeout_s:g} s: see to its replicas, or lower buffer.replicas"
            )
        if self.durability == "always" and answer[0] < 1:
            raise BufferUnavailable(
                f"not on the disk of Redis at {where} within {self.wait_timeout_s:g} s: set its appendfsync"
                " always, see to its disk, or raise buffer.wait_timeout"
            )

"""What is wrong with a Redis for what is kept in it, read off its INFO: pure, values in, values out.

A finding is one line: where, what, what it costs, what to do. Some make a Redis unfit: no process starts on
it. At run time these are alarms like the others: who changed something under a running fleet is helped by
neither silence nor an outage. What a managed service does not say of itself is not judged.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from proxy.buffer.redis.link import Durability
from proxy.buffer.values import Terms
from proxy.ledger import Unsafe
from proxy.settings.redis_url import Target

OLDEST = (7, 0)
"""The first Redis whose scripts say for themselves what they may do when it is full. Every Valkey can."""

FIRST_WITH_WAITAOF = (7, 2)
"""From here on a process can wait until a write is on the disk, whatever `appendfsync` is."""

HEADROOM = 0.05
"""Part of `maxmemory` that appends leave free: for what ends leases and writes the books, and for buffers of
Redis's own. Draining goes on in a full Redis, but slower, and others' writes are refused there too."""

_ROOM_AGAIN = 0.07
"""Part that must be free before appends are taken again, so that they do not come and go with each batch."""

NEAR_FULL = 0.8
"""Part of `maxmemory` from which it pays to look more often."""

Info = Mapping[str, str]
"""What INFO says of one primary: field to text."""


@dataclass(frozen=True, slots=True)
class Finding:
    """`is_fatal`: a process must not start on such a Redis."""

    text: str
    is_fatal: bool = False


@dataclass(frozen=True, slots=True)
class Demands:
    """What the settings ask of a Redis."""

    target: Target
    terms: Terms
    durability: Durability
    replicas: int

    def findings(self, infos: Sequence[Info], appendfsync: str | None = None) -> dict[Unsafe, Finding]:
        """What is wrong now, at most one finding a reason: the worst of the first primary that has it.

        `infos`: of each primary. `appendfsync`: its setting, None where it is not known.
        """
        found: dict[Unsafe, Finding] = {}
        for info in infos:
            where = self._where(info, among=len(infos))
            for reason, finding in self._of_one(where, info, appendfsync):
                if reason not in found or finding.is_fatal > found[reason].is_fatal:
                    found[reason] = finding
        if bounds := self._bounds(infos):
            found[Unsafe.BOUNDS] = bounds
        if in_clear := self._in_clear():
            found[Unsafe.IN_CLEAR] = in_clear
        return found

    def _where(self, info: Info, *, among: int) -> str:
        node = f", the node with port {info['tcp_port']}," if among > 1 and "tcp_port" in info else ""
        return f"Redis at {self.target}{node}"

    def _of_one(self, where: str, info: Info, appendfsync: str | None) -> Iterator[tuple[Unsafe, Finding]]:
        version = version_of(info)
        if version is not None and version < OLDEST:
            yield (
                Unsafe.VERSION,
                Finding(
                    f"{where} is version {info['redis_version']}, which no script can drain when it is full:"
                    " upgrade to Redis 7.0 or later, or to Valkey",
                    is_fatal=True,
                ),
            )
        yield from self._roles(where, info)
        policy = info.get("maxmemory_policy", "noeviction")
        if policy.startswith("allkeys"):
            yield (
                Unsafe.EVICTION,
                Finding(
                    f"{where} evicts any key when it is full (maxmemory-policy {policy}), acknowledged events"
                    " too: set its maxmemory-policy to noeviction",
                    is_fatal=True,
                ),
            )
        elif policy != "noeviction":
            yield (
                Unsafe.EVICTION,
                Finding(
                    f"{where} evicts keys that expire when it is full (maxmemory-policy {policy}): events"
                    " that clients send again are then delivered twice: set maxmemory-policy to noeviction"
                ),
            )
        yield from self._persistence(where, info, appendfsync)
        if (used := used_part(info)) is not None and used > 1 - HEADROOM:
            yield Unsafe.MEMORY, Finding(_no_room(where, info))

    def _roles(self, where: str, info: Info) -> Iterator[tuple[Unsafe, Finding]]:
        if info.get("role", "master") != "master":
            yield (
                Unsafe.ROLE,
                Finding(
                    f"{where} is a replica{_of_whom(info)} and takes no writes, so nothing is accepted or"
                    " delivered: name its primary in buffer.url, or the Sentinels (redis+sentinel://)",
                    is_fatal=True,
                ),
            )
        elif info.get("cluster_enabled") == "1" and self.target.kind != "cluster":
            yield (
                Unsafe.ROLE,
                Finding(
                    f"{where} is a node of a cluster, and public keys of other nodes could not be kept: write"
                    " redis+cluster:// in buffer.url",
                    is_fatal=True,
                ),
            )
        if self.durability == "replica" and (online := _replicas_online(info)) < self.replicas:
            yield (
                Unsafe.REPLICAS,
                Finding(
                    f"{where} has {online} of the {self.replicas} replicas that buffer.replicas asks for:"
                    " posts are answered 503 until they are back: see to them, or lower buffer.replicas"
                ),
            )

    def _persistence(
        self, where: str, info: Info, appendfsync: str | None
    ) -> Iterator[tuple[Unsafe, Finding]]:
        version = version_of(info)
        if info.get("aof_enabled") == "0":
            yield Unsafe.PERSISTENCE, self._without_file(where)
        elif self.durability == "always" and appendfsync not in {None, "always"}:
            can_wait = version is None or version >= FIRST_WITH_WAITAOF
            cost = (
                "each post waits for its next sync, up to a second"
                if can_wait
                else "this version cannot say when an event is on its disk, so a crash of its host loses what"
                " was acknowledged before"
            )
            yield (
                Unsafe.PERSISTENCE,
                Finding(
                    f'{where} has appendfsync {appendfsync}, and buffer.durability is "always": {cost}:'
                    " set its appendfsync to always",
                    is_fatal=not can_wait,
                ),
            )
        for field, what in (
            ("aof_last_write_status", "cannot write its append-only file, and refuses writes until it can"),
            ("rdb_last_bgsave_status", "could not save its last snapshot, and may refuse writes for it"),
            ("aof_last_bgrewrite_status", "could not rewrite its append-only file, which grows meanwhile"),
        ):
            if info.get(field, "ok") != "ok":
                yield (
                    Unsafe.SAVING,
                    Finding(f"{where} {what} ({field} {info[field]}): see to its disk and log"),
                )
                return

    def _without_file(self, where: str) -> Finding:
        cost = "when it restarts, all that was acknowledged since its last snapshot is lost"
        if self.durability == "replica":
            cost += ", and its replicas then forget it too"
        text = f"{where} keeps no append-only file: {cost}: set its appendonly to yes"
        if self.durability == "always":
            return Finding(f'{text}, or buffer.durability to "everysec"', is_fatal=True)
        return Finding(text)

    def _bounds(self, infos: Sequence[Info]) -> Finding | None:
        """Where there is less memory than the buffer may take; of a cluster, all of it together."""
        wanted = self.terms.max_bytes + self.terms.dead_max_bytes
        room = [_number(info, "maxmemory") for info in infos]
        has, cost = "a maxmemory of", "Redis is full first, and then takes no key's events and nothing else"
        remedy = "raise its maxmemory, or lower them"
        if 0 in room:
            room = [_number(info, "total_system_memory") for info in infos]
            has, cost = "no maxmemory, on a machine with", "the system kills Redis first"
            remedy = "set its maxmemory below that"
        if not room or 0 in room or sum(room) >= wanted:
            return None
        return Finding(
            f"Redis at {self.target} has {has} {_shown(sum(room))}, less than buffer.max_bytes and"
            f" dead.max_bytes together ({_shown(wanted)}): {cost}: {remedy}"
        )

    def _in_clear(self) -> Finding | None:
        if not self.target.in_clear_over_network:
            return None
        read = "can read the password and the events, and alter them"
        if self.target.password is None:
            read = "can read and alter the events, and Redis asks for no password"
        return Finding(
            f"Redis at {self.target} is reached in clear over a network: who is on it {read}: use TLS"
            " (rediss://, or ?tls=true)"
        )


def shown(infos: Sequence[Info]) -> dict[str, str]:
    """What these servers are, in the words of a line at the start."""
    first = infos[0] if infos else {}
    server = f"Redis {first.get('redis_version', 'of unknown version')}"
    if "valkey_version" in first:
        server = f"Valkey {first['valkey_version']}"
    is_saved = {"0": "no", "1": "yes"}.get(first.get("aof_enabled", ""), "unknown")
    return {"server": server, "primaries": str(len(infos)), "append_only_file": is_saved}


def version_of(info: Info) -> tuple[int, int] | None:
    """Of Redis, or what Valkey says it is like (7.2); None where it says nothing that can be read."""
    match = re.match(r"(\d+)\.(\d+)", info.get("redis_version", ""))
    return None if match is None else (int(match[1]), int(match[2]))


def used_part(info: Info) -> float | None:
    """How much of `maxmemory` is in use, as Redis itself counts it; None where there is no bound."""
    most = _number(info, "maxmemory")
    if not most:
        return None
    return (_number(info, "used_memory") - _number(info, "mem_not_counted_for_evict")) / most


def full(infos: Sequence[Info], before: str | None, target: Target) -> str | None:
    """Why appends must be refused: no primary has room. `before`: what this said last.

    One node of a cluster that is full refuses by itself, and the keys of the others are taken.
    """
    limit = 1 - (_ROOM_AGAIN if before else HEADROOM)
    used = [used_part(info) for info in infos]
    if not used or any(part is None or part <= limit for part in used):
        return None
    return _no_room(f"Redis at {target}", infos[0])


def _no_room(where: str, info: Info) -> str:
    return (
        f"{where} uses more than {1 - HEADROOM:.0%} of its maxmemory ({_shown(_number(info, 'maxmemory'))}):"
        " posts are answered 503, and delivery goes on: raise its maxmemory, or wait until it has drained"
    )


def _of_whom(info: Info) -> str:
    return f" of {info['master_host']}:{info.get('master_port', '?')}" if "master_host" in info else ""


def _replicas_online(info: Info) -> int:
    each = [text for name, text in info.items() if re.fullmatch(r"slave\d+", name)]
    if each:
        return sum("state=online" in text for text in each)
    return _number(info, "connected_slaves")


def _number(info: Info, field: str) -> int:
    """0 where it is missing or none: what is not known is not judged."""
    text = info.get(field, "")
    return int(text) if text.isdecimal() else 0


def _shown(bytes_: int) -> str:
    return f"{bytes_ / 1e9:.1f} GB" if bytes_ >= 1e9 else f"{bytes_ / 1e6:.1f} MB"

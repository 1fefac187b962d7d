"""What each durability on Redis can lose when the machine under Redis dies, measured with the real programs.

    python -m tests.faults.losses [--trials 10]

In a trial clients post while nothing is delivered, so all that was acknowledged is in Redis alone. Then the
machine dies: its process by SIGKILL, and of its append-only file everything goes that was not synced (seen by
strace), or the whole machine with its disk, and what was on the way to its replica. Or nothing dies, and an
operator has another server take over. Redis goes on with what is left, all is delivered, and what was
acknowledged but never arrived is counted.
"""

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random

from proxy.bench.table import Table
from tests.faults.between import between
from tests.faults.installation import installed
from tests.faults.load import Client, clients, mark_of, under_load
from tests.faults.stand_in import running_sandbox
from tests.faults.synced import syncs_watched
from tests.programs import Proxy, Sandbox, wait_for
from tests.redis_servers import RedisServer, Sentinels

BROWSERS, SERVERS = 8, 4
LAG_S = 0.05
"""Of what goes from a server to its replica, and back: two halls of one town, or a busy network."""

SLOW_SYNC_S = 0.5

NOT_REWRITTEN = {"auto-aof-rewrite-percentage": "0"}


@dataclass(frozen=True, slots=True)
class Loss:
    """What one trial has shown."""

    acknowledged: int
    """Events for which a client had its 2xx when the machine died, or the failover was over."""
    lost: int
    oldest_s: float
    """From when the oldest of the lost was acknowledged until the machine died, or the last was lost."""


def process_killed(folder: Path, seed: int) -> Loss:
    """`everysec`; only the process of Redis dies."""
    return _on_one_server(folder, seed, "everysec", is_power_lost=False)


def killed_beside_a_slow_disk(folder: Path, seed: int) -> Loss:
    """`everysec`; only the process of Redis dies, and each of its syncs lasts.

    While one does, Redis answers, and writes what it has done into its file up to 2 s later.
    """
    return _on_one_server(folder, seed, "everysec", is_power_lost=False, sync_s=SLOW_SYNC_S)


def power_lost_everysec(folder: Path, seed: int) -> Loss:
    """`everysec`; the machine's power fails."""
    return _on_one_server(folder, seed, "everysec", is_power_lost=True)


def power_lost_always(folder: Path, seed: int) -> Loss:
    """`always`; the machine's power fails."""
    return _on_one_server(folder, seed, "always", is_power_lost=True)


def machine_lost_unconfirmed(folder: Path, seed: int) -> Loss:
    """`everysec` with a replica that nobody waits for; the machine is lost, the replica takes over."""
    return _on_two_servers(folder, seed, durability="everysec")


def machine_lost_confirmed(folder: Path, seed: int) -> Loss:
    """`replica`; the machine is lost, its replica takes over."""
    return _on_two_servers(folder, seed, durability="replica")


def failed_over_unconfirmed(folder: Path, seed: int) -> Loss:
    """`everysec`; the Sentinels are told to make another server the primary."""
    return _under_sentinels(folder, seed, replicas=0)


def failed_over_one_confirmed(folder: Path, seed: int) -> Loss:
    """`replica`, one of two; the Sentinels are told to make another server the primary."""
    return _under_sentinels(folder, seed, replicas=1)


def failed_over_all_confirmed(folder: Path, seed: int) -> Loss:
    """`replica`, both of two; the Sentinels are told to make another server the primary."""
    return _under_sentinels(folder, seed, replicas=2)


Trial = Callable[[Path, int], Loss]
"""Takes an empty folder and a seed, which decides what is posted and when the machine dies."""

CASES: dict[str, Trial] = {
    "everysec, Redis killed": process_killed,
    "everysec, Redis killed, its disk takes 0.5 s to sync": killed_beside_a_slow_disk,
    "everysec, power of the Redis host lost": power_lost_everysec,
    "always, power of the Redis host lost": power_lost_always,
    "everysec, host lost with its disk, a replica takes over": machine_lost_unconfirmed,
    "replica, host lost with its disk, a replica takes over": machine_lost_confirmed,
    "everysec, SENTINEL FAILOVER": failed_over_unconfirmed,
    "replica, 1 of 2 confirmed, SENTINEL FAILOVER": failed_over_one_confirmed,
    "replica, 2 of 2 confirmed, SENTINEL FAILOVER": failed_over_all_confirmed,
}


def _on_one_server(
    folder: Path, seed: int, durability: str, *, is_power_lost: bool, sync_s: float = 0.0
) -> Loss:
    options = {"appendfsync": durability, **NOT_REWRITTEN}
    with ExitStack() as running, ExitStack() as watch:
        server = running.enter_context(RedisServer(folder / "redis", options=options))
        proxy, sandbox = running.enter_context(_held_back(folder, server.url, durability))
        log = folder / "strace.log"
        file = watch.enter_context(syncs_watched(server.pid, server.folder, log, sync_s=sync_s))
        posting = clients(BROWSERS, SERVERS, seed=seed)
        with under_load(proxy, posting):
            _wait_for_the_moment(proxy, seed)
            server.kill()
            died_at = time.monotonic()
            watch.close()
            if is_power_lost:
                file.lose_what_was_not_synced()
            server.start()
        return _loss(proxy, sandbox, posting, died_at)


def _on_two_servers(folder: Path, seed: int, *, durability: str) -> Loss:
    with ExitStack() as running:
        first = running.enter_context(RedisServer(folder / "first"))
        link = running.enter_context(between(first.port, lag_s=LAG_S))
        second = running.enter_context(_replica_of(link.port, folder / "second"))
        wire = running.enter_context(between(first.port))
        settings = {"BUFFER_REPLICAS": "1"} if durability == "replica" else {}
        url = f"redis://127.0.0.1:{wire.port}"
        proxy, sandbox = running.enter_context(_held_back(folder, url, durability, **settings))
        posting = clients(BROWSERS, SERVERS, seed=seed)
        with under_load(proxy, posting):
            _wait_for_the_moment(proxy, seed)
            link.is_lost = True
            first.kill()
            died_at = time.monotonic()
            second.command("REPLICAOF", "NO", "ONE")
            wire.to_port = second.port
            # In the place of the first, with an empty disk: somebody must confirm what is posted now.
            running.enter_context(_replica_of(second.port, folder / "third"))
        return _loss(proxy, sandbox, posting, died_at)


def _under_sentinels(folder: Path, seed: int, *, replicas: int) -> Loss:
    settings = {"BUFFER_REPLICAS": str(replicas)} if replicas else {}
    durability = "replica" if replicas else "everysec"
    with (
        Sentinels(folder / "redis") as deployment,
        _held_back(folder, deployment.url, durability, **settings) as (proxy, sandbox),
    ):
        posting = clients(BROWSERS, SERVERS, seed=seed)
        with under_load(proxy, posting):
            _wait_for_the_moment(proxy, seed)
            deployment.failover()
            wait_for("the replicas to follow", lambda: _replicas_of(deployment.master()) == 2, 60)
        return _loss(proxy, sandbox, posting)


def _replicas_of(server: RedisServer) -> int:
    told = server.client.info("replication")
    links = (told.get(f"slave{number}", {}) for number in range(2))
    return sum(link.get("state") == "online" for link in links)


@contextmanager
def _replica_of(port: int, folder: Path) -> Iterator[RedisServer]:
    with RedisServer(folder, options={"replicaof": f"127.0.0.1 {port}"}) as server:
        wait_for("the replica", lambda: server.client.info("replication")["master_link_status"] == "up")
        yield server


@contextmanager
def _held_back(folder: Path, url: str, durability: str, **settings: str) -> Iterator[tuple[Proxy, Sandbox]]:
    """A proxy from which nothing is taken yet."""
    given = {"BUFFER_URL": url, "BUFFER_DURABILITY": durability, **settings}
    with running_sandbox(folder) as sandbox, installed(folder, sandbox, **given) as proxy:
        sandbox.fault("status", status=429, retry_after_s=1)
        proxy.start()
        yield proxy, sandbox


def _wait_for_the_moment(proxy: Proxy, seed: int) -> None:
    proxy.wait_until_accepted(50)
    time.sleep(Random(seed).uniform(1, 2))  # any moment between two syncs


def _loss(proxy: Proxy, sandbox: Sandbox, posting: Sequence[Client], died_at: float | None = None) -> Loss:
    """`died_at`: what was acknowledged later cannot have been lost."""
    sandbox.clear_faults()
    proxy.wait_until_ready()
    proxy.wait_until_empty(60)
    arrived = {mark_of(taken.event) for taken in sandbox.taken()}
    by_then = {
        mark: at
        for client in posting
        for mark, at in client.acknowledged.items()
        if died_at is None or at <= died_at
    }
    lost = [at for mark, at in by_then.items() if mark not in arrived]
    if not lost:
        return Loss(len(by_then), 0, 0.0)
    return Loss(len(by_then), len(lost), (died_at or max(lost)) - min(lost))


def _measure(trials: int) -> None:
    print(f"A replica is {LAG_S * 1000:.0f} ms behind.")
    table = Table("", "acknowledged", "lost", f"most in one of {trials}", "of the last", first_width=58)
    for name, trial in CASES.items():
        losses = []
        for seed in range(trials):
            with tempfile.TemporaryDirectory() as folder:
                losses.append(trial(Path(folder), seed))
        lost = sum(loss.lost for loss in losses)
        table.row(
            name,
            f"{sum(loss.acknowledged for loss in losses):,}",
            f"{lost:,}",
            f"{max(loss.lost for loss in losses):,}",
            f"{max(loss.oldest_s for loss in losses):.2f} s" if lost else "-",
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--trials", type=int, default=10, help="of each case")
    _measure(parser.parse_args().trials)

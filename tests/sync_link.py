"""A link to a real deployment by synchronous connections: a call is one step, and nothing waits meanwhile.

For loops in virtual time, in which real waiting has no place. Slots stay where the deployment put them.
"""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from redis.connection import UnixDomainSocketConnection
from redis.exceptions import NoScriptError, OutOfMemoryError, ResponseError

from proxy.buffer import BufferUnavailable
from proxy.buffer.redis.link import Argument, Link, OutOfMemory
from proxy.buffer.redis.scripts import Script
from tests.redis_servers import Deployment, RedisServer


class SyncLink(Link):
    """What Redis says of a script or command that it could not carry out comes out as Redis said it."""

    def __init__(self, deployment: Deployment) -> None:
        self._deployment = deployment
        self._connections: dict[RedisServer, UnixDomainSocketConnection] = {}
        self._is_open = True

    async def run(
        self, script: Script, keys: Sequence[bytes], args: Sequence[Argument], *, kept: bool = False
    ) -> Any:
        return self._run(self._deployment.server_of(keys[0]), script, keys, args)

    async def ask(self, command: str, key: bytes, *args: Argument) -> Any:
        return self._ask(self._deployment.server_of(key), command, key, *args)

    async def ask_each(self, commands: Sequence[tuple[str, bytes, *tuple[Argument, ...]]]) -> list[Any]:
        answers: list[Any] = [None] * len(commands)
        places: dict[RedisServer, list[int]] = defaultdict(list)
        for place, (_, key, *_args) in enumerate(commands):
            places[self._deployment.server_of(key)].append(place)
        for server, own in places.items():
            connection = self._connection(server)
            connection.send_packed_command(connection.pack_commands([commands[place] for place in own]))
            for place in own:
                answers[place] = _sound(connection.read_response())
        return answers

    async def run_everywhere(self, script: Script, args: Sequence[Argument]) -> list[Any]:
        return [self._run(server, script, (), args) for server in self._deployment.primaries]

    async def info(self) -> list[dict[str, str]]:
        texts = [self._ask(server, "INFO").decode() for server in self._deployment.primaries]
        return [dict(line.split(":", 1) for line in text.splitlines() if ":" in line) for text in texts]

    async def close(self) -> None:
        self.hang_up()

    def hang_up(self) -> None:
        """What the end of a process leaves of its connections."""
        self._is_open = False
        for connection in self._connections.values():
            connection.disconnect()
        self._connections.clear()

    def _run(
        self, server: RedisServer, script: Script, keys: Sequence[bytes], args: Sequence[Argument]
    ) -> Any:
        try:
            try:
                return self._ask(server, "EVALSHA", script.sha, len(keys), *keys, *args)
            except NoScriptError:
                return self._ask(server, "EVAL", script.text, len(keys), *keys, *args)
        except OutOfMemoryError as error:
            raise OutOfMemory(str(error)) from error

    def _ask(self, server: RedisServer, *command: Argument) -> Any:
        connection = self._connection(server)
        connection.send_command(*command)
        return _sound(connection.read_response())

    def _connection(self, server: RedisServer) -> UnixDomainSocketConnection:
        if not self._is_open:
            raise BufferUnavailable("the link is closed")
        connection = self._connections.get(server)
        if connection is None:
            connection = UnixDomainSocketConnection(  # type: ignore[abstract]  # it has no host
                path=str(server.socket), protocol=2
            )
            self._connections[server] = connection
        return connection


def _sound(answer: Any) -> Any:
    if isinstance(answer, ResponseError):
        raise answer
    return answer

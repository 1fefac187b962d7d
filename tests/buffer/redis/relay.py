"""What stands between a link and its Redis in a test: it delays, loses, and counts."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress


class Relay:
    """Passes bytes on, each piece `delay_s()` later. `loses_answers`: what Redis says goes nowhere."""

    def __init__(self, to_port: int) -> None:
        self.port = 0
        self.delay_s: Callable[[], float] = float
        self.loses_answers = False
        self.connections = 0
        """How many were ever made."""
        self._to_port = to_port
        self._writers: set[asyncio.StreamWriter] = set()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    def cut(self) -> None:
        """Reset all connections."""
        for writer in self._writers:
            writer.transport.abort()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        up_reader, up_writer = await asyncio.open_connection("127.0.0.1", self._to_port)
        self._writers |= {writer, up_writer}
        try:
            async with asyncio.TaskGroup() as ways:
                ways.create_task(self._pass_on(reader, up_writer, is_answer=False))
                ways.create_task(self._pass_on(up_reader, writer, is_answer=True))
        finally:
            for each in (writer, up_writer):
                self._writers.discard(each)
                each.close()
                with suppress(OSError):
                    await each.wait_closed()

    async def _pass_on(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, is_answer: bool
    ) -> None:
        with suppress(OSError):
            while piece := await reader.read(65_536):
                if delay_s := self.delay_s():
                    await asyncio.sleep(delay_s)
                if not (is_answer and self.loses_answers):
                    writer.write(piece)
                    await writer.drain()
        writer.close()


@asynccontextmanager
async def relay_to(port: int) -> AsyncIterator[Relay]:
    """A relay on a port of its own."""
    relay = Relay(port)
    server = await asyncio.start_server(relay.serve, "127.0.0.1", 0)
    relay.port = server.sockets[0].getsockname()[1]
    try:
        yield relay
    finally:
        server.close()
        relay.cut()
        await server.wait_closed()
        await asyncio.sleep(0.01)  # the ways end by the cut

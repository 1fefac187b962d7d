"""What outlives the processes of a run: the store, and what each process has of it."""

from abc import ABC, abstractmethod
from collections.abc import Mapping

from proxy.buffer import Buffer, KeyFigures, Terms
from proxy.wire.limits import PublicKey
from tests.simulation.evidence import Broken


class Life(ABC):
    """The store as one process sees it, from its start to its end."""

    @abstractmethod
    async def opened(self, terms: Terms) -> Buffer:
        """The engine on it; the books were recounted. Raises Broken where they do not balance."""

    @abstractmethod
    def around(self, engine: Buffer, terms: Terms) -> Buffer:
        """The engine, watched by those outside."""

    @abstractmethod
    def kill(self) -> None:
        """Set aside what SIGKILL leaves. Nothing of the process has ended yet."""

    @abstractmethod
    def end(self) -> None:
        """The process is gone, one way or the other."""


class Storage(ABC):
    """The store of a run, over all lives of the proxy."""

    @abstractmethod
    def life(self) -> Life:
        """Of a process that starts now."""

    @abstractmethod
    async def recounted(self, engine: Buffer) -> Mapping[PublicKey, KeyFigures]:
        """The figures of one moment, recounted. Raises Broken where the books do not balance."""

    @abstractmethod
    def set_clock(self, ahead_s: float) -> None:
        """Set the time of day of the machine that the store's clock stands on ahead; back, too."""

    @abstractmethod
    def close(self) -> None:
        """The run is over."""


def check_books(figures: Mapping[PublicKey, KeyFigures]) -> None:
    """Raises Broken where the books do not balance, or a recount of the data disagrees with them."""
    for key, of in figures.items():
        books = of.books
        if books.difference or books.accepted != books.held + books.delivered + books.dead + books.dropped:
            raise Broken(f"the books of {key} do not balance: {books}")

"""A key that must be nowhere, and the search for it.

Imports nothing of the proxy's: the tests that start the programs use it, too.
"""

import hashlib
import secrets
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

_SHORTEST = 8
"""Of a digest: a mark that is shown needs at least as many characters to tell keys apart."""


@dataclass(frozen=True)
class Canary:
    """A key that nothing else has."""

    key: str = field(default_factory=lambda: f"ok_canary_{secrets.token_hex(24)}", repr=False)

    @property
    def needles(self) -> dict[str, str]:
        """The forms in which it must not be found, by name."""
        raw, half = self.key.encode(), len(self.key) // 2
        secret = self.key.removeprefix("ok_canary_")
        digests = {
            name: hashlib.new(name, raw).hexdigest()[:_SHORTEST]
            for name in ("sha256", "sha1", "md5", "sha512", "blake2b", "blake2s")
        }
        return {
            "the key": self.key,
            "its first half": self.key[:half],
            "its second half": self.key[half:],
            "what is secret of it, shortened": secret[:_SHORTEST],
            "its end": secret[-_SHORTEST:],
            "in hex": raw.hex(),
            **{f"its {name}": digest for name, digest in digests.items()},
        }

    def found_in(self, text: str | bytes) -> list[str]:
        """In which forms it stands in there."""
        shown = text.decode(errors="replace") if isinstance(text, bytes) else text
        shown = shown.lower()
        return [name for name, needle in self.needles.items() if needle.lower() in shown]

    def assert_not_in(self, text: str | bytes, where: str) -> None:
        # Not the text itself: a failing test must not print what it looks for.
        assert self.found_in(text) == [], f"the key is shown: {where}"


def rendered(error: BaseException) -> str:
    """An exception as the most talkative tool would show it: every frame's variables, every cause."""
    whole = traceback.TracebackException.from_exception(error, capture_locals=True)
    return "".join(whole.format(chain=True)) + repr(error) + str(error) + repr(error.args)


_OURS = ("/proxy/gateway/", "/proxy/outgoing.py", "/proxy/ops/")
_OF_THE_CLIENT = (
    "client.py",
    "client_reqrep.py",
    "client_proto.py",
    "connector.py",
    "http_writer.py",
    "tracing.py",
)


class Exceptions:
    """Every exception that came through the gateway's code or its HTTP client's, caught there or not."""

    def __init__(self) -> None:
        self.errors: dict[int, BaseException] = {}

    def __iter__(self) -> Iterator[BaseException]:
        yield from self.errors.values()

    def _call(self, frame: FrameType, _event: str, _arg: Any) -> Any:
        file = frame.f_code.co_filename
        is_client = "/aiohttp/" in file and file.endswith(_OF_THE_CLIENT)
        return self._line if is_client or any(part in file for part in _OURS) else None

    def _line(self, frame: FrameType, event: str, arg: Any) -> Any:
        frame.f_trace_lines = False
        if event == "exception":
            _kind, error, _trace = arg
            if isinstance(error, BaseException) and not isinstance(error, StopIteration):
                self.errors[id(error)] = error
        return self._line


@contextmanager
def exceptions() -> Iterator[Exceptions]:
    """Note them while this lasts. Each keeps its frames, with all that is in them."""
    found, before = Exceptions(), sys.gettrace()
    sys.settrace(found._call)
    try:
        yield found
    finally:
        sys.settrace(before)

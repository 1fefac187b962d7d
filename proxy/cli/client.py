"""How commands speak HTTP: to the address that they are told and to no other, and any status is an answer.

Neither a redirect is followed nor an HTTP proxy of the environment used: either would be shown the token.
"""

import http.client
import re
import socket
import ssl
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from email.message import Message
from typing import IO, Any, Final
from urllib.parse import urlsplit

import click

from proxy import __version__
from proxy.settings import ListenAddress

_USER_AGENT = f"outlit-proxy/{__version__}"

_PART_BYTES = 65_536

_NOT_TLS: Final = ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "PACKET_LENGTH_TOO_LONG")
"""What releases of OpenSSL call bytes that are none of TLS's."""


class Failed(click.ClickException):
    """A command could not do what it was asked: one line on stderr, exit code 1."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        context = click.get_current_context(silent=True)
        self._command = context.command_path if context else "outlit-proxy"

    def show(self, file: IO[Any] | None = None) -> None:
        """Write the line."""
        click.echo(f"{self._command}: {printable(self.message)}", file=file, err=file is None)


class Misused(Failed):
    """It was asked in a way that cannot be: one line on stderr, exit code 2."""

    exit_code = 2


class BrokenOff(Failed):
    """A request was sent, and no whole answer came: what was asked may have been done."""


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer, read to its end."""

    status: int
    body: bytes


@dataclass(frozen=True, slots=True)
class Incoming:
    """An answer that is still coming. To read its `parts` raises BrokenOff where it breaks off."""

    status: int
    headers: Message
    parts: Iterator[bytes]

    @property
    def is_success(self) -> bool:
        """2xx."""
        return 200 <= self.status < 300


class Sent:
    """A request that was sent: whatever is asked of it raises BrokenOff where no answer comes of it."""

    def __init__(
        self, connection: http.client.HTTPConnection, where: str, timeout_s: float, until: ExitStack
    ) -> None:
        self._connection = connection
        self._where = where
        self._timeout_s = timeout_s
        self._until = until

    def answer(self) -> Incoming:
        """What comes of it, as it comes."""
        response = self._response()
        return Incoming(response.status, response.headers, self._parts(response))

    def lines(self) -> Iterator[bytes | Answer]:
        """The same line by line; any other status than 200 is one whole Answer."""
        response = self._response()
        if response.status != 200:
            yield Answer(response.status, b"".join(self._parts(response)))
            return
        try:
            yield from response
        except (OSError, http.client.HTTPException) as error:
            raise self._broken_off(error, has_begun=True) from None

    def _response(self) -> http.client.HTTPResponse:
        try:
            return self._until.enter_context(self._connection.getresponse())
        except (OSError, http.client.HTTPException) as error:
            raise self._broken_off(error, has_begun=False) from None

    def _parts(self, response: http.client.HTTPResponse) -> Iterator[bytes]:
        """What comes of a body, until it is whole."""
        left = response.length  # None: until the last chunk says so, or the connection ends
        try:
            while left != 0 and (part := response.read1(min(left or _PART_BYTES, _PART_BYTES))):
                if left is not None:
                    left -= len(part)
                yield part
        except (OSError, http.client.HTTPException) as error:
            raise self._broken_off(error, has_begun=True) from None
        if left:
            raise self._broken_off(http.client.IncompleteRead(b""), has_begun=True)

    def _broken_off(self, error: Exception, *, has_begun: bool) -> BrokenOff:
        match error:
            case TimeoutError():
                why = f"nothing {'more ' if has_begun else ''}came for {round(self._timeout_s, 1):g} s"
            case ConnectionError() | http.client.IncompleteRead() | ssl.SSLEOFError() if has_begun:
                why = "the answer broke off before its end"
            case ConnectionError() | ssl.SSLEOFError():
                why = "the connection broke off before an answer came"
            case http.client.HTTPException():
                why = "what answers there speaks no HTTP"
            case _:
                why = _in_words(error)
        return BrokenOff(f"{self._where}: {why}")


@contextmanager
def sent(
    url: str,
    body: bytes | None = None,
    *,
    method: str | None = None,
    headers: Mapping[str, str] | None = None,
    timeout_s: float,
) -> Iterator[Sent]:
    """GET, or POST where there is a body. `timeout_s` is of each wait.

    Raises Failed where it could not be sent: nothing was done then.
    """
    where = _USER.sub(r"\1", url.partition("?")[0])
    with ExitStack() as stack:
        try:
            connection, target = _connection(url, timeout_s)
            stack.callback(connection.close)
            connection.request(
                method or ("GET" if body is None else "POST"),
                target,
                body,
                {"User-Agent": _USER_AGENT, "Connection": "close", **(headers or {})},
            )
        except (OSError, ValueError, http.client.HTTPException) as error:
            raise Failed(f"{where}: {_why_unsent(error)}") from None
        yield Sent(connection, where, timeout_s, stack)


def ask(
    url: str,
    body: bytes | None = None,
    *,
    method: str | None = None,
    headers: Mapping[str, str] | None = None,
    timeout_s: float,
) -> Answer:
    """The same, and its answer. Raises Failed where nobody answers, BrokenOff where it was sent."""
    with sent(url, body, method=method, headers=headers, timeout_s=timeout_s) as request:
        answer = request.answer()
        return Answer(answer.status, b"".join(answer.parts))


def lines_of(url: str, *, headers: Mapping[str, str], timeout_s: float) -> Iterator[bytes | Answer]:
    """The lines of an answer that goes on for long, each as it comes; any other status is one whole Answer.

    Ends with the stream. Raises Failed where nobody answers, where it breaks off, and where nothing comes for
    `timeout_s`.
    """
    with sent(url, headers=headers, timeout_s=timeout_s) as request:
        yield from request.lines()


def url_of(listen: ListenAddress, setting: str, flag: str) -> str:
    """Where a listener of this machine is reached; one on every interface, by the loopback."""
    if not listen.port:
        raise Misused(f"{setting} lets the system choose the port: say with {flag} where that is")
    host = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}.get(listen.host, listen.host)  # noqa: S104
    return f"http://{ListenAddress(host, listen.port)}"


def printable(text: str) -> str:
    """`text` that others wrote, in one line that neither colours nor moves anything on a terminal."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


_USER = re.compile(r"^([^/]*//)[^/]*@")
"""Of a URL: a password, perhaps, which no error line repeats."""


def _connection(url: str, timeout_s: float) -> tuple[http.client.HTTPConnection, str]:
    """To whom, and what is asked for there. Not connected yet. Raises ValueError, HTTPException."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https"):
        raise ValueError("is no address: write http://, host and port, as in http://127.0.0.1:9090")
    if not parts.hostname:
        raise ValueError("no host given")
    if "@" in parts.netloc:
        raise ValueError("takes no user or password: leave them out")
    target = f"{parts.path or '/'}?{parts.query}" if parts.query else parts.path or "/"
    # The port is always said: of a host alone, http.client takes the end of an IPv6 address for one.
    if parts.scheme == "https":
        return http.client.HTTPSConnection(parts.hostname, parts.port or 443, timeout=timeout_s), target
    return http.client.HTTPConnection(parts.hostname, parts.port or 80, timeout=timeout_s), target


def _why_unsent(error: Exception) -> str:
    """What is in the way, and what to do about it."""
    match error:
        case ConnectionRefusedError():
            return "connection refused: start the proxy, or say by --config how one that runs is set"
        case socket.gaierror():
            return f"{_in_words(error)}: correct the host in ops.listen, --ops-url or --url"
        case ssl.SSLError() if error.reason in _NOT_TLS:
            return "speaks plain HTTP: write http://"
        case TimeoutError():
            return "cannot be reached in time: see to the address, the network and its firewall"
        case _:
            return _in_words(error)


def _in_words(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return str(error) or type(error).__name__

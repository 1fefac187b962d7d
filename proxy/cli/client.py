"""How commands speak HTTP: to the address that they are told and to no other, and any status is an answer."""

import http.client
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import IO, Any

import click

from proxy import __version__
from proxy.settings import ListenAddress

_USER_AGENT = f"outlit-proxy/{__version__}"


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


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer, read to its end."""

    status: int
    body: bytes


def ask(
    url: str,
    body: bytes | None = None,
    *,
    method: str | None = None,
    headers: Mapping[str, str] | None = None,
    timeout_s: float,
) -> Answer:
    """GET, or POST where there is a body. Raises Failed where nobody answers; `timeout_s` is of each wait."""
    try:
        request = urllib.request.Request(  # noqa: S310  # to wherever the operator says
            url, body, {"User-Agent": _USER_AGENT, **(headers or {})}, method=method
        )
        with _OPENER.open(request, timeout=timeout_s) as answer:
            return Answer(answer.status, answer.read())
    except urllib.error.HTTPError as error:
        with error:
            return Answer(error.code, error.read())
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise Failed(_described(url, error)) from None


def lines_of(url: str, *, headers: Mapping[str, str], timeout_s: float) -> Iterator[bytes | Answer]:
    """The lines of an answer that goes on for long, each as it comes; any other status is one whole Answer.

    Ends with the stream. Raises Failed where nobody answers, where it breaks off, and where nothing comes for
    `timeout_s`.
    """
    try:
        request = urllib.request.Request(  # noqa: S310  # to wherever the operator says
            url, headers={"User-Agent": _USER_AGENT, **headers}
        )
        with _OPENER.open(request, timeout=timeout_s) as answer:
            yield from answer
    except urllib.error.HTTPError as error:
        with error:
            yield Answer(error.code, error.read())
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise Failed(_described(url, error)) from None


def url_of(listen: ListenAddress, setting: str, flag: str) -> str:
    """Where a listener of this machine is reached; one on every interface, by the loopback."""
    if not listen.port:
        raise Misused(f"{setting} lets the system choose the port: say with {flag} where that is")
    host = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}.get(listen.host, listen.host)  # noqa: S104
    return f"http://{ListenAddress(host, listen.port)}"


def printable(text: str) -> str:
    """`text` that others wrote, in one line that neither colours nor moves anything on a terminal."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirect is an answer: followed, it would take the token to wherever it points."""

    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None


# Whatever HTTP proxy the environment names, the process is asked directly.
_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}), _NoRedirect)


def _described(url: str, error: Exception) -> str:
    """What went wrong, where, and what to do about it."""
    asked = url.partition("?")[0]
    if not url.lower().startswith(("http://", "https://")):
        return f"{asked}: is no address: write http://, host and port, as in http://127.0.0.1:9090"
    reason = getattr(error, "reason", None) or error  # URLError wraps what happened
    if isinstance(reason, ConnectionRefusedError):
        return f"{asked}: connection refused: start the proxy, or say by --config how one that runs is set"
    if isinstance(reason, OSError) and reason.strerror:
        return f"{asked}: {reason.strerror.lower()}"
    return f"{asked}: {reason or type(reason).__name__}"

"""What Redis and redis-py say, as what the buffer raises: translated here and nowhere else.

    BufferFault
    └── BufferUnavailable    Redis did not answer, refused, or cannot be reached; perhaps done, perhaps not
        ├── OutOfMemory      it has reached `maxmemory`: nothing was done (in `contract`)
        └── Misconfigured    no waiting mends it: nothing was done

Every message is one line: where, what is wrong, what to do now. What Redis says is repeated without the
arguments that it quotes: they may hold visitors' data.
"""

import os
import socket
import ssl
from collections.abc import Mapping

from hiredis import ReplyError
from redis.exceptions import RedisError

from proxy.buffer.contract import BufferUnavailable
from proxy.buffer.redis.link.contract import OutOfMemory

_LONGEST_TEXT = 200

_WRONG_LOGIN = "refuses the login: give the right user and password (buffer.url, buffer.password)"
_MEANINGS: Mapping[str, str] = {
    "LOADING": "is still loading its data: wait until it has",
    "MISCONF": "refuses writes because it cannot save them: see to its disk (full? failing?) and its log",
    "NOAUTH": _WRONG_LOGIN,
    "WRONGPASS": _WRONG_LOGIN,
    "READONLY": "is a replica: name the primary in buffer.url, or the Sentinels (redis+sentinel://)",
    "NOREPLICAS": "refuses writes because too few replicas are connected (its min-replicas-to-write)",
    "MASTERDOWN": "is a replica that has lost its primary: name the primary in buffer.url, or the Sentinels",
    "UNBLOCKED": "was made a replica while it was asked: the next try finds the new primary",
    "CLUSTERDOWN": "says that its cluster is down: see to the node that is gone (redis-cli cluster nodes)",
    "TRYAGAIN": "is moving the slot of these keys to another node: it will be over when they are moved",
    "MOVED": "is a node of a cluster: write redis+cluster:// in buffer.url",
    "ASK": "is a node of a cluster: write redis+cluster:// in buffer.url",
    "BUSY": "is busy with a script of somebody's: end it (redis-cli script kill), or wait",
    "OOM": "has reached its maxmemory: raise that, or let it drain",
}


_NEED_A_HAND = frozenset({"NOAUTH", "WRONGPASS", "MOVED", "ASK"})
"""Refusals that stay until somebody changes the settings. (A cluster's link never raises the last two.)"""


class Misconfigured(BufferUnavailable):
    """The settings do not fit this Redis, and one of both must be changed first; the message says what."""


def code_of(error: ReplyError) -> str:
    """The word by which a refusal is known: ERR, NOSCRIPT, MOVED and the like."""
    return str(error).partition(" ")[0]


def refusal(error: ReplyError, command: str, where: str) -> BufferUnavailable:
    """What to raise where Redis refused a command. It was not done, unless the error came from a script."""
    return _refused(code_of(error), str(error), command, where)


def unreachable(error: Exception, where: str) -> BufferUnavailable:
    """What to raise where no connection came about: the network, TLS, the login or Redis said no."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return Misconfigured(
                f"Redis at {where} has a certificate that does not verify ({cause.verify_message}):"
                " name its authority in buffer.url with ca=/path, and the host as the certificate does"
            )
        if isinstance(cause, ssl.SSLError):
            return Misconfigured(
                f"Redis at {where} speaks no TLS that fits ({cause.reason}): is it the TLS port?"
            )
        if isinstance(cause, socket.gaierror):
            return BufferUnavailable(
                f"Redis at {where} cannot be found ({_line(str(cause.strerror))}): correct buffer.url or DNS"
            )
        if isinstance(cause, ConnectionResetError):
            break
        if isinstance(cause, OSError) and not isinstance(cause, TimeoutError):
            # asyncio's text only repeats the address. Without a number several addresses were tried.
            reason = os.strerror(cause.errno) if cause.errno else "none of its addresses answers"
            return BufferUnavailable(
                f"Redis at {where} cannot be reached ({reason}): is it running, and is buffer.url right?"
            )
        cause = cause.__cause__ or cause.__context__
    if isinstance(cause, ConnectionResetError) or "closed by server" in str(error):
        return BufferUnavailable(
            f"Redis at {where} closed the connection as it began: is it stopping, or does it want TLS (rediss://)?"
        )
    if isinstance(error, RedisError) and error.status_code:
        return _refused(error.status_code, str(error), "AUTH", where)
    if isinstance(error, TimeoutError) or "imeout" in str(error) or "imed out" in str(error):
        return silent(where)
    return BufferUnavailable(f"Redis at {where} let no connection come about: {_line(str(error))}")


def silent(where: str) -> BufferUnavailable:
    """What to raise where a connection, or an answer, did not come in time."""
    return BufferUnavailable(f"Redis at {where} did not answer in time: is it hung, or the network slow?")


def broken(where: str, reason: str = "") -> BufferUnavailable:
    """What to raise where a connection was lost while an answer was owed on it."""
    because = f" ({_line(reason)})" if reason else ""
    return BufferUnavailable(f"Redis at {where} closed the connection before it answered{because}")


def _refused(code: str, text: str, command: str, where: str) -> BufferUnavailable:
    if code == "NOPERM":
        return Misconfigured(
            f"Redis at {where} does not let this user run {command} ({_line(text)}): widen its ACL"
        )
    if "cluster support disabled" in text:
        return Misconfigured(
            f"Redis at {where} is in no cluster: write redis:// (or rediss://) in buffer.url"
        )
    meaning = _MEANINGS.get(code)
    if meaning is None:
        return BufferUnavailable(f"Redis at {where} refused {command}: {_line(text)}")
    if code == "OOM":
        return OutOfMemory(f"Redis at {where} {meaning}")
    kind = Misconfigured if code in _NEED_A_HAND else BufferUnavailable
    return kind(f"Redis at {where} {meaning}")


def _line(text: str) -> str:
    """One line of what Redis said, without the arguments that it quotes."""
    shown = " ".join(text.partition(", with args beginning with")[0].split())
    return shown if len(shown) <= _LONGEST_TEXT else f"{shown[:_LONGEST_TEXT]}…"

"""Tells whoever supervises the process how it is: the datagrams of sd_notify(3), which systemd reads.

Nobody need listen. A supervisor that cannot be told must not disturb what it supervises: that is said once.
"""

import asyncio
import os
import socket
import time
from collections.abc import Mapping

import structlog

_OPENING_S = 300.0
"""How long opening and recovering a buffer may take: a large one longer than a start usually does."""


class Supervisor:
    """`environ`: where the supervisor has said how to reach it; without NOTIFY_SOCKET nothing is told."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._address = environ.get("NOTIFY_SOCKET", "")
        is_ours = environ.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        usec = environ.get("WATCHDOG_USEC", "") if is_ours else ""
        self._watchdog_s = int(usec) / 1_000_000 if usec.isascii() and usec.isdigit() else 0.0
        self._has_failed = False

    def opening(self) -> None:
        """The buffer is being opened."""
        self._tell(STATUS="opening the buffer", EXTEND_TIMEOUT_USEC=_usec(_OPENING_S))

    def ready(self, status: str) -> None:
        """It serves; also after a reload, whether that was good or not."""
        self._tell(READY=1, STATUS=status)

    def reloading(self) -> None:
        """The settings are being read again; `ready` must follow."""
        self._tell(RELOADING=1, MONOTONIC_USEC=time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1_000)

    def stopping(self, status: str, within_s: float) -> None:
        """It stops, which takes so long at most."""
        self._tell(STOPPING=1, STATUS=status, EXTEND_TIMEOUT_USEC=_usec(within_s))

    async def keep_watch(self) -> None:
        """Give the signs of life that the watchdog wants, until cancelled; none where it wants none.

        To be run beside the tasks without which the process must end: where one of them ends, so does this;
        where the event loop stands still, this does, too.
        """
        while self._watchdog_s:
            self._tell(WATCHDOG=1)
            await asyncio.sleep(self._watchdog_s / 2)

    def _tell(self, **words: object) -> None:
        if not self._address:
            return
        text = "\n".join(f"{name}={' '.join(str(word).split())}" for name, word in words.items())
        # A name without a file begins with a zero byte, which no variable can hold.
        address = f"\0{self._address[1:]}" if self._address.startswith("@") else self._address
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
                sender.setblocking(False)
                sender.sendto(text.encode(), address)
        except OSError as error:
            if not self._has_failed:
                self._has_failed = True
                structlog.get_logger("service").warning(
                    "the supervisor that NOTIFY_SOCKET names cannot be told how the process is",
                    error=error.strerror or str(error),
                )


def _usec(seconds: float) -> int:
    return int(seconds * 1_000_000)

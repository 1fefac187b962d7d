"""The buffer: where events are held between the client's request and upstream's answer.

`contract` says in words what every engine promises. Engines live in folders of their own and are named
by nobody but the service.
"""

from proxy.buffer.contract import (
    Appended,
    AppendRefused,
    Buffer,
    BufferFault,
    BufferFull,
    BufferUnavailable,
    DeadLetter,
    Death,
    Event,
    Head,
    Held,
    Idle,
    KeyFigures,
    Lease,
    NeverFits,
    Portion,
    Quota,
    QuotaExceeded,
    Settled,
    Settlement,
    Spent,
    Terms,
)

__all__ = [
    "AppendRefused",
    "Appended",
    "Buffer",
    "BufferFault",
    "BufferFull",
    "BufferUnavailable",
    "DeadLetter",
    "Death",
    "Event",
    "Head",
    "Held",
    "Idle",
    "KeyFigures",
    "Lease",
    "NeverFits",
    "Portion",
    "Quota",
    "QuotaExceeded",
    "Settled",
    "Settlement",
    "Spent",
    "Terms",
]

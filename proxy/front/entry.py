"""A posted event made ready for the buffer: its uuid, what a retry of it is recognised by, its final text.

A client's retry must be recognised even where the client sends no uuid, so a missing one is derived from
what the retry repeats: the queue, the event as it was posted (before anything is filled in or redacted),
and how many equal events stood before it in the request. An event without a timestamp repeats nothing that
would tell a retry from a second click; it gets a fresh uuid and the time of receipt.
"""

from collections import Counter
from hashlib import blake2b
from uuid import UUID

import uuid_utils
import xxhash

from proxy.buffer import Event
from proxy.lanes import QueueId
from proxy.wire.events import Reading

_SIGN_BIT = 1 << 63


class Entries:
    """Makes the entries of one request, in order."""

    __slots__ = ("_received_ms", "_repeated")

    def __init__(self, received_ms: int) -> None:
        self._received_ms = received_ms
        self._repeated: Counter[tuple[QueueId, bytes]] = Counter()

    def entry(self, queue: QueueId, reading: Reading) -> Event:
        """The entry of the next event of the request, which goes into `queue`."""
        uuid = reading.uuid
        if uuid is None:
            uuid = self._made(queue, reading)
        uuid_bytes = bytes.fromhex(uuid.replace("-", ""))
        digest = xxhash.xxh3_64_intdigest(uuid_bytes + reading.canonical)
        return Event(
            uuid_bytes, digest - ((digest & _SIGN_BIT) << 1), reading.stored(uuid, self._received_ms)
        )

    def _made(self, queue: QueueId, reading: Reading) -> str:
        if not reading.has_timestamp:
            return str(uuid_utils.uuid7())
        occurrence = self._repeated[queue, reading.canonical]
        self._repeated[queue, reading.canonical] += 1
        digest = blake2b(reading.canonical, digest_size=16, key=queue, salt=b"%d" % occurrence).digest()
        bits = int.from_bytes(digest)
        bits = bits & ~(0xF << 76) | 8 << 76  # version 8: a UUID of the maker's own making
        bits = bits & ~(0x3 << 62) | 2 << 62  # the RFC 9562 variant
        return str(UUID(int=bits))

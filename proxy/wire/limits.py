"""What the Ingest API bounds, and what a public key looks like."""

import re
from typing import NewType

EVENTS_PER_REQUEST = 100
"""Events in one upstream request."""

REQUEST_BYTES = 1_000_000
"""Bytes of one upstream body. The reference says "1 MB"; 10^6 is the reading that is always within it."""

PublicKey = NewType("PublicKey", str)
"""A checked public key. Not secret: it stands in the source of every tracked page."""

_PUBLIC_KEY = re.compile(r"pk_[A-Za-z0-9_-]{1,64}\Z")


def public_key(text: str) -> PublicKey | None:
    """`text` as a public key, or None where it is none."""
    return PublicKey(text) if _PUBLIC_KEY.match(text) else None

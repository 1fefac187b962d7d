"""Keys: what one looks like, and what stands for it in orders and in the record.

That is the beginning of its SHA-256: whoever has the key can tell that it was used, and nobody else which
one it was.
"""

import hashlib
import re
from typing import Final

# Within any text: short ones too, for what is no key after all is only masked.
_KEY: Final = re.compile(r"(?<![A-Za-z0-9_-])ok_[A-Za-z0-9_-]+")
DIGEST: Final = re.compile(r"sha256:[0-9a-f]{16}")
"""What stands for a key."""


def digest(key: str) -> str:
    """Give what stands for `key`."""
    return f"sha256:{hashlib.sha256(key.encode()).hexdigest()[:16]}"


def holds_key(text: str) -> bool:
    """Say whether a key stands anywhere in `text`."""
    return _KEY.search(text) is not None


def without_keys(text: str) -> str:
    """Give `text` with the digest of every key in its place."""
    return _KEY.sub(lambda found: digest(found[0]), text)

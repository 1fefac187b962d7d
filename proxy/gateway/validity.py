"""Whether API keys are valid, as Outlit said it lately."""

import hashlib
import secrets
import time
from math import ceil
from typing import Final

from cachetools import TLRUCache
from pydantic import SecretStr

from proxy.gateway.plan import KeyMark
from proxy.wire.platform import Kept, read_validity

_LASTS_S: Final = {200: 60.0, 401: 10.0}
"""How long an answer is believed, by its status. Any other (a 503 above all) says nothing about the key."""

_MAX_KEYS: Final = 1_000
_MAX_BYTES: Final = 16_384
"""Of an answer that is kept."""


class Marks:
    """Makes a mark of an API key: by a secret of this process, so that a mark is worth nothing elsewhere."""

    def __init__(self) -> None:
        self._secret = secrets.token_bytes(32)

    def of(self, key: SecretStr) -> KeyMark:
        """The mark of a key, the same for the same key as long as the process lives."""
        text = key.get_secret_value().encode()
        return hashlib.blake2b(text, key=self._secret, digest_size=16).digest()


class Verdicts:
    """A bounded cache of answers of validate-api-key."""

    def __init__(self) -> None:
        self._kept: TLRUCache[KeyMark, tuple[Kept, float]] = TLRUCache(
            _MAX_KEYS, ttu=lambda _key, kept, _now: kept[1], timer=time.monotonic
        )

    def keep(self, key: KeyMark, answer: Kept) -> None:
        """Keep an answer, if it is one that lasts and its body says the same as its status."""
        lasts_s = _LASTS_S.get(answer.status)
        if lasts_s is None or len(answer.body) > _MAX_BYTES:
            return
        if read_validity(answer.body) is (answer.status == 200):
            self._kept[key] = answer, time.monotonic() + lasts_s

    def of(self, key: KeyMark) -> tuple[Kept, int] | None:
        """What was answered lately, and for how many whole seconds it is still believed."""
        found = self._kept.get(key)
        return None if found is None else (found[0], max(1, ceil(found[1] - time.monotonic())))

    def hear(self, key: KeyMark, status: int) -> None:
        """Outlit has answered another call with this key: what it said before may be out of date."""
        found = self._kept.get(key)
        if found is not None and (status == 401) is not (found[0].status == 401):
            del self._kept[key]

    def forget(self) -> None:
        """Forget all of them."""
        self._kept.clear()

"""What keeps a key, or a queue of it, from sending, and what to do: the words of log, ``keys`` and status."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from proxy.ledger import Pause


@dataclass(frozen=True, slots=True)
class Words:
    """`what` is so may follow a colon; `what_to_do` is a sentence without its full stop."""

    what: str
    what_to_do: str

    def __str__(self) -> str:
        return f"{self.what}. {self.what_to_do}"


WORDS: Final[Mapping[Pause, Words]] = {
    Pause.OPERATOR: Words(
        "an operator has paused it",
        "Nothing is sent until `outlit-proxy keys resume`; posts are still accepted",
    ),
    Pause.RATE_LIMITED: Words(
        "Outlit answered 429 and is given the time it asked for",
        "Now and then: nothing. If it goes on, somebody else sends with this key: see delivery.rate_share",
    ),
    Pause.KEY_REFUSED: Words(
        "Outlit refuses the key (401, 402, 404 or a redirect); one request is tried now and then",
        "See to the key and the subscription at Outlit, and to upstream.url, then `outlit-proxy keys retry`",
    ),
    Pause.UPSTREAM_FAILING: Words(
        "most of this key's requests fail, and one is tried now and then",
        "See Outlit's status, or, where it cannot be reached, name resolution, TLS and the network",
    ),
    Pause.REFUSAL_STORM: Words(
        "Outlit refuses everything that this key sends, whoever posted it; nothing is given up, and one"
        " request is tried now and then",
        "The log has Outlit's messages: mend what posts it, or ask Outlit, then `outlit-proxy keys retry`",
    ),
}

QUEUE_WAITS: Final = Words(
    "the oldest event waits though the key sends: its queue was refused, or failed, by itself, and is tried"
    " now and then",
    "See why (the log, `outlit-proxy tap --outcome deferred`) and mend what posts it, then"
    " `outlit-proxy keys retry`",
)
"""Of one queue, not of its key."""

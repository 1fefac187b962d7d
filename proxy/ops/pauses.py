"""What each pause of a key's gate means, and what to do about it: the words of the log and of ``keys``."""

from collections.abc import Mapping
from typing import Final

from proxy.ledger import Pause

WHAT_TO_DO: Final[Mapping[Pause, str]] = {
    Pause.OPERATOR: "nothing is sent until `keys resume`; posts are still accepted",
    Pause.RATE_LIMITED: "Outlit answered 429 and is given the time it asked for; if that goes on, somebody"
    " else sends with this key: see delivery.rate_share",
    Pause.KEY_REFUSED: "Outlit refuses the key (401, 402, 404 or a redirect); one request is tried now and"
    " then. See to the key and the subscription at Outlit, and to upstream.url, then `keys retry`",
    Pause.UPSTREAM_FAILING: "most of this key's requests fail, and one is tried now and then. See Outlit's"
    " status, or, where it cannot be reached, name resolution, TLS and the network",
    Pause.REFUSAL_STORM: "Outlit refuses everything that this key sends, whoever posted it; nothing is given"
    " up, and one request is tried now and then. The log has Outlit's messages: mend what posts it, or ask"
    " Outlit, then `keys retry`",
}

"""What is kept of a header that travels on with the events: User-Agent and Origin.

Such a header is part of the lane, is stored, is logged, and is sent again, perhaps much later. All four must
see one text. They would not without this: a byte that is not UTF-8 arrives as a lone surrogate, which cannot
be hashed or stored as UTF-8, and which aiohttp's client leaves out in silence, so that the lane would say one
thing and the request another. Hence a header is cleaned once, on arrival, and never touched again.
"""

import re
from typing import Final

# Upstream's bound is not published. Node's HTTP server, the strictest of the common ones, takes 16 KiB of
# headers in all; real User-Agents end below 500 bytes, those of in-app browsers included.
MAX_HEADER_BYTES: Final = 2048

# Surrogates cannot be sent. C0 controls and DEL: aiohttp's parser refuses them on arrival and its client on
# the way out, but nothing may depend on that. C1 controls and the two Unicode line ends are legal in
# transit; a terminal or a log reader acts on them. A tab is legal, and harmless.
_UNFIT: Final = re.compile(r"[\x00-\x08\x0a-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_SUBSTITUTE: Final = "?"

_WHITESPACE: Final = " \t"


def clean_header(value: str | None, limit: int = MAX_HEADER_BYTES) -> str | None:
    """The text of the header that is stored, hashed, logged and sent, the same each time.

    What comes out arrives upstream as it is, and cleaning it again changes nothing. Every character that is
    unfit becomes a `?`: it is replaced, not removed, so that no cleaning turns a foreign Origin into one that
    is allowed. Other characters stay; aiohttp reads and writes headers as UTF-8. `limit`: bytes of UTF-8,
    beyond which the value is cut, never through a character. None (no such header) stays None, and an
    empty header stays empty: both arrive upstream as they came.
    """
    if value is None:
        return None
    # A character is a byte or more, so this takes nothing that could stay, and bounds the work below.
    text = value.strip(_WHITESPACE)[:limit]
    if text.isascii() and text.isprintable():
        return text.rstrip(_WHITESPACE)
    text = _UNFIT.sub(_SUBSTITUTE, text)
    return text.encode()[:limit].decode(errors="ignore").rstrip(_WHITESPACE)

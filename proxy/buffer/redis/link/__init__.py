"""A Redis deployment as the engine sees it: scripts and commands, whatever stands behind the address.

`contract` is what the engine asks for, `connect` opens it; `standalone` and `cluster` are the two kinds,
`sentinels` find the primary. A `server` has a few `wire`s, each made by `entrance`; `keeping` is when a write
counts as kept, `calls` how one is written, `errors` what Redis's refusals mean.
"""

from proxy.buffer.redis.link.connect import Ask, Durability, Greet, Misconfigured, open_link
from proxy.buffer.redis.link.contract import Argument, Link, OutOfMemory

__all__ = [
    "Argument",
    "Ask",
    "Durability",
    "Greet",
    "Link",
    "Misconfigured",
    "OutOfMemory",
    "open_link",
]

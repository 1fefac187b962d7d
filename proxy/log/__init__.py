"""Logs: one line an event, to stderr, as text for people or as JSON for machines.

``lines`` says how a line looks and what it must not contain, ``repeats`` how often the same may be said. Both
hold for what libraries say through ``logging``, too.
"""

from proxy.log.lines import configure, short_key
from proxy.log.repeats import count_lines

__all__ = ["configure", "count_lines", "short_key"]

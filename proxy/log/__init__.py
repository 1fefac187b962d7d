"""Logs: one line an event, to stderr, as text for people or as JSON for machines.

``lines`` says how a line looks and what it must not contain, ``repeats`` how often the same may be said,
``output`` what becomes of a line that cannot be written. All hold for what libraries say through ``logging``,
too.
"""

from proxy.log.lines import configure, short_key
from proxy.log.output import count_unwritten
from proxy.log.repeats import count_lines

__all__ = ["configure", "count_lines", "count_unwritten", "short_key"]

"""Logs: one line an event, to stderr, as text for people or as JSON for machines.

``lines`` says how a line looks and what it must not contain, ``repeats`` how often the same may be said,
``output`` what becomes of a line that cannot be written, ``crashes`` what is told of exceptions. The first
three hold for what libraries say through ``logging``, too.
"""

from proxy.log.crashes import forget_variables, whereabouts
from proxy.log.lines import configure, short_key
from proxy.log.output import count_unwritten
from proxy.log.repeats import count_lines

__all__ = ["configure", "count_lines", "count_unwritten", "forget_variables", "short_key", "whereabouts"]

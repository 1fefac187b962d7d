"""A first-party ingest proxy for Outlit.

An event walks ``front`` → ``lanes`` → ``buffer`` → ``flusher`` → ``upstream``. ``gate`` says when it may
leave, inside the buffer's claim; ``ledger`` names the one outcome in which it ends.
"""

__version__ = "0.1.0"

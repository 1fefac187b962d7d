"""The embedded engine: one SQLite file, one process. The default where nothing is configured."""

from proxy.buffer.sqlite.engine import SqliteBuffer
from proxy.buffer.sqlite.lock import OpenRefused

__all__ = ["OpenRefused", "SqliteBuffer"]

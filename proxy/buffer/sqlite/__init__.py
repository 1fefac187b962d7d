"""The embedded engine: one SQLite file, one process. The default where nothing is configured."""

from proxy.buffer.sqlite.engine import SqliteBuffer
from proxy.buffer.sqlite.files import OpenRefused

__all__ = ["OpenRefused", "SqliteBuffer"]

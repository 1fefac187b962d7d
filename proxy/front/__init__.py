"""HTTP in: what arrives at the public listener becomes events in the buffer, or an answer saying why not."""

from proxy.front.connection import Server
from proxy.front.ingest import Ingest
from proxy.front.listener import Front

__all__ = ["Front", "Ingest", "Server"]

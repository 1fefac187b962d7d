"""The flusher: takes what is due from the buffer to upstream, and writes down what became of it."""

from proxy.flusher.worker import Flusher

__all__ = ["Flusher"]

"""The bodies in memory, as operators see them."""

import pytest

from proxy.front.admission import Body, NoRoom, Room
from proxy.metrics import Metrics


def pending_bytes(metrics: Metrics) -> float | None:
    return metrics.registry.get_sample_value("outlit_proxy_pending_body_bytes")


def test_the_bodies_in_memory_are_shown_as_they_come_and_go() -> None:
    metrics = Metrics()
    assert pending_bytes(metrics) == 0
    room = Room(100, metrics.pending_bytes)
    with Body(room) as one, Body(room) as other:
        one.grow(60)
        assert pending_bytes(metrics) == 60
        other.grow(30)
        with pytest.raises(NoRoom):
            other.grow(30)
        assert pending_bytes(metrics) == 90
    assert pending_bytes(metrics) == 0

"""The operations listener: health, metrics, and what needs the operator's token."""

from proxy.ops.app import make_app
from proxy.ops.bookkeeper import Bookkeeper
from proxy.ops.health import Health

__all__ = ["Bookkeeper", "Health", "make_app"]

"""The operations listener: health, metrics, and what needs the operator's token."""

from proxy.ops.app import go_by, make_app
from proxy.ops.bookkeeper import Bookkeeper
from proxy.ops.connection import MAX_CONNECTIONS, Runner
from proxy.ops.health import Health
from proxy.ops.status import Status

__all__ = ["MAX_CONNECTIONS", "Bookkeeper", "Health", "Runner", "Status", "go_by", "make_app"]

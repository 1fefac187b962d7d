"""Every room of a process: built from settings, and told others at a reload."""

from dataclasses import dataclass

from aiohttp import web

from proxy import log
from proxy.clock import wall_ms
from proxy.engines import Engine
from proxy.flusher import Flusher
from proxy.front import Front, Ingest, Server
from proxy.gateway import Gateway
from proxy.metrics import Metrics
from proxy.ops import Bookkeeper, Health, Status, go_by, make_app
from proxy.ops.reloads import Reloads
from proxy.service.listening import descriptors, make_room
from proxy.settings import Settings
from proxy.tap import Taps
from proxy.upstream import Upstream


@dataclass(frozen=True, slots=True)
class Rooms:
    """The rooms between the buffer and the two listeners."""

    engine: Engine
    metrics: Metrics
    upstream: Upstream
    flusher: Flusher
    ingest: Ingest
    front: Front
    server: Server
    books: Bookkeeper
    status: Status
    gateway: Gateway
    operations: web.Application

    @classmethod
    def built(
        cls, settings: Settings, engine: Engine, metrics: Metrics, health: Health, reloads: Reloads
    ) -> "Rooms":
        """The rooms around a buffer that is open; nothing listens yet, nothing is sent."""
        buffer, delivery, taps = engine.buffer, settings.delivery, Taps()
        upstream = Upstream(settings.upstream.url, timeout_s=delivery.timeout_s)
        flusher = Flusher(
            buffer,
            upstream,
            metrics,
            in_flight=delivery.in_flight,
            timeout_s=delivery.timeout_s,
            lease_s=delivery.lease_s,
            max_age_s=delivery.max_age_s,
            taps=taps,
        )
        ingest = Ingest(
            buffer,
            metrics,
            max_events=settings.front.max_events,
            unknown=settings.front.unknown,
            taps=taps,
        )
        front = Front(settings.front, ingest, metrics)
        books = Bookkeeper(
            buffer,
            metrics,
            retention_s=settings.dead.retention_s,
            max_bytes=settings.buffer.max_bytes,
            max_bytes_per_key=settings.buffer.max_bytes_per_key,
        )
        status = Status(buffer, books, metrics, health, reloads, settings, started_at_ms=wall_ms())
        gateway = Gateway(metrics.gateway, settings.gateway, settings.upstream.url)
        operations = make_app(
            buffer,
            books,
            metrics,
            health,
            _token(settings),
            status=status,
            lease_s=delivery.lease_s,
            taps=taps,
            on_drain=lambda begins: flusher.linger(lingers=not begins),
            gateway=gateway,
            allowed_hosts=settings.ops.names,
        )
        _set_limits(metrics, settings)
        return cls(
            engine=engine,
            metrics=metrics,
            upstream=upstream,
            flusher=flusher,
            ingest=ingest,
            front=front,
            server=front.server(),
            books=books,
            status=status,
            gateway=gateway,
            operations=operations,
        )

    def go_by(self, before: Settings, now: Settings) -> None:
        """Go by the settings of now, not by those before. Nothing waits here: no request sees half of it."""
        delivery = now.delivery
        self.engine.go_by(now)
        self.flusher.go_by(
            in_flight=delivery.in_flight,
            timeout_s=delivery.timeout_s,
            lease_s=delivery.lease_s,
            max_age_s=delivery.max_age_s,
        )
        self.upstream.go_by(now.upstream.url, timeout_s=delivery.timeout_s)
        self.ingest.go_by(max_events=now.front.max_events, unknown=now.front.unknown)
        self.front.go_by(now.front)
        self.server.settings = now.front
        self.books.set_bounds(now.dead.retention_s, now.buffer.max_bytes, now.buffer.max_bytes_per_key)
        self.status.go_by(now)
        self.gateway.go_by(now.gateway, now.upstream.url)
        go_by(self.operations, _token(now), lease_s=delivery.lease_s, allowed_hosts=now.ops.names)
        self.metrics.max_key_labels = now.metrics.max_key_labels
        _set_limits(self.metrics, now)
        if now.log != before.log:
            log.configure(now.log.format, now.log.level)
        if descriptors(now) != descriptors(before):
            make_room(now)


def _token(settings: Settings) -> str | None:
    token = settings.ops.token
    return token.get_secret_value() if token else None


def _set_limits(metrics: Metrics, settings: Settings) -> None:
    metrics.set_limits(
        connections=settings.front.max_connections,
        body_bytes=settings.front.max_pending_bytes,
        in_flight=settings.delivery.in_flight,
    )

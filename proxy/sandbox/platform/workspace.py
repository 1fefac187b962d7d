"""What calls can change: the integrations and their connections, and the notifications that were sent."""

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

from proxy.sandbox.platform.context import ACTIVITY, Row

_NOTICES_KEPT: Final = 1_000
_AGREED_AFTER: Final = 2
"""Looks at a session."""


@dataclass(slots=True)
class Integration:
    """One of the integrations and, where it is connected, the state of that."""

    id: str
    name: str
    category: str
    connection_id: str | None = None
    last_data_at: str | None = None
    sync_status: str | None = None
    error: str | None = None

    @property
    def status(self) -> str:
        """Say whether it is connected, and whether that works."""
        if self.connection_id is None:
            return "not_connected"
        return "connected" if self.error is None else "error"

    def document(self) -> dict[str, object]:
        """Give it as the list shows it."""
        return {
            "id": self.id,
            "name": self.name,
            "category": self.category,
            "status": self.status,
            "connectionId": self.connection_id,
            "lastDataReceivedAt": self.last_data_at,
            "syncStatus": self.sync_status,
            "errorMessage": self.error,
        }


@dataclass(slots=True)
class Session:
    """A person's way through connecting an integration. Who polls sees it pending once, then connected."""

    id: str
    provider: str
    polled: int = 0


def _integrations() -> dict[str, Integration]:
    known = (
        Integration("slack", "Slack", "communication", "conn_1", "2026-11-28T08:05:00.000Z", "synced"),
        Integration(
            *("hubspot", "HubSpot", "crm", "conn_2", "2026-11-20T00:00:00.000Z", "failed"),
            error="HubSpot refused the token: connect it again",
        ),
        Integration("stripe", "Stripe", "billing"),
        Integration("gmail", "Gmail", "email"),
        Integration("pylon", "Pylon", "support"),
    )
    return {each.id: each for each in known}


@dataclass(slots=True)
class Workspace:
    """All of it, as it is now."""

    integrations: dict[str, Integration] = field(default_factory=_integrations)
    sessions: dict[str, Session] = field(default_factory=dict)
    notices: list[Row] = field(default_factory=list)
    """Notifications that were sent, as the timeline shows them; the last of them."""
    _connections: int = 2

    def timeline(self) -> list[Row]:
        """Give all that happened, the oldest first."""
        return sorted((*ACTIVITY, *self.notices), key=lambda row: str(row["occurredAt"]))

    def notify(self, row: Row) -> None:
        """Send a notification."""
        self.notices.append(row)
        del self.notices[:-_NOTICES_KEPT]

    def begin(self, session: Session) -> None:
        """Let a person connect an integration. Of each there is one session, the last."""
        self.sessions = {
            key: each for key, each in self.sessions.items() if each.provider != session.provider
        }
        self.sessions[session.id] = session

    def poll(self, session: Session, now: float) -> None:
        """Count a look at a session; at the second one the person has agreed."""
        session.polled += 1
        if session.polled == _AGREED_AFTER:
            integration = self.integrations[session.provider]
            self._connections += 1
            integration.connection_id = f"conn_{self._connections}"
            integration.last_data_at, integration.sync_status, integration.error = moment(now), "synced", None

    def disconnect(self, integration: Integration) -> None:
        """Forget a connection."""
        integration.connection_id = integration.last_data_at = None
        integration.sync_status = integration.error = None


def moment(now: float) -> str:
    """Write Unix seconds as the service writes a moment."""
    return f"{datetime.fromtimestamp(now, UTC):%Y-%m-%dT%H:%M:%S}.{int(now * 1000) % 1000:03d}Z"

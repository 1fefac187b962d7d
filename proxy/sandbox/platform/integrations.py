"""The integrations: listed, connected through a session that is polled, disconnected, asked about."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, TypeAlias
from urllib.parse import parse_qs

from proxy.sandbox.platform.routes import CONNECT, INTEGRATIONS
from proxy.sandbox.platform.verdict import Verdict, done, refused, turned_away
from proxy.sandbox.platform.workspace import Integration, Session, Workspace, moment

_SESSION_S: Final = 600
_UNKNOWN: Final = "Unknown integration"


@dataclass(frozen=True, slots=True)
class Wish:
    """What is asked of the integrations."""

    query: str
    body: Mapping[str, object]
    workspace: Workspace
    now: float
    """Unix seconds."""
    request_id: str

    def parameter(self, name: str) -> str | None:
        """Give the last value of a query parameter."""
        return parse_qs(self.query, keep_blank_values=True).get(name, [None])[-1]

    def integration(self) -> Integration | None:
        """Find the `provider` that the body, or the query, names."""
        named = self.body.get("provider", self.parameter("provider"))
        return self.workspace.integrations.get(named) if isinstance(named, str) else None


def _list(wish: Wish) -> Verdict:
    asked = wish.parameter("connectedOnly")
    if asked not in (None, "true", "false"):
        return turned_away(400, "connectedOnly must be true or false")
    known = wish.workspace.integrations.values()
    shown = [each for each in known if asked != "true" or each.connection_id is not None]
    return done({"items": [each.document() for each in shown]})


def _connect(wish: Wish) -> Verdict:
    integration = wish.integration()
    if integration is None:
        return refused(404, _UNKNOWN)
    if integration.status == "connected":
        return refused(409, f"{integration.name} is connected already")
    session = Session(f"session_{wish.request_id}", integration.id)
    body = {
        "sessionId": session.id,
        "provider": integration.id,
        "connectUrl": f"https://connect.example/{session.id}",
        "expiresAt": moment(wish.now + _SESSION_S),
    }
    return done(body, lambda: wish.workspace.begin(session))


def _connect_status(wish: Wish) -> Verdict:
    session = wish.workspace.sessions.get(wish.parameter("sessionId") or "")
    if session is None:
        return refused(404, "Unknown session")
    body = {
        "sessionId": session.id,
        "provider": session.provider,
        "status": "connected" if session.polled else "pending",
    }
    return done(body, lambda: wish.workspace.poll(session, wish.now))


def _disconnect(wish: Wish) -> Verdict:
    integration = wish.integration()
    if integration is None:
        return refused(404, _UNKNOWN)
    if integration.connection_id is None:
        return refused(409, f"{integration.name} is not connected")
    body = {"success": True, "provider": integration.id}
    return done(body, lambda: wish.workspace.disconnect(integration))


def _sync_status(wish: Wish) -> Verdict:
    integration = wish.integration()
    if integration is None:
        return refused(404, _UNKNOWN)
    return done(
        {
            "provider": integration.id,
            "syncStatus": integration.sync_status,
            "lastDataReceivedAt": integration.last_data_at,
            "errorMessage": integration.error,
        }
    )


def _capabilities(wish: Wish) -> Verdict:
    integration = wish.integration()
    if integration is None and wish.parameter("provider") is not None:
        return refused(404, _UNKNOWN)
    shown = wish.workspace.integrations.values() if integration is None else (integration,)
    setup = {"pylon": ["webhooks"]}
    return done(
        {
            "providers": [
                {"id": each.id, "canConnect": True, "setupSteps": setup.get(each.id, [])} for each in shown
            ]
        }
    )


def _setup_step(wish: Wish) -> Verdict:
    integration, step = wish.integration(), wish.body.get("step")
    if integration is None:
        return refused(404, _UNKNOWN)
    if not isinstance(step, str) or not step:
        return turned_away(400, "step is required")
    return done({"provider": integration.id, "step": step, "status": "manual_setup_required"})


Answering: TypeAlias = Callable[[Wish], Verdict]

ROUTES: Final[Mapping[str, tuple[str, Answering]]] = {
    INTEGRATIONS: ("GET", _list),
    CONNECT: ("POST", _connect),
    f"{CONNECT}/status": ("GET", _connect_status),
    f"{INTEGRATIONS}/disconnect": ("POST", _disconnect),
    f"{INTEGRATIONS}/sync-status": ("GET", _sync_status),
    f"{INTEGRATIONS}/capabilities": ("GET", _capabilities),
    f"{INTEGRATIONS}/setup-step": ("POST", _setup_step),
}
"""Each path with its method."""

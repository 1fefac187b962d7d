"""What the service makes of a call: its route, its key, its form, and then what it asks for. Pure."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from proxy.sandbox.body import MalformedBodyError, read
from proxy.sandbox.platform import integrations, tools
from proxy.sandbox.platform.keys import digest, holds_key
from proxy.sandbox.platform.routes import TOOLS, VALIDATE, Route, is_ambiguous, route_of
from proxy.sandbox.platform.verdict import Verdict, done, turned_away
from proxy.sandbox.platform.workspace import Workspace
from proxy.sandbox.schema import BODY_BYTES_MAX
from proxy.sandbox.violations import Violation, ViolationKind

_AUTHORIZATION: Final = re.compile(r"Bearer (ok_[A-Za-z0-9_-]{1,500})")
_REVOKED: Final = "ok_revoked"
_INVALID: Final = "Invalid credentials"
_VALIDITY: Final = {
    "valid": True,
    "organizationId": "org_sandbox",
    "createdById": "user_sandbox",
    "authorization": {"grants": ["context:read", "notifications:write", "integrations:manage"]},
}


@dataclass(frozen=True, slots=True)
class Arrival:
    """A call, read."""

    received_at: float
    """Unix seconds."""
    method: str
    path: str
    query: str
    headers: tuple[tuple[str, str], ...] = field(repr=False)
    """All of them, the key's too; names in lower case."""
    body: bytes | None = field(repr=False)
    """None: larger than `BODY_BYTES_MAX`, and not read to its end."""
    request_id: str

    def all_of(self, name: str) -> list[str]:
        """Give the values of every header of this name."""
        return [value for each, value in self.headers if each == name]

    @property
    def key(self) -> str | None:
        """Give the key itself; None unless it stands alone and has a key's form."""
        given = self.all_of("authorization")
        found = _AUTHORIZATION.fullmatch(given[0]) if len(given) == 1 else None
        return None if found is None else found[1]

    @property
    def key_digest(self) -> str | None:
        """Give what stands for the key."""
        return None if self.key is None else digest(self.key)


@dataclass(frozen=True, slots=True)
class Form:
    """What a call's body turns out to be."""

    document: dict[str, object] | None
    """None where there is none, or it is no JSON object."""
    wrong: Verdict | None = None

    @property
    def tool(self) -> str | None:
        """Give the tool that it names."""
        named = None if self.document is None else self.document.get("tool")
        return named if isinstance(named, str) else None


def form_of(arrival: Arrival) -> Form:
    """Read the body: nothing at all, or a JSON object that says so."""
    if arrival.body is None:
        return Form(None, turned_away(413, f"The body is larger than {BODY_BYTES_MAX} bytes"))
    if not arrival.body:
        return Form(None)
    declared = arrival.all_of("content-type")
    if arrival.all_of("content-encoding") not in ([], ["identity"]):
        return Form(None, turned_away(400, "The body must not be compressed"))
    if [each.partition(";")[0].strip().lower() for each in declared] != ["application/json"]:
        return Form(None, turned_away(400, "Content-Type must be application/json"))
    try:
        return Form(read(arrival.body))
    except MalformedBodyError as error:
        return Form(None, turned_away(400, str(error)))


def judged(arrival: Arrival, form: Form, workspace: Workspace) -> Verdict:
    """Say what the service answers, and what it would change."""
    route = route_of(arrival.path)
    method = _method(arrival.path)
    if method is None:
        return turned_away(404, "Not found")
    if arrival.method != method:
        return turned_away(405, "Method not allowed", headers={"Allow": method})
    if arrival.key is None or arrival.key.startswith(_REVOKED):
        return turned_away(401, _INVALID, said={"valid": False} if route is Route.VALIDATE else None)
    if form.wrong is not None:
        return form.wrong
    match route:
        case Route.VALIDATE:
            return done(_VALIDITY)
        case Route.TOOLS:
            return _of_tool(arrival, form, workspace)
        case _:
            _, answering = integrations.ROUTES[arrival.path]
            body = {} if form.document is None else form.document
            return answering(
                integrations.Wish(arrival.query, body, workspace, arrival.received_at, arrival.request_id)
            )


def violations_of(arrival: Arrival, text: str) -> Iterator[Violation]:
    """Name what should not have come. `text`: the body as it is recorded, its keys still in it."""
    if arrival.all_of("authorization") and arrival.key is None:
        yield _violation(ViolationKind.AUTHORIZATION, "An Authorization that is no single key of Outlit's")
    others = (value for name, value in arrival.headers if name != "authorization")
    if any(map(holds_key, (arrival.path, arrival.query, text, *others))):
        yield _violation(ViolationKind.KEY, "A key outside of Authorization")
    names = {name for name, _ in arrival.headers}
    if "cookie" in names:
        yield _violation(ViolationKind.COOKIE, "Cookies were passed on")
    if "origin" in names:
        yield _violation(ViolationKind.ORIGIN, "A browser's Origin was passed on")
    if any(name in ("forwarded", "x-real-ip") or name.startswith("x-forwarded-") for name in names):
        yield _violation(ViolationKind.FORWARDED, "Where the caller is was passed on")
    if is_ambiguous(arrival.path):
        yield _violation(ViolationKind.PATH, "A path that can be taken for another")


def _method(path: str) -> str | None:
    """Give the method of a path; None: nothing is there."""
    if path in (VALIDATE, TOOLS):
        return "POST"
    known = integrations.ROUTES.get(path)
    return None if known is None else known[0]


def _of_tool(arrival: Arrival, form: Form, workspace: Workspace) -> Verdict:
    given = {} if form.document is None else form.document.get("input", {})
    if not form.tool:
        return turned_away(400, "tool is required")
    if not isinstance(given, dict):
        return turned_away(400, "input must be an object")
    return tools.call(form.tool, tools.Told(given, workspace, arrival.received_at, arrival.request_id))


def _violation(kind: ViolationKind, message: str) -> Violation:
    return Violation(kind, (), message)

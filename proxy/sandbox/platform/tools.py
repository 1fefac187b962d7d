"""The tools: what each is told, and what it answers."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from proxy.sandbox.platform.context import CUSTOMERS, FACTS, SOURCES, TABLES, Row, customer_named, of_customer
from proxy.sandbox.platform.query import QueryError, run
from proxy.sandbox.platform.verdict import Verdict, done, refused_by_code
from proxy.sandbox.platform.workspace import Workspace, moment

_LIMIT: Final = 20
_LIMIT_MAX: Final = 100
_WORD: Final = re.compile(r"[a-z0-9]+")


class _InputError(ValueError):
    """What a tool was told and cannot take. The message names the field and quotes no value."""


@dataclass(frozen=True, slots=True)
class Told:
    """What a tool works with."""

    input: Mapping[str, object]
    workspace: Workspace
    now: float
    """Unix seconds."""
    request_id: str

    def text(self, name: str) -> str | None:
        """Give a field that is a text, or not there."""
        value = self.input.get(name)
        if value is None or isinstance(value, str):
            return value
        raise _InputError(f"{name} must be a string")

    def needed(self, name: str) -> str:
        """Give a field that must be a text with something in it."""
        value = self.text(name)
        if not value:
            raise _InputError(f"{name} is required")
        return value

    def limited(self, rows: Sequence[Row]) -> dict[str, object]:
        """Give one page of `rows`: as many as `limit` asks for, from behind `cursor` on."""
        limit = self.input.get("limit", _LIMIT)
        if not isinstance(limit, int) or isinstance(limit, bool) or not 1 <= limit <= _LIMIT_MAX:
            raise _InputError(f"limit must be 1 to {_LIMIT_MAX}")
        cursor = self.text("cursor") or "0"
        if re.fullmatch(r"[0-9]{1,9}", cursor, re.ASCII) is None:
            raise _InputError("cursor must be the nextCursor of an answer")
        end = int(cursor) + limit
        more = end < len(rows)
        pagination = {"hasMore": more, "nextCursor": str(end) if more else None, "total": len(rows)}
        return {"items": rows[int(cursor) : end], "pagination": pagination}

    def not_found(self, thing: str) -> Verdict:
        """Refuse for want of what was asked about."""
        return refused_by_code(404, "not_found", f"{thing} not found", self.request_id)


Tool: TypeAlias = Callable[[Told], Verdict]


def call(name: str, told: Told) -> Verdict:
    """Have the tool of this `name` answer."""
    tool = TOOLS.get(name)
    if tool is None:
        return refused_by_code(404, "tool_not_found", f"Unknown tool: {name}", told.request_id)
    try:
        return tool(told)
    except _InputError as error:
        return refused_by_code(400, "invalid_input", str(error), told.request_id)


def _list_customers(told: Told) -> Verdict:
    search, status = (told.text("search") or "").lower(), told.text("status")
    found = [
        row
        for row in CUSTOMERS
        if search in f"{row['name']} {row['domain']}".lower() and status in (None, row["status"])
    ]
    return done(told.limited(found))


def _get_customer(told: Told) -> Verdict:
    customer = customer_named(told.needed("customer"))
    if customer is None:
        return told.not_found("Customer")
    return done({"customer": customer, "facts": of_customer(FACTS, customer)})


def _get_timeline(told: Told) -> Verdict:
    customer = customer_named(told.needed("customer"))
    if customer is None:
        return told.not_found("Customer")
    return done(told.limited(of_customer(told.workspace.timeline(), customer)))


def _list_facts(told: Told) -> Verdict:
    named = told.text("customer")
    if named is None:
        return done(told.limited(FACTS))
    customer = customer_named(named)
    if customer is None:
        return told.not_found("Customer")
    return done(told.limited(of_customer(FACTS, customer)))


def _get_source(told: Told) -> Verdict:
    wanted = (told.needed("sourceType"), told.needed("sourceId"))
    for source in SOURCES:
        if (source["sourceType"], source["sourceId"]) == wanted:
            return done({"source": source})
    return told.not_found("Source")


def _search_customer_context(told: Told) -> Verdict:
    """Rank sources and facts by the words that they share with the query."""
    words = set(_WORD.findall(told.needed("query").lower()))
    ranked = [(len(words & set(_WORD.findall(str(row["text"]).lower()))), row) for row in (*FACTS, *SOURCES)]
    found = sorted((each for each in ranked if each[0]), key=lambda each: -each[0])
    return done(told.limited([{**row, "score": round(shared / len(words), 3)} for shared, row in found]))


def _query(told: Told) -> Verdict:
    try:
        return done(run(told.needed("sql")))
    except QueryError as error:
        return refused_by_code(400, "invalid_query", str(error), told.request_id)


def _schema(_: Told) -> Verdict:
    tables = [{"name": name, "columns": list(rows[0])} for name, rows in TABLES.items()]
    return done({"tables": tables})


def _send_notification(told: Told) -> Verdict:
    """Tell the people who look after a customer: the one tool that changes something."""
    title = told.needed("title")
    customer = customer_named(told.needed("customer"))
    if customer is None:
        return told.not_found("Customer")
    notice: Row = {
        "id": f"note_{told.request_id}",
        "customerId": customer["id"],
        "channel": "NOTIFICATION",
        "title": title,
        "occurredAt": moment(told.now),
    }
    return done({"sent": True, "notificationId": notice["id"]}, lambda: told.workspace.notify(notice))


TOOLS: Final[Mapping[str, Tool]] = {
    "outlit_list_customers": _list_customers,
    "outlit_get_customer": _get_customer,
    "outlit_get_timeline": _get_timeline,
    "outlit_list_facts": _list_facts,
    "outlit_get_source": _get_source,
    "outlit_search_customer_context": _search_customer_context,
    "outlit_query": _query,
    "outlit_schema": _schema,
    "outlit_send_notification": _send_notification,
}

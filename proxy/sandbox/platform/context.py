"""What the stand-in knows of its three customers, and was not told: what happened, was said and concluded."""

from collections.abc import Iterable, Mapping
from typing import Final, TypeAlias

Value: TypeAlias = str | int | float | None
Row: TypeAlias = Mapping[str, Value]


def _table(columns: str, *rows: tuple[Value, ...]) -> tuple[Row, ...]:
    return tuple(dict(zip(columns.split(), row, strict=True)) for row in rows)


CUSTOMERS: Final = _table(
    "id name domain status plan mrr owner lastActivityAt",
    (
        "cus_acme",
        "Acme",
        "acme.example",
        "paid",
        "team",
        1200,
        "ann@ours.example",
        "2026-11-27T16:20:00.000Z",
    ),
    ("cus_globex", "Globex", "globex.example", "trialing", "free", 0, None, "2026-11-28T08:05:00.000Z"),
    ("cus_initech", "Initech", "initech.example", "churned", None, 0, None, "2026-09-02T10:00:00.000Z"),
)
ACTIVITY: Final = _table(
    "id customerId channel title occurredAt",
    ("act_1", "cus_initech", "BILLING", "Cancelled", "2026-09-02T10:00:00.000Z"),
    ("act_2", "cus_acme", "CALL", "Renewal call", "2026-11-26T14:00:00.000Z"),
    ("act_3", "cus_acme", "PRODUCT", "Exported a report", "2026-11-27T16:20:00.000Z"),
    ("act_4", "cus_globex", "EMAIL", "Asked about single sign-on", "2026-11-28T08:05:00.000Z"),
)
FACTS: Final = _table(
    "id customerId type confidence sourceType sourceId text",
    ("fact_1", "cus_acme", "RISK", 0.82, "CALL", "call_1", "Acme compares vendors before the renewal"),
    ("fact_2", "cus_globex", "REQUEST", 0.95, "EMAIL", "mail_1", "Globex needs single sign-on to buy"),
    ("fact_3", "cus_initech", "CHURN", 0.9, "EMAIL", "mail_2", "Initech left because of the price"),
)
SOURCES: Final = _table(
    "sourceType sourceId customerId text",
    ("CALL", "call_1", "cus_acme", "We like the reports. Before the renewal we must look at other vendors."),
    ("EMAIL", "mail_1", "cus_globex", "Is there single sign-on on the team plan? Without it we cannot buy."),
    ("EMAIL", "mail_2", "cus_initech", "The price went up twice. Please close our account."),
)
TABLES: Final[Mapping[str, tuple[Row, ...]]] = {
    "customers": CUSTOMERS,
    "activity": ACTIVITY,
    "facts": FACTS,
    "sources": SOURCES,
}
"""What SQL can read."""


def of_customer(rows: Iterable[Row], customer: Row) -> list[Row]:
    """Give the rows about one customer."""
    return [row for row in rows if row["customerId"] == customer["id"]]


def customer_named(name: str) -> Row | None:
    """Find a customer by id, domain or name."""
    for row in CUSTOMERS:
        if name in (row["id"], row["domain"], row["name"]):
            return row
    return None

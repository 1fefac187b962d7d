"""What the database says of each key: the books as they were written, and a recount of the data itself."""

from collections.abc import Mapping
from typing import Any

import apsw

from proxy import gate
from proxy.buffer.sqlite.store import load_gate
from proxy.buffer.values import KeyFigures, Terms
from proxy.ledger import Books
from proxy.wire.limits import PublicKey

_HELD = "SELECT key_id, sum(length(uuids) / 16) FROM run JOIN queue ON queue.id = queue_id GROUP BY key_id"
_DEAD = "SELECT key_id, count(*) FROM dead_letter GROUP BY key_id"


def read_figures(
    connection: apsw.Connection,
    terms: Terms,
    now_ms: int,
    differences: Mapping[PublicKey, int],
    *,
    recount: bool,
) -> dict[PublicKey, KeyFigures]:
    """The figures of every key, from one snapshot. Without `recount` the difference is the one last found."""
    queues = _by_key(connection, "SELECT key_id, count(*) FROM queue WHERE held > 0 GROUP BY key_id")
    recounted = (_by_key(connection, _HELD), _by_key(connection, _DEAD)) if recount else None
    figures = {}
    for key_id, name, state, succeeded, accepted, delivered, buried, dropped, stored_bytes, ambiguous in _all(
        connection,
        "SELECT id, public_key, gate, succeeded, accepted, delivered, dead, dropped, stored_bytes, ambiguous"
        " FROM key",
    ):
        key = PublicKey(name)
        held, dead = accepted - delivered - buried - dropped, buried
        difference = differences.get(key, 0)
        if recounted is not None:
            held_there, dead_there = (counts.get(key_id, 0) for counts in recounted)
            difference = max(held - held_there, dead - dead_there, key=abs)  # a sum could hide two
            held, dead = held_there, dead_there
        figures[key] = KeyFigures(
            Books(accepted, held, delivered, dead, dropped, difference),
            queues.get(key_id, 0),
            stored_bytes,
            _oldest_held_ms(connection, key_id) if key_id in queues else None,
            gate.view(load_gate(state, terms), now_ms),
            bool(succeeded),
            ambiguous,
        )
    return figures


def _oldest_held_ms(connection: apsw.Connection, key_id: int) -> int | None:
    # Ids are given in the order of acceptance, so the first found is the oldest.
    found = connection.execute(
        "SELECT accepted_ms FROM run JOIN queue ON queue.id = queue_id WHERE key_id = ?"
        " ORDER BY run.id LIMIT 1",
        (key_id,),
    ).fetchone()
    return None if found is None else int(found[0])


def _by_key(connection: apsw.Connection, sql: str) -> dict[int, int]:
    return dict(_all(connection, sql))


def _all(connection: apsw.Connection, sql: str) -> list[Any]:
    return list(connection.execute(sql))

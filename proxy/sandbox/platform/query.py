"""Read-only SQL over what is known of the customers, in a database of its own for every statement."""

import sqlite3
from contextlib import closing
from typing import Final

from proxy.sandbox.platform.context import TABLES

ROWS_MAX: Final = 1_000
_STEPS_MAX: Final = 2_000_000
"""Of SQLite's machine, some tens of milliseconds: a statement must not stop the event loop."""
_VALUE_BYTES_MAX: Final = 100_000
_READS: Final = (
    sqlite3.SQLITE_SELECT,
    sqlite3.SQLITE_READ,
    sqlite3.SQLITE_FUNCTION,
    sqlite3.SQLITE_RECURSIVE,
)


class QueryError(Exception):
    """A statement that cannot be read, does more than read, or takes too long. The message says what."""


def run(sql: str) -> dict[str, object]:
    """Give columns and rows of one statement, at most `ROWS_MAX`. Raises QueryError."""
    try:
        with closing(sqlite3.connect(":memory:")) as database:
            _fill(database)
            database.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _VALUE_BYTES_MAX)
            database.set_authorizer(_authorized)
            database.set_progress_handler(lambda: 1, _STEPS_MAX)
            answer = database.execute(sql)
            if answer.description is None:
                raise QueryError("Only SELECT statements can be run")
            columns = [column[0] for column in answer.description]
            rows = answer.fetchmany(ROWS_MAX + 1)
    except (sqlite3.Error, sqlite3.Warning, ValueError) as error:
        raise QueryError(str(error)) from error
    shown = [dict(zip(columns, map(_plain, row), strict=True)) for row in rows[:ROWS_MAX]]
    return {"columns": columns, "rows": shown, "rowCount": len(shown), "truncated": len(rows) > ROWS_MAX}


def _fill(database: sqlite3.Connection) -> None:
    for table, rows in TABLES.items():
        columns = ", ".join(f'"{column}"' for column in rows[0])
        places = ", ".join("?" for _ in rows[0])
        database.execute(f"CREATE TABLE {table} ({columns})")
        database.executemany(
            f"INSERT INTO {table} VALUES ({places})",  # noqa: S608  # names of our own
            [tuple(row.values()) for row in rows],
        )


def _authorized(action: int, *_: object) -> int:
    return sqlite3.SQLITE_OK if action in _READS else sqlite3.SQLITE_DENY


def _plain(value: object) -> object:
    """Give what JSON can hold of a value."""
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, float) and value in (float("inf"), float("-inf")):
        return None
    return value

"""A connection to a SQLite file through Python's own module, which is imported in milliseconds."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import quote

from trackdsl.delivery.database._connection import MOST_VALUES, Row, T, chunks, width_of
from trackdsl.delivery.database._errors import UNWRITABLE, sqlite_error
from trackdsl.delivery.store._errors import Refused

#: How long to wait for other writers, in seconds: as MLflow does.
_BUSY_TIMEOUT = 20.0
#: Rows of one statement.
_MOST_ROWS = 50


class SqliteConnection:
    """A connection to a SQLite file.

    Args:
        path: the file, which must exist.

    Raises:
        Unavailable: it cannot be opened.
    """

    dialect = "sqlite"
    booleans = (0, 1)  # For a `bool`, `sqlite3` looks for an adapter each time.

    def __init__(self, path: str) -> None:
        # `mode=rw`: a file that was removed must not come back empty.
        self._path = os.path.abspath(path)
        self._address = f"file:{quote(self._path)}?mode=rw"
        self._open: sqlite3.Connection | None = None

    def transact(self, work: Callable[[], T]) -> T:
        """See `Connection`."""
        try:
            connection = self._connection()
            connection.execute("BEGIN IMMEDIATE")
            try:
                result = work()
                connection.execute("COMMIT")
                return result
            finally:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
        except (sqlite3.Error, *UNWRITABLE) as error:
            raise self._translated(error) from None

    def rows(self, statement: str, values: Sequence[Any] = ()) -> list[Row]:
        """See `Connection`."""
        try:
            return self._connection().execute(statement, values).fetchall()
        except (sqlite3.Error, *UNWRITABLE) as error:
            if self._open is not None and self._open.in_transaction:
                raise
            raise self._translated(error) from None

    def execute(self, statement: str, values: Sequence[Any] = ()) -> int:
        """See `Connection`."""
        return self._connection().execute(statement, values).rowcount

    def insert(self, into: str, values: list[Any], tail: str = "") -> None:
        """See `Connection`."""
        # A statement with many rows takes half as long for each. With `OR FAIL`, SQLite needs no way to undo one
        # statement alone: a transaction with an error is rolled back as a whole.
        width = width_of(into)
        single, length = f"({','.join('?' * width)})", width * min(_MOST_ROWS, MOST_VALUES // width)
        end = len(values) // length * length
        insert = self._connection().executemany
        if end:
            many = ",".join([single] * (length // width))
            parts = (values[start : start + length] for start in range(0, end, length))
            insert(f"INSERT OR FAIL INTO {into} VALUES {many} {tail}", parts)  # noqa: S608
        if end < len(values):
            insert(f"INSERT OR FAIL INTO {into} VALUES {single} {tail}", chunks(values[end:], width))  # noqa: S608

    def close(self) -> None:
        """See `Connection`."""
        if self._open is not None:
            self._open.close()
            self._open = None

    def _translated(self, error: Exception) -> Exception:
        translated = sqlite_error(error, self._path)
        if not isinstance(translated, Refused):
            self.close()
        return translated

    def _connection(self) -> sqlite3.Connection:
        if self._open is None:
            self._open = sqlite3.connect(
                self._address, timeout=_BUSY_TIMEOUT, isolation_level=None, check_same_thread=False, uri=True
            )
            # Each transaction sees to it that runs and experiments exist: SQLite need not look for each row.
            self._open.execute("PRAGMA foreign_keys = OFF")
            self._open.execute("PRAGMA case_sensitive_like = true")
        return self._open

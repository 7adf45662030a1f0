"""Reading SQLite files of stores that delivery and others write to."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


def first_row(path: str, query: str, values: Sequence[object] | Mapping[str, object] = ()) -> tuple[Any, ...] | None:
    """The first row that a query finds in a SQLite file; None if there is none.

    The file is opened for reading only, so that a wrong path creates nothing. But where a writer was killed within a
    transaction, SQLite first has to undo what it has written, as every other program would.

    Raises:
        sqlite3.DatabaseError: it cannot be read.
    """
    import sqlite3

    address = Path(path).absolute().as_uri()
    for mode in ("ro", "rw"):
        with contextlib.closing(sqlite3.connect(f"{address}?mode={mode}", uri=True)) as database:
            try:
                found: tuple[Any, ...] | None = database.execute(query, values).fetchone()
                return found
            except sqlite3.OperationalError as error:
                if mode == "rw" or "readonly" not in str(error):
                    raise
    raise AssertionError

"""The bare insertion of rows that are there in advance, into SQLite: `inserting.py executemany|core DELIVERED EMPTY`.

It reads all rows that delivery has written, and writes the same into an empty store in one transaction: one
`sqlite3.executemany` for a table, or one insertion of SQLAlchemy Core. Prints a JSON object of seconds.
"""

from __future__ import annotations

import json
import sqlite3
import sys
import time
from collections.abc import Callable
from contextlib import closing
from typing import Any

from measured import peak

_TABLES = ("experiments", "runs", "tags", "params", "metrics", "latest_metrics")
_Rows = dict[str, list[Any]]


def rows_of(path: str) -> _Rows:
    """All rows of a store, by table."""
    with closing(sqlite3.connect(path)) as source:
        return {table: source.execute(f"SELECT * FROM {table}").fetchall() for table in _TABLES}  # noqa: S608


def with_executemany(rows: _Rows, path: str) -> Callable[[], None]:
    """Prepare the insertion by Python's own module."""
    target = sqlite3.connect(path, isolation_level=None)

    def insert() -> None:
        target.execute("BEGIN IMMEDIATE")
        for table, found in rows.items():
            if found:
                marks = ", ".join("?" * len(found[0]))
                target.executemany(f"INSERT OR IGNORE INTO {table} VALUES ({marks})", found)  # noqa: S608
        target.execute("COMMIT")

    return insert


def with_core(rows: _Rows, path: str) -> Callable[[], None]:
    """Prepare the insertion by SQLAlchemy Core."""
    import sqlalchemy

    engine = sqlalchemy.create_engine(f"sqlite:///{path}")
    tables = sqlalchemy.MetaData()
    tables.reflect(engine, only=_TABLES)
    content = {}
    for name, found in rows.items():
        columns = list(tables.tables[name].columns)
        content[name] = [
            {
                column.name: bool(value) if isinstance(column.type, sqlalchemy.Boolean) else value
                for column, value in zip(columns, row, strict=True)
            }
            for row in found
        ]

    def insert() -> None:
        with engine.begin() as connection:
            for name, found in content.items():
                if found:
                    statement = sqlalchemy.insert(tables.tables[name]).prefix_with("OR IGNORE")
                    connection.execute(statement, found)

    return insert


way, delivered, empty = sys.argv[1:]
prepare = {"executemany": with_executemany, "core": with_core}[way]
insert = prepare(rows_of(delivered), empty)
busy, begun = time.process_time(), time.perf_counter()
insert()
wall, processor = time.perf_counter() - begun, time.process_time() - busy
json.dump({"wall": wall, "processor": processor, "peak": peak()}, sys.stdout)

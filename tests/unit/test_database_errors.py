"""What the errors of databases mean."""

from __future__ import annotations

import sqlite3

import pytest

from trackdsl.delivery.database._errors import MISSING_TABLE, code_of, sqlite_error
from trackdsl.delivery.mlflow_client._advice import advised


class _WithState(Exception):
    sqlstate: str | None = "42S02"


class _OfPostgres(Exception):
    sqlstate: str | None = None
    pgcode = "42P01"


@pytest.mark.parametrize("error", [Exception(1146, "no table"), _WithState(1146, "no table"), _OfPostgres("no table")])
def test_a_missing_table_is_recognized(error: Exception) -> None:
    """A missing table is recognized by MySQL's number, also with an SQLSTATE, and by PostgreSQL's code."""
    assert code_of(error) in MISSING_TABLE


def test_the_first_line_says_what_to_do() -> None:
    """The advice comes before the statement of a database's error, because `status` shows only the first line."""

    class FromDriver(Exception):
        orig = Exception(1061, "Duplicate key name 'index_params_run_uuid'")

    error = FromDriver('(1061, "Duplicate key name")\n[SQL: CREATE INDEX ...]')
    error.__cause__ = ValueError()
    first = advised(error, str(error), remote=False).partition("\n")[0]
    assert first.startswith("(1061,")
    assert "MySQL cannot undo" in first
    assert advised(ValueError("x"), "x\ny", remote=False) == "x\ny"


@pytest.mark.parametrize(
    ("text", "fix"),
    [
        ("no such table: metrics", "Restore it"),
        ("database is locked", "wait until it is done"),
        ("unable to open database file", "readable and writable"),
    ],
)
def test_errors_of_sqlite_name_a_way_out(text: str, fix: str) -> None:
    """The message for an error of SQLite has SQLite's own text, and says what to do about it."""
    found = str(sqlite_error(sqlite3.OperationalError(text), __file__))
    assert text in found
    assert fix in found

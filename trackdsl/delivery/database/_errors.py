"""What the errors of databases mean for delivery: by the exceptions of SQLite, and by the codes of database servers."""

from __future__ import annotations

import os
import sqlite3

from trackdsl.delivery.store._errors import Refused, Unavailable
from trackdsl.errors._databases import cause_in_sqlite, with_fix

#: Codes of PostgreSQL and MySQL for two transactions that wait for each other, and for a wait that was given up.
COLLISIONS = ("40001", "40P01", "55P03", "1205", "1213")
#: MySQL's codes for text that a column cannot hold.
CONTENT = ("1366", "1406", "1264", "1265")
#: Codes for a missing permission on a table or a database.
DENIED = ("42501", "1044", "1142", "1143")
#: Codes for a table that does not exist.
MISSING_TABLE = ("42P01", "1146")
#: What drivers raise for values that they cannot send: lone surrogates, NUL, integers of more than 64 bits.
UNWRITABLE = (ValueError, OverflowError)


class NoTable(Unavailable):
    """A table does not exist, or there is no database yet."""


def code_of(error: Exception) -> str:
    """The code of a database server's error: five characters of PostgreSQL, or a number of MySQL."""
    if error.args and isinstance(error.args[0], int):
        return str(error.args[0])  # MySQL's; newer drivers have an SQLSTATE as well, which says less.
    for name in ("sqlstate", "pgcode"):
        code = getattr(error, name, None)
        if code:
            return str(code)
    return str(error.args[0]) if error.args else ""


def sqlite_error(error: Exception, path: str) -> Exception:
    """The error of delivery for an exception of Python's SQLite module.

    Args:
        error: the exception.
        path: the file.
    """
    text = str(error)
    if isinstance(error, (*UNWRITABLE, sqlite3.DataError, sqlite3.IntegrityError)):
        return Refused(text)
    if not os.path.exists(path):
        return NoTable(f"the database {path} does not exist: {text}")
    cause = cause_in_sqlite(text)
    kind = NoTable if text.startswith("no such table") else Unavailable
    return kind(with_fix(f"the database {path} {cause.what}: {text}", cause.fix))

"""What users can do about errors of databases. Nothing here imports a driver: only codes and texts are read."""

from __future__ import annotations

from typing import NamedTuple

_RESTORE = "Restore it from a backup, or move it away: a new one is then made"
_SPACE = "Free some space on the disk of the database"
_READ_ONLY = "It takes no changes: name its primary server, or end its read-only mode"
_CREATE = "Create the database, or correct the tracking URI"
_CREDENTIALS = "Correct the user and the password in the tracking URI"
_INTERRUPTED = (
    "MLflow was interrupted while it made or upgraded the tables, which MySQL cannot undo: restore the "
    "database from a backup; if it is new, drop it and create it again"
)


class Cause(NamedTuple):
    """Why a database fails.

    Attributes:
        what: completes a sentence that begins with the database.
        fix: what to do about it, in a sentence without its period.
    """

    what: str
    fix: str


#: The cause of an error and its fix, by a part of SQLite's message.
_OF_SQLITE = {
    "no such table": Cause("lacks tables", _RESTORE),
    "locked": Cause("is in use by another program", "Close that program, or wait until it is done"),
    "busy": Cause("is in use by another program", "Close that program, or wait until it is done"),
    "full": Cause("has no space left", "Free some space on its disk"),
    "malformed": Cause("is damaged", _RESTORE),
    "not a database": Cause("is damaged", _RESTORE),
    "readonly": Cause("cannot be written to", "Make the file and its folder writable for this user"),
    "unable to open": Cause("cannot be opened", "Make the file and its folder readable and writable for this user"),
}
#: By the code of PostgreSQL or MySQL, or else by a part of the message: drivers have no code if they cannot connect.
_OF_SERVERS = {
    "53100": _SPACE,
    "1021": _SPACE,
    "1114": _SPACE,
    "25006": _READ_ONLY,
    "1290": _READ_ONLY,
    "1836": _READ_ONLY,
    "42P01": "Restore the database from a backup, or create it again",
    "1146": "Restore the database from a backup, or create it again",
    "1049": _CREATE,
    "1045": _CREDENTIALS,
    "1050": _INTERRUPTED,
    "1060": _INTERRUPTED,
    "1061": _INTERRUPTED,
    '" does not exist': _CREATE,
    "password authentication failed": _CREDENTIALS,
}


def cause_in_sqlite(text: str) -> Cause:
    """Why a SQLite file fails.

    Args:
        text: SQLite's message.

    >>> cause_in_sqlite("attempt to write a readonly database").what
    'cannot be written to'
    """
    return next((cause for sign, cause in _OF_SQLITE.items() if sign in text), Cause("cannot be used", ""))


def database_advice(code: str, text: str) -> str:
    """Advice about an error of a database server; empty if there is none.

    Args:
        code: of the error: five characters of PostgreSQL, or a number of MySQL.
        text: its message.
    """
    found = _OF_SERVERS.get(code) if code.isalnum() else None
    return found or next((fix for sign, fix in _OF_SERVERS.items() if " " in sign and sign in text), "")


def with_fix(text: str, fix: str) -> str:
    """The text of an error, with what to do about it, if anything is known."""
    return f"{text.rstrip('. ')}. {fix}" if fix else text

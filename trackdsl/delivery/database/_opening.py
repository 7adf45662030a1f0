"""Opening MLflow's database: what a URI leads to, and which version of the tables is there."""

from __future__ import annotations

from trackdsl.delivery.database._connection import Connection
from trackdsl.delivery.database._errors import NoTable
from trackdsl.delivery.database._schema import FIRST_WITH_WORKSPACES, KNOWN_REVISIONS
from trackdsl.delivery.database._sqlite_connection import SqliteConnection
from trackdsl.delivery.store._errors import Unavailable
from trackdsl.store_format.sqlite import sqlite_path, through_link


def connect(uri: str, cwd: str, longest: int | None = None) -> Connection | None:
    """A connection to a database; None if the URI is that of another store.

    Args:
        uri: the tracking URI.
        cwd: the folder that it is relative to.
        longest: how long one transaction of a database server may take, in seconds, if not as long as delivery's.

    Raises:
        Unavailable: it cannot be opened.
    """
    dialect = uri.partition(":")[0].partition("+")[0]
    if dialect == "sqlite":
        try:
            path = sqlite_path(through_link(uri, cwd))
        except FileExistsError as error:
            raise Unavailable(str(error)) from None
        return None if path is None or path == ":memory:" or "?" in uri else SqliteConnection(path)
    if dialect in ("postgresql", "mysql"):
        # Here, as most stores are files of SQLite.
        from trackdsl.delivery.database._server_connection import ServerConnection

        return ServerConnection(uri, longest)
    return None


def revision_of(connection: Connection) -> str | None:
    """Alembic's revision of MLflow's tables; None if there are none.

    Raises:
        Unavailable: the database cannot be read now.
    """
    try:
        rows = connection.rows("SELECT version_num FROM alembic_version")
    except NoTable:
        return None
    return str(rows[0][0]) if len(rows) == 1 else None


def why_unknown(connection: Connection, revision: str | None) -> str:
    """Why the database sink does not write to tables; empty if it does.

    Args:
        connection: to the database.
        revision: Alembic's revision of its tables.

    Raises:
        Unavailable: the database cannot be read now.
    """
    known = list(KNOWN_REVISIONS)
    if revision not in known:
        return f"this version of trackdsl does not know MLflow's tables of revision {revision}"
    if known.index(revision) >= known.index(FIRST_WITH_WORKSPACES) and connection.rows(
        "SELECT 1 FROM experiments WHERE workspace <> 'default' LIMIT 1"
    ):
        return "the database has experiments in several workspaces"
    return ""

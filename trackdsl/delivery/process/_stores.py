"""Opening the sink of a tracking URI: of a database that we know, or else of any store that MLflow's client knows."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from functools import partial

from trackdsl.delivery.database._opening import connect, revision_of, why_unknown
from trackdsl.delivery.database._schema import UNUSUAL_VARIABLES
from trackdsl.delivery.database._tables import LocalTables
from trackdsl.delivery.database.sink import DatabaseSink
from trackdsl.delivery.mlflow_client._sqlite_creation import copy_database
from trackdsl.delivery.store._sink import ClientSink, Sink
from trackdsl.store_format.empty_database import artifact_root
from trackdsl.store_format.sinks import CLIENT, REST, SERVER, TABLES, SinkNote


def open_store(
    uri: str,
    cwd: str,
    *,
    own: bool,
    before_import: Callable[[], None] = lambda: None,
    making_tables: Callable[[], contextlib.AbstractContextManager[None]] = contextlib.nullcontext,
    note: Callable[[SinkNote], None] = lambda _: None,
) -> Sink:
    """The sink of a store.

    Args:
        uri: the tracking URI.
        cwd: the program's working directory.
        own: whether this process belongs to delivery.
        before_import: called before MLflow is imported.
        making_tables: makes a context in which MLflow makes the tables of a new database.
        note: called with how the store is written to.

    Raises:
        Unavailable: the store cannot be opened.
    """
    open_client = partial(_open_client, uri, cwd, own=own, before_import=before_import)
    if uri.startswith(("http://", "https://")):
        return _open_server(uri, open_client, note, own=own)
    variable = next((name for name in UNUSUAL_VARIABLES if os.environ.get(name)), None)
    connection = None if variable is not None else connect(uri, cwd)
    if connection is None:
        note(SinkNote(CLIENT, f"the variable {variable} is set" if variable is not None else ""))
        return open_client()
    if revision_of(connection) is None:
        connection.close()
        with making_tables():
            copied = own and copy_database(uri, cwd) and revision_of(connection) is not None
            if not copied:
                connection.close()
                open_client().close()  # MLflow creates the tables.
    revision = revision_of(connection)
    why = why_unknown(connection, revision)
    if revision is None or why:
        connection.close()
        note(SinkNote(CLIENT, why))
        return open_client()
    note(SinkNote(TABLES, ""))
    return DatabaseSink(uri, LocalTables(connection, revision, artifact_root(cwd)), open_client)


def _open_server(
    uri: str, open_client: Callable[[], ClientSink], note: Callable[[SinkNote], None], *, own: bool
) -> Sink:
    """The sink of a tracking server: with change sets if it takes them, else through MLflow's REST API."""
    # These import `requests`, which a process that delivers to databases does not need.
    from trackdsl.delivery.database._server_tables import ServerTables, ask_server
    from trackdsl.delivery.rest._requests import Rest
    from trackdsl.delivery.rest.sink import RestSink

    rest = Rest(uri, own=own)
    about = ask_server(rest)
    if about is None or not about.writes:
        note(SinkNote(REST, about.reason if about is not None else ""))
        return RestSink(rest, open_client, own=own)
    note(SinkNote(SERVER, ""))
    return DatabaseSink(uri, ServerTables(rest), lambda: RestSink(Rest(uri, own=own), open_client, own=own))


def _open_client(uri: str, cwd: str, *, own: bool, before_import: Callable[[], None]) -> ClientSink:
    before_import()
    from trackdsl.delivery.mlflow_client._sink import MlflowSink

    return MlflowSink(uri, cwd, own=own)

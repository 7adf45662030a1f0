"""Opens the store for a query: checks that it can be reached, and waits for the delivery of recent records."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import sys
from collections.abc import Iterator
from types import ModuleType
from urllib.parse import urlsplit

from trackdsl._config import resolve as settings
from trackdsl._core.redaction import mask_prose
from trackdsl._core.sqlite_files import first_row
from trackdsl._core.terminal import at_terminal
from trackdsl._core.uris import absolute_uri, describe_mistake, without_credentials, working_directory
from trackdsl.delivery.known_tables import STORE_ERRORS
from trackdsl.errors import (
    QueryError,
    TrackdslError,
    TrackingServerUnreachable,
    format_error,
    logger,
    reraise_from_signal,
)
from trackdsl.errors._databases import cause_in_sqlite
from trackdsl.query._database import reader_for
from trackdsl.query._paged import PagedReader
from trackdsl.store_format.installed_mlflow import explain_version
from trackdsl.store_format.sqlite import sqlite_path, through_link

#: How long to wait for the delivery of this process's records, in seconds.
FLUSH_PATIENCE = 30.0
_SHOW_AFTER = 1.0
_CONNECT_PATIENCE = 5.0
#: The default ports of database servers.
_PORTS = {"postgresql": 5432, "mysql": 3306, "mssql": 1433}


@contextlib.contextmanager
def opened(tracking_uri: str | None = None) -> Iterator[PagedReader]:
    """A reader of the store, after the records of this process are delivered to it.

    Args:
        tracking_uri: another store than the configured one.

    Raises:
        QueryError: there is no store, or it fails to answer.
        TrackingServerUnreachable: no server answers at its address.
    """
    uri = _resolved(tracking_uri)
    if uri.startswith(("http://", "https://")):
        _check_server(uri)
    elif uri.startswith(tuple(_PORTS)):
        _check_database(uri)
    _wait_for_delivery(uri)
    try:
        _check_file(uri)
        with contextlib.closing(reader_for(uri)) as reader:
            yield reader
    except TrackdslError:
        raise
    except Exception as error:
        if not comes_from_store(error):
            raise
        reraise_from_signal(error)
        why = explain_version(str(error) if isinstance(error, STORE_ERRORS) else format_error(error))
        raise QueryError(
            f"the runs at {mask_prose(uri)} cannot be read: {mask_prose(why)}", argument="tracking_uri"
        ) from None


def text_of(reader: PagedReader, run_id: str, path: str) -> str | None:
    """The text of an artifact; None if it cannot be read."""
    content = content_of(reader, run_id, path)
    try:
        return None if content is None else content.decode("utf-8")
    except UnicodeDecodeError:
        return None


def content_of(reader: PagedReader, run_id: str, path: str) -> bytes | None:
    """The content of an artifact; None if it cannot be read."""
    try:
        return reader.content(run_id, path)
    except Exception as error:
        if not comes_from_store(error):
            raise
        return None


def _resolved(tracking_uri: str | None) -> str:
    """The tracking URI of the store, which is valid in every working directory."""
    if tracking_uri is not None and not isinstance(tracking_uri, str):
        raise QueryError(f"tracking_uri takes a string, not {tracking_uri!r}.", argument="tracking_uri")
    if tracking_uri and (wrong := describe_mistake(tracking_uri)) is not None:
        raise QueryError(f"tracking_uri is {without_credentials(tracking_uri)!r}: {wrong}", argument="tracking_uri")
    recorded = _recorded()
    if recorded is not None and recorded.overridden():
        if tracking_uri is None:
            raise QueryError(
                "runs that are captured for a test do not reach MLflow: ask `captured`, or give tracking_uri=.",
                argument="tracking_uri",
            )
        return absolute_uri(tracking_uri, os.getcwd())
    settings.check_all()
    cwd = working_directory()
    uri = absolute_uri(tracking_uri or settings.tracking_uri(), cwd)
    try:
        return through_link(uri, cwd)
    except OSError as error:
        raise QueryError(
            f"{without_credentials(uri)!r} cannot be named from here: {format_error(error)}",
            argument="tracking_uri",
        ) from None


def _recorded() -> ModuleType | None:
    """The module that knows what this process has recorded; None in a process without it, such as a command."""
    return sys.modules.get("trackdsl.journal._target")


def comes_from_store(error: Exception) -> bool:
    """Whether an exception comes from the store, and not from a fault in trackdsl."""
    # A module that cannot be imported is the driver of a database.
    if isinstance(error, (*STORE_ERRORS, OSError, sqlite3.Error, ModuleNotFoundError)):
        return True
    # What is not imported has raised nothing.
    of_mlflow = getattr(sys.modules.get("mlflow.exceptions"), "MlflowException", ())
    of_driver = getattr(sys.modules.get("sqlalchemy.exc"), "SQLAlchemyError", ())
    return isinstance(error, (of_mlflow, of_driver))


def _wait_for_delivery(uri: str) -> None:
    """Wait until the records of this process for a store are delivered."""
    recorded = _recorded()
    if recorded is None or not any(target.uri == uri for target in recorded.targets()):
        return
    from trackdsl.delivery import flush

    if flush(_SHOW_AFTER):
        return
    if settings.mode() == "online":
        if at_terminal():
            sys.stderr.write("trackdsl: waiting for the delivery to MLflow …\n")
        if flush(FLUSH_PATIENCE - _SHOW_AFTER):
            return
    logger.warning(
        "trackdsl: not everything that this program recorded is at MLflow yet, so the result lacks it. "
        "`trackdsl status` shows why; `trackdsl sync` delivers it."
    )


def _check_server(uri: str) -> None:
    """Check within seconds that a server answers: MLflow would try for minutes.

    Raises:
        TrackingServerUnreachable: no server takes connections at this address.
    """
    parts = urlsplit(uri)
    if any(os.environ.get(name) for name in ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy", "ALL_PROXY")):
        return  # Behind a proxy, a direct connection may be impossible.
    try:
        port = parts.port or (443 if parts.scheme == "https" else 80)
    except ValueError as error:
        raise _unreachable("MLflow server", uri, error) from None
    _connect("MLflow server", uri, parts.hostname or "", port)


def _check_database(uri: str) -> None:
    """Check that a database server answers, if the address names one host.

    Raises:
        TrackingServerUnreachable: no server takes connections at this address.
    """
    from sqlalchemy.engine import make_url

    url = make_url(uri)
    kind = url.drivername.partition("+")[0]
    if not url.host or "," in url.host or url.host.startswith("/") or kind not in _PORTS:
        return
    _connect("database", uri, url.host, url.port or _PORTS[kind])


def _connect(what: str, uri: str, host: str, port: int) -> None:
    import socket  # Most stores are files.

    try:
        socket.create_connection((host, port), _CONNECT_PATIENCE).close()
    except OSError as error:
        reraise_from_signal(error)
        raise _unreachable(what, uri, error) from None


def _unreachable(what: str, uri: str, error: Exception) -> TrackingServerUnreachable:
    masked = mask_prose(uri)
    return TrackingServerUnreachable(
        f"no {what} answers at {masked} ({format_error(error)}): start it, or name another one with tracking_uri= or "
        "TRACKDSL_TRACKING_URI.",
        uri=masked,
    )


def _check_file(uri: str) -> None:
    """Check that a SQLite file is a database of MLflow. MLflow would create it, or add its tables to any other file.

    Raises:
        QueryError: it is not.
    """
    from trackdsl.store_format.journals import absence_message

    path = sqlite_path(uri)
    if path is None or path == ":memory:":
        return
    where = "give --tracking-uri (in Python tracking_uri=) or TRACKDSL_TRACKING_URI, or go to the program's folder"
    if not os.path.exists(path):
        missing = f"there are no runs: the database {path} does not exist; {where}."
        raise QueryError(
            absence_message(f"what was recorded for the database {path}", uri, missing), argument="tracking_uri"
        )
    if os.path.isdir(path):
        raise QueryError(f"{path} is a folder, and a SQLite database is a file; {where}.", argument="tracking_uri")
    try:
        found = first_row(path, "SELECT 1 FROM sqlite_master WHERE name = 'experiments'")
    except sqlite3.DatabaseError as error:
        cause = cause_in_sqlite(str(error))
        if isinstance(error, sqlite3.OperationalError) and cause.fix:
            raise QueryError(f"{path} {cause.what}: {error}. {cause.fix}.", argument="tracking_uri") from None
        message = f"{path} cannot be read as a database of MLflow's: {error}. If it is not one, {where}."
        if cause.fix:  # It may be a damaged one.
            message += f" If it is a damaged one, {cause.fix[0].lower()}{cause.fix[1:]}."
        raise QueryError(message, argument="tracking_uri") from None
    if found is None:
        missing = f"{path} is not an MLflow database: {where}."
        raise QueryError(
            absence_message(f"what was recorded for the database {path}", uri, missing), argument="tracking_uri"
        )

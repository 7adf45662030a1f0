"""Whether a store exists and accepts runs. This is checked once, before a session begins."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import os
import re
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import unquote, urlsplit

from trackdsl._core.redaction import mask_text
from trackdsl._core.sqlite_files import first_row
from trackdsl._core.uris import is_path
from trackdsl._server.tracking_server import (
    FILE_STORE,
    READ,
    Store,
    advice,
    ask_server,
    brief,
    deleted,
    innermost,
    unreachable,
)
from trackdsl.errors import TrackingServerError, reraise_from_signal
from trackdsl.errors._databases import Cause, cause_in_sqlite, with_fix

T = TypeVar("T")

#: How long to wait for an answer at most, in seconds, including the look-up of names, which no library limits.
PATIENCE = 4.5
#: How much of that time stays in reserve after the last answer, because the machine may be busy.
_SPARE = 0.7
#: The databases that MLflow can use, besides SQLite.
DATABASES = ("postgresql", "mysql", "mssql", "oracle")


def check(uri: str, experiment: str | None = None, *, patience: float | None = None) -> Store:
    """Check that runs can be recorded at a tracking URI.

    Args:
        uri: absolute, as MLflow writes it.
        experiment: the name of their MLflow experiment, which need not exist yet.
        patience: how long to wait at most, in seconds; 4.5 by default.

    Raises:
        TrackingServerUnreachable: there is no answer in time.
        TrackingServerError: the server refuses, or is not an MLflow server.
        ExperimentDeleted: the experiment is deleted.
    """
    patience = PATIENCE if patience is None else patience
    scheme = uri.partition(":")[0].partition("+")[0].lower()
    if scheme in ("http", "https"):
        # Both before the clock starts: plugins import MLflow, which takes seconds.
        importlib.import_module("trackdsl._server.http")
        from trackdsl._server.request_options import request_options

        options = request_options()
        return within(patience, uri, lambda: ask_server(uri, experiment, options, patience - _SPARE))
    if scheme in DATABASES:
        return within(patience, uri, lambda: _ask_database(uri, experiment))
    if scheme == "sqlite":
        return _ask_sqlite(uri, experiment)
    if scheme == "file" or is_path(uri):
        return _look_at_files(uri, experiment)
    return Store()  # Databricks and other plugins of MLflow: delivery will find out.


def within(patience: float, uri: str, ask: Callable[[], T]) -> T:
    """Call a function in a thread: look-ups of names have no time limit of their own."""
    answer: list[T] = []
    failure: list[BaseException] = []

    def ask_and_keep() -> None:
        try:
            answer.append(ask())
        except BaseException as error:
            failure.append(error)

    thread = threading.Thread(target=ask_and_keep, name="trackdsl-check", daemon=True)
    thread.start()
    thread.join(patience)
    if answer:
        return answer[0]
    if failure:
        raise failure[0]
    raise unreachable(uri, f"no answer within {patience:g} s")


def _ask_database(uri: str, experiment: str | None) -> Store:
    import sqlalchemy
    from sqlalchemy import exc, pool

    limited = uri.startswith(("postgresql", "mysql"))
    options = {"connect_timeout": int(READ)} if limited else {}
    query = sqlalchemy.text("SELECT experiment_id, lifecycle_stage FROM experiments WHERE name = :name")
    try:
        engine = sqlalchemy.create_engine(uri, poolclass=pool.NullPool, connect_args=options)
        with engine.connect() as connection:
            row = connection.execute(query, {"name": experiment or "Default"}).first() if _has_tables(engine) else None
    except (ImportError, exc.NoSuchModuleError) as error:
        raise TrackingServerError(
            f"{mask_text(uri)} needs a driver that is not installed ({brief(error)}). {_driver(str(error))}",
            uri=mask_text(uri),
        ) from None
    except exc.ArgumentError as error:
        message = f"{mask_text(uri)} is not a URI of a database: {brief(error)}"
        raise TrackingServerError(message, uri=mask_text(uri)) from None
    except exc.SQLAlchemyError as error:
        reraise_from_signal(innermost(error))
        raise unreachable(uri, brief(getattr(error, "orig", None) or error)) from None
    if row is not None and experiment is not None and row[1] == "deleted":
        raise deleted(experiment, str(row[0]))
    return Store(experiment_id=None if row is None or experiment is None else str(row[0]))


def _driver(error: str) -> str:
    if "psycopg" in error:
        return "Run `pip install psycopg2-binary`, and begin the URI with postgresql+psycopg2://."
    if "MySQLdb" in error:
        return "Run `pip install pymysql`, and begin the URI with mysql+pymysql://."
    return "Install the driver that the URI names, or name another one."


def _has_tables(engine: Any) -> bool:
    import sqlalchemy

    return bool(sqlalchemy.inspect(engine).has_table("experiments"))


def _ask_sqlite(uri: str, experiment: str | None) -> Store:
    import sqlite3

    path = uri.partition("://")[2].removeprefix("/").partition("?")[0]
    # A database that does not exist yet needs only a folder.
    if not path or not os.path.exists(path) or experiment is None:
        return Store()
    try:
        query = "SELECT experiment_id, lifecycle_stage FROM experiments WHERE name = ?"
        row = first_row(path, query, (experiment,))
    except sqlite3.DatabaseError as error:
        if "no such table" in str(error) or "locked" in str(error):  # Another process is creating it.
            return Store()
        cause = cause_in_sqlite(str(error))
        if cause.what == "is damaged":
            cause = Cause("is not an MLflow database", "Name another file")
        raise TrackingServerError(with_fix(f"{path} {cause.what}: {error}", cause.fix), uri=uri) from None
    if row is not None and row[1] == "deleted":
        raise deleted(experiment, str(row[0]))
    return Store(experiment_id=None if row is None else str(row[0]))


def _look_at_files(uri: str, experiment: str | None) -> Store:
    if _refuses_files() and os.environ.get(FILE_STORE, "").lower() not in ("true", "1"):
        raise TrackingServerError(
            f"MLflow no longer accepts a folder of files, such as {uri}, as a store. {advice(None, FILE_STORE)}",
            uri=uri,
        )
    folder = Path(unquote(urlsplit(uri).path)) if uri.startswith("file:") else Path(uri)
    for meta in (folder / ".trash").glob("*/meta.yaml") if experiment is not None else ():
        name = rf"^name: ['\"]?{re.escape(str(experiment))}['\"]?$"
        if re.search(name, meta.read_text(encoding="utf-8"), re.MULTILINE):
            raise deleted(str(experiment), meta.parent.name)
    return Store()


def _refuses_files() -> bool:
    """Whether the installed MLflow needs a setting to accept such a store; found out without importing it."""
    spec = importlib.util.find_spec("mlflow")
    for folder in (spec and spec.submodule_search_locations) or ():
        with contextlib.suppress(OSError):
            return FILE_STORE in (Path(folder) / "store/tracking/file_store.py").read_text(encoding="utf-8")
    return False

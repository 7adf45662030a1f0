"""Creating SQLite stores: MLflow's client does not expect several processes, or crashes, at that moment."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Callable, Iterator
from typing import Any

from trackdsl.delivery.store._errors import Unavailable
from trackdsl.errors._databases import cause_in_sqlite, with_fix
from trackdsl.store_format.empty_database import adapt, artifact_root, copy_empty, keep_empty
from trackdsl.store_format.sqlite import sqlite_path, through_link


@contextlib.contextmanager
def alone(uri: str) -> Iterator[None]:
    """Hold a lock while a new SQLite file gets its tables: two processes that do so at once crash in alembic.

    The lock is on the folder, so that no lock file is left behind.
    """
    path = sqlite_path(uri)
    if path is None:
        yield
        return
    folder = os.path.dirname(_through_links(path)) or "."
    os.makedirs(folder, exist_ok=True)
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def copy_database(uri: str, cwd: str) -> bool:
    """Create a new SQLite file without MLflow, whose import takes seconds; False where MLflow has to do it.

    Args:
        uri: of the store.
        cwd: the folder that it is relative to, below which its artifacts are.
    """
    try:
        uri = through_link(uri, cwd)
        with alone(uri):
            return make_database(uri, artifact_root(os.path.realpath(cwd)))
    except OSError:
        return False  # MLflow's client meets it too, and says what is wrong.


def make_database(uri: str, root: str, open_client: Callable[[str], Any] | None = None) -> bool:
    """Create a new SQLite file completely or not at all: MLflow can never open one that was interrupted.

    Args:
        uri: of the store.
        root: the folder of its artifacts.
        open_client: makes MLflow's client of a tracking URI, which creates the tables; None to do without MLflow.

    Returns:
        whether there is a file, or the store is none; it can be missing only without MLflow.

    Raises:
        Unavailable: the file cannot be created.
    """
    path = sqlite_path(uri)
    if path is None or path == ":memory:" or _has_content(path):
        return True
    made = _through_links(path)  # If the path is a link, the file is made where it points, and the link stays.
    part = f"{made}.trackdsl-part"
    try:
        # A process that was killed here may have left it; its rollback journal would be applied to the new file.
        _unlink(part, f"{part}-journal")
        _check_creation(part, made)
        if not copy_empty(part, root):
            if open_client is None:
                return False
            release(open_client(uri.replace(path, part, 1)))
            here = artifact_root(os.getcwd())
            keep_empty(part, here)
            if root != here:
                adapt(part, root)
        # A process that does not use our lock may have created the file in the meantime: then that file is used.
        if not _has_content(path):
            os.replace(part, made)
        return True
    finally:
        _unlink(part, f"{part}-journal")


def _check_creation(part: str, path: str) -> None:
    """Raise at once if a file cannot be created: MLflow would try ten times, for more than a minute and a half."""
    try:
        os.close(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    except OSError as error:
        what = f"The database {path} cannot be created: {error.strerror}"
        raise Unavailable(with_fix(what, cause_in_sqlite("unable to open").fix)) from None
    _unlink(part)


def release(client: Any) -> None:
    """Close the connections of one of MLflow's clients, and remove its store from MLflow's caches."""
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    store = client._tracking_client.store
    if not isinstance(store, SqlAlchemyStore):
        return
    store.engine.dispose()
    _forget_store(store.db_uri)


def _forget_store(uri: str) -> None:
    # MLflow caches engines by URI, for each kind of store, and the last hundred stores.
    from mlflow.store.model_registry.sqlalchemy_store import SqlAlchemyStore as ModelRegistry
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore as Tracking
    from mlflow.tracking._model_registry import registry as models
    from mlflow.tracking._tracking_service import registry as runs

    for kind in (Tracking, ModelRegistry):
        engine = getattr(kind, "_engine_map", {}).pop(uri, None)
        if engine is not None:
            engine.dispose()
    for kept in (runs.TrackingStoreRegistry, models.ModelRegistryStoreRegistry):
        kept._get_store_with_resolved_uri.cache_clear()


def _through_links(path: str) -> str:
    """The file that a path leads to; the path itself unless that is a link."""
    return os.path.realpath(path) if os.path.islink(path) else path


def _has_content(path: str) -> bool:
    try:
        return os.path.getsize(path) > 0
    except FileNotFoundError:
        return False


def _unlink(*paths: str) -> None:
    for path in paths:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)

"""SQLite stores: what MLflow's client does not see to where several processes, and crashes, meet on one file."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Callable, Iterator
from typing import Any

from trackdsl.store_format.empty_database import adapt, artifact_root, copy_empty, keep_empty
from trackdsl.store_format.sqlite import sqlite_path


@contextlib.contextmanager
def alone(uri: str) -> Iterator[None]:
    """Hold a lock while a fresh SQLite file gets its tables: two processes doing so at once crash in alembic.

    The lock is on the folder, which leaves no file behind.
    """
    path = sqlite_path(uri)
    if path is None:
        yield
        return
    folder = os.path.dirname(path) or "."
    os.makedirs(folder, exist_ok=True)
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def make_database(uri: str, root: str, open_client: Callable[[str], Any]) -> None:
    """Make a fresh SQLite file whole or not at all: MLflow can never open one whose making was cut short.

    Args:
        uri: of the store.
        root: where its artifacts go.
        open_client: makes MLflow's client of a tracking URI, which makes the tables.
    """
    path = sqlite_path(uri)
    if path is None or path == ":memory:" or _has_content(path):
        return
    part = f"{path}.trackdsl-part"
    try:
        # Left by a process that was killed here; its rollback journal would be played back into the new file.
        _unlink(part, f"{part}-journal")
        if not copy_empty(part, root):
            release(open_client(uri.replace(path, part, 1)))
            here = artifact_root(os.getcwd())
            keep_empty(part, here)
            if root != here:
                adapt(part, root)
        # Somebody who does not know our lock may have made it meanwhile: theirs stands.
        if not _has_content(path):
            os.replace(part, path)
    finally:
        _unlink(part, f"{part}-journal")


def release(client: Any) -> None:
    """Close the connections of one of MLflow's clients, and let MLflow forget its store, which it keeps for ever."""
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    store = client._tracking_client.store
    if not isinstance(store, SqlAlchemyStore):
        return
    store.engine.dispose()
    _forget_store(store.db_uri)


def _forget_store(uri: str) -> None:
    # MLflow keeps engines by URI, for each kind of store, and the last hundred stores.
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


def _has_content(path: str) -> bool:
    try:
        return os.path.getsize(path) > 0
    except FileNotFoundError:
        return False


def _unlink(*paths: str) -> None:
    for path in paths:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)

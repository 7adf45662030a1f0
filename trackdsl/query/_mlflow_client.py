"""MLflow's client of a store: the only place of queries that imports MLflow for one."""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from trackdsl.store_format.sqlite import identity

_BARS = "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR"
#: The file of each SQLite URI at the last query. MLflow keeps its connections open, even if the file was replaced.
_files: dict[str, tuple[int, int]] = {}


def client_of(uri: str) -> Any:
    """An `mlflow.MlflowClient`.

    Args:
        uri: the tracking URI.
    """
    _import_bars()
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=uri)
    now = identity(uri)
    if now is not None and _files.setdefault(uri, now) != now:
        _files[uri] = now
        _forget_connections(client)
    return client


def store_of(client: Any) -> Any:
    """The store object that MLflow's client calls; None if this version of MLflow has it elsewhere."""
    return getattr(getattr(client, "_tracking_client", None), "store", None)


def downloaded(client: Any, run_id: str, path: str) -> bytes:
    """The content of an artifact."""
    import mlflow

    uri = str(client.tracking_uri)
    with _set_for_now(_BARS, "false"):  # Else MLflow shows a progress bar for each file.
        try:
            return _content(client, run_id, path)
        except (mlflow.exceptions.MlflowException, OSError):
            if not uri.startswith("http") or mlflow.get_tracking_uri() == uri:
                raise
        # MLflow 3.1 looks for the files of a server at the store that is set for the whole process.
        with _set_for_now("MLFLOW_TRACKING_URI", uri):
            return _content(client, run_id, path)


def _content(client: Any, run_id: str, path: str) -> bytes:
    import tempfile

    with tempfile.TemporaryDirectory(prefix="trackdsl-") as folder:
        return Path(client.download_artifacts(run_id, path, folder)).read_bytes()


@contextlib.contextmanager
def _set_for_now(variable: str, value: str) -> Iterator[None]:
    before = os.environ.get(variable)
    os.environ[variable] = value
    try:
        yield
    finally:
        if before is None:
            os.environ.pop(variable, None)
        else:
            os.environ[variable] = before


def _import_bars() -> None:
    """Import what MLflow imports for its progress bars.

    In a kernel without widgets that warns, although trackdsl shows no bar.
    """
    if "ipykernel" in sys.modules:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            importlib.import_module("tqdm.auto")


def _forget_connections(client: Any) -> None:
    """Make MLflow connect again: another file has replaced the one that its connections have open."""
    engine = getattr(store_of(client), "engine", None)
    if engine is not None:
        engine.dispose()

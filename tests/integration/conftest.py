"""Fixtures of the tests of the server's plugin."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from trackdsl.store_format.empty_database import adapt

if TYPE_CHECKING:
    from tests.plugin_server import Served


@pytest.fixture
def served(empty_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    """A server with a store of its own."""
    from mlflow.server import handlers
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    from tests.plugin_server import Served

    folder = tmp_path / "served"
    folder.mkdir()
    shutil.copy(empty_store, folder / "mlflow.db")
    adapt(str(folder / "mlflow.db"), str(folder / "mlruns"))
    store = SqlAlchemyStore(f"sqlite:///{folder}/mlflow.db", str(folder / "mlruns"))
    monkeypatch.setattr(handlers, "_tracking_store", store)
    server = Served(folder / "mlflow.db")
    yield server
    server.close()
    store.engine.dispose()

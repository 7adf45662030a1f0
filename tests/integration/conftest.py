"""A server with the plugin, and a store with runs of many kinds."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import trackdsl
from tests.conftest import Server, recorded_offline
from tests.gateways import Gateway
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


@pytest.fixture(scope="session")
def zoo_file(empty_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SQLite file with the runs of `record_zoo`, and some that plain MLflow made."""
    from tests.run_zoo import record_by_plain_mlflow, record_zoo

    folder = tmp_path_factory.mktemp("zoo")
    with recorded_offline(empty_store, folder) as uri:
        record_zoo(uri)
    record_by_plain_mlflow(uri)
    return folder / "mlflow.db"


@pytest.fixture
def zoo(zoo_file: Path) -> str:
    """The store of `zoo_file`, as the configured one."""
    uri = f"sqlite:///{zoo_file}"
    trackdsl.configure(tracking_uri=uri)
    return uri


@pytest.fixture
def no_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    """MLflow's client sends nothing again by itself, as in the delivery process."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")


@pytest.fixture
def gateway(shared_server: Server) -> Iterator[Callable[..., Gateway]]:
    """Opens gateways to the shared server, and closes them."""
    opened: list[Gateway] = []

    def open_gateway(kind: type[Gateway] = Gateway, **options: Any) -> Gateway:
        opened.append(kind(shared_server.port, **options))
        return opened[-1]

    yield open_gateway
    for each in opened:
        each.close()

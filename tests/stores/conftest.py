"""The stores that the contract is held against: where runs go, and where their files do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests import services as real
from tests.conftest import client
from tests.services import Service, mariadb_database, postgresql_database, services

__all__ = ["mariadb_database", "postgresql_database", "services", "tracking_store"]

Services = Callable[..., Service]
#: Who may use the server that asks for it.
USER, USER_PASSWORD = "admin", "correct-horse-battery"


@dataclass(frozen=True)
class TrackingStore:
    """A store.

    Attributes:
        uri: the tracking URI.
        artifacts: where the files of a new experiment go; None for where the store puts them.
    """

    uri: str
    artifacts: str | None = None

    def make_experiment(self, name: str) -> None:
        """Make an experiment whose files go where they should."""
        if self.artifacts is not None:
            client(self.uri).create_experiment(name, f"{self.artifacts}/{name}")


@pytest.fixture(autouse=True)
def _installed() -> None:
    real.needs("moto")  # Stands for all of them: without it none of these tests is wanted.


@pytest.fixture
def tracking_store(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, services: Services
) -> TrackingStore:
    """A store, by name; the test's environment has what its clients need."""
    environment: dict[str, str] = {}
    found: TrackingStore = TRACKING_STORES[request.param](Ask(request.getfixturevalue, services, environment))
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    return found


@dataclass(frozen=True)
class Ask:
    """The type of the fixture that provides the services of a store.

    Attributes:
        fixture: asks for a fixture.
        services: starts services.
        environment: what clients need.
    """

    fixture: Callable[[str], Any]
    services: Services
    environment: dict[str, str]

    def artifacts(self, name: str) -> Service:
        """A store of artifacts that clients write to themselves."""
        service = self.services(name, getattr(real, name))
        self.environment.update(service.environment)
        return service

    def server(
        self,
        name: str,
        *options: str,
        database: Callable[[], str] | None = None,
        host: str = "127.0.0.1",
        **environment: str,
    ) -> str:
        """A tracking server; returns its URI. Its database is made when it is started, which is once for all tests."""

        def start(folder: Path) -> Service:
            backend = [] if database is None else [f"--backend-store-uri={database()}"]
            return real.mlflow_server(folder, *options, *backend, host=host, **environment)

        return self.services(name, start).uri


def _sqlite(_: Ask) -> TrackingStore:
    return TrackingStore(f"sqlite:///{Path.cwd()}/mlflow.db")


def _file(ask: Ask) -> TrackingStore:
    ask.environment["MLFLOW_ALLOW_FILE_STORE"] = "true"
    return TrackingStore(Path.cwd().joinpath("mlruns").as_uri())


def _postgresql(ask: Ask) -> TrackingStore:
    return TrackingStore(ask.fixture("postgresql_database").uri)


def _mariadb(ask: Ask) -> TrackingStore:
    return TrackingStore(ask.fixture("mariadb_database").uri)


def _straight_to_s3(ask: Ask) -> TrackingStore:
    ask.artifacts("s3")
    return TrackingStore(ask.fixture("sqlite_store"), "s3://runs/straight")


def _straight_to_azure(ask: Ask) -> TrackingStore:
    ask.artifacts("azure")
    return TrackingStore(ask.fixture("sqlite_store"), "wasbs://runs@trackdsl.blob.core.windows.net/straight")


def _straight_to_gcs(ask: Ask) -> TrackingStore:
    ask.artifacts("gcs")
    return TrackingStore(ask.fixture("sqlite_store"), "gs://runs/straight")


def _one_worker(ask: Ask) -> TrackingStore:
    return TrackingStore(ask.fixture("shared_server").uri)


def _four_workers(ask: Ask) -> TrackingStore:
    return TrackingStore(
        ask.server(
            "four-workers",
            "--workers=4",
            "--artifacts-destination=s3://runs/proxied",
            database=lambda: str(ask.fixture("postgresql_database").fresh("four_workers")),
            **ask.services("s3", real.s3).environment,
        )
    )


def _plugin(ask: Ask) -> TrackingStore:
    return TrackingStore(
        ask.server(
            "plugin",
            "--app-name=trackdsl",
            "--workers=4",
            "--artifacts-destination={folder}/artifacts",
            database=lambda: str(ask.fixture("postgresql_database").fresh("plugin")),
        )
    )


def _basic_auth(ask: Ask) -> TrackingStore:
    real.needs("flask_wtf")
    # Else each request takes the server a quarter of a second, for the hash of the password.
    config = Path("auth.ini").absolute()
    config.write_text(
        "[mlflow]\ndefault_permission = READ\ndatabase_uri = sqlite:///auth.db\nadmin_username = admin\n"
        "authorization_function = mlflow.server.auth:authenticate_request_basic_auth\nauth_cache_ttl_seconds = 600\n"
    )
    ask.environment.update(MLFLOW_TRACKING_USERNAME=USER, MLFLOW_TRACKING_PASSWORD=USER_PASSWORD)
    return TrackingStore(
        ask.server(
            "basic-auth",
            "--workers=1",
            "--app-name=basic-auth",
            "--backend-store-uri=sqlite:///{folder}/runs.db",
            "--artifacts-destination=wasbs://runs@trackdsl.blob.core.windows.net/proxied",
            MLFLOW_AUTH_CONFIG_PATH=str(config),
            MLFLOW_AUTH_ADMIN_PASSWORD=USER_PASSWORD,
            MLFLOW_FLASK_SERVER_SECRET_KEY=real.SECRET_KEY,
            **ask.services("azure", real.azure).environment,
        )
    )


def _allowed_hosts(ask: Ask) -> TrackingStore:
    return TrackingStore(
        ask.server(
            "allowed-hosts",
            "--workers=1",
            "--allowed-hosts=127.0.0.2:{port}",
            "--artifacts-destination=gs://runs/proxied",
            database=lambda: str(ask.fixture("mariadb_database").fresh("allowed_hosts")),
            host="127.0.0.2",
            **ask.services("gcs", real.gcs).environment,
        )
    )


def _s3_root(ask: Ask) -> TrackingStore:
    ask.artifacts("s3")
    return TrackingStore(ask.server("s3-root", *real.S3_ROOT))


TRACKING_STORES = {
    "sqlite": _sqlite,
    "file": _file,
    "postgresql": _postgresql,
    "mariadb": _mariadb,
    "straight to s3": _straight_to_s3,
    "straight to azure": _straight_to_azure,
    "straight to gcs": _straight_to_gcs,
    "server of one worker": _one_worker,
    "server of four workers, postgresql and s3": _four_workers,
    "server with the plugin, four workers and postgresql": _plugin,
    "server with basic auth and azure": _basic_auth,
    "server with allowed hosts, mariadb and gcs": _allowed_hosts,
    "server whose clients write to s3": _s3_root,
}

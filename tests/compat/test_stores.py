"""Rows 59 to 67: every kind of backend store and of artifact store."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import trackdsl
from tests import services as real
from tests.conftest import Server, StartProgram, client, deliver, sync
from tests.services import Service
from trackdsl import experiment, stage

Services = Callable[..., Service]


def _record(uri: str, name: str) -> None:
    trackdsl.configure(tracking_uri=uri)
    Path("weights.bin").write_bytes(bytes(range(256)))

    @experiment(name)
    def training(lr: float = 0.1) -> None:
        with stage("fit", epochs=2) as run:
            run.log_metric("loss", 0.5, step=1)
            run.log_artifact("weights.bin", "model/weights.bin")

    training()
    deliver()


def _check(uri: str, name: str) -> Any:
    """The run of `fit`, after a look at what the store has."""
    mlflow = client(uri)
    runs = mlflow.search_runs([mlflow.get_experiment_by_name(name).experiment_id])
    found = {run.info.run_name: run for run in runs}
    assert (len(runs), set(found)) == (2, {"training", "fit"})
    fit = found["fit"]
    assert {run.info.status for run in runs} == {"FINISHED"}
    assert found["training"].data.params == {"lr": "0.1"}
    assert (fit.data.params, fit.data.metrics) == ({"epochs": "2"}, {"loss": 0.5})
    assert fit.data.tags["mlflow.parentRunId"] == found["training"].info.run_id
    local = mlflow.download_artifacts(fit.info.run_id, "model/weights.bin")
    assert Path(local).read_bytes() == bytes(range(256))
    return fit


def test_r59_a_client_reaches_the_backend_store_through_a_server(shared_server: Server) -> None:
    """What a program records comes to the server, and the server's own database has it."""
    _record(shared_server.uri, "row-59")
    run = _check(shared_server.uri, "row-59")
    behind = client(f"sqlite:///{shared_server.folder}/srv.db").get_run(run.info.run_id)
    assert behind.data.metrics == {"loss": 0.5}


def test_r60_a_server_passes_files_on_to_the_artifact_store(shared_server: Server) -> None:
    """A file recorded for a server lies in the server's store of artifacts, not in the program's folder."""
    _record(shared_server.uri, "row-60")
    run = _check(shared_server.uri, "row-60")
    assert run.info.artifact_uri.startswith("mlflow-artifacts:")
    (kept,) = (shared_server.folder / "artifacts").glob(f"*/{run.info.run_id}/artifacts/model/weights.bin")
    assert kept.read_bytes() == bytes(range(256))
    assert not Path("mlruns").exists()


@pytest.mark.parametrize("kind", ["sqlite", "postgresql", "mysql"])
def test_r61_each_database_holds_what_was_recorded(kind: str, request: pytest.FixtureRequest) -> None:
    """SQLite, PostgreSQL and MySQL (as MariaDB) serve as backend stores."""
    uri = {
        "sqlite": lambda: request.getfixturevalue("sqlite_store"),
        "postgresql": lambda: request.getfixturevalue("postgresql_database").uri,
        "mysql": lambda: request.getfixturevalue("mariadb_database").uri,
    }[kind]()
    assert uri.startswith(kind)
    _record(uri, "row-61")
    _check(uri, "row-61")


@pytest.mark.parametrize(
    ("kind", "root"),
    [
        ("local", ""),
        ("s3", "s3://runs/row-62"),
        ("azure", "wasbs://runs@trackdsl.blob.core.windows.net/row-62"),
        ("gcs", "gs://runs/row-62"),
    ],
)
def test_r62_each_artifact_store_holds_what_was_recorded(
    kind: str, root: str, sqlite_store: str, services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Local folders, S3, Azure Blob and Google Cloud Storage take the files of runs."""
    if kind == "local":
        root = Path("kept").absolute().as_uri()
    else:
        real.needs({"s3": "boto3", "azure": "azure.storage.blob", "gcs": "google.cloud.storage"}[kind])
        for name, value in services(kind, getattr(real, kind)).environment.items():
            monkeypatch.setenv(name, value)
    client(sqlite_store).create_experiment("row-62", root)
    _record(sqlite_store, "row-62")
    assert _check(sqlite_store, "row-62").info.artifact_uri.startswith(root)


def test_r63_a_sqlite_file_named_relative_to_the_program(start: StartProgram, sqlite_store: str) -> None:
    """`sqlite:///mlflow.db` is the file of that name in the program's working folder."""
    program = start(
        """
        import trackdsl
        trackdsl.configure(tracking_uri="sqlite:///mlflow.db")
        with trackdsl.experiment("row-63"):
            trackdsl.log_metric("m", 1)
        """
    )
    assert program.finish()[0] == 0
    assert sync().returncode == 0
    mlflow = client(sqlite_store)
    (run,) = mlflow.search_runs([mlflow.get_experiment_by_name("row-63").experiment_id])
    assert run.data.metrics == {"m": 1.0}


def test_r64_a_postgresql_uri_with_user_and_password(request: pytest.FixtureRequest) -> None:
    """User, password, host, port and database are all in the URI, and the password is in no answer of `status`."""
    uri = request.getfixturevalue("postgresql_database").uri
    assert uri.startswith(f"postgresql://mlflow:{real.PASSWORD}@127.0.0.1:")
    trackdsl.configure(tracking_uri=uri)
    with experiment("row-64"):
        pass
    assert real.PASSWORD not in _status()
    deliver()
    mlflow = client(uri)
    assert len(mlflow.search_runs([mlflow.get_experiment_by_name("row-64").experiment_id])) == 1


def test_r64_a_missing_driver_is_named() -> None:
    """Where the driver of a database is not installed, `trackdsl status` says what to install."""
    with socket.create_server(("127.0.0.1", 0)) as database:
        port = database.getsockname()[1]
        trackdsl.configure(tracking_uri=f"mssql+pymssql://me:hunter2@127.0.0.1:{port}/db")
        with experiment("row-64"):
            pass
        assert sync().returncode == 1
    status = _status()
    assert "pip install 'pymssql'" in status
    assert "hunter2" not in status


def test_r65_a_tracking_server_by_its_address(shared_server: Server) -> None:
    """`http://host:port` is a tracking server."""
    assert shared_server.uri.startswith("http://127.0.0.1:")
    _record(shared_server.uri, "row-65")
    _check(shared_server.uri, "row-65")


def test_r66_s3_by_the_default_artifact_root_of_a_server(services: Services, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that names S3 as the root of artifacts sends its clients there."""
    for name, value in services("s3", real.s3).environment.items():
        monkeypatch.setenv(name, value)

    def start(folder: Path) -> Service:
        return real.mlflow_server(folder, *real.S3_ROOT)

    uri = services("s3-root", start).uri
    _record(uri, "row-66")
    assert _check(uri, "row-66").info.artifact_uri.startswith("s3://runs/root/")


def test_r67_a_folder_of_files_where_mlflow_allows_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """`file:///…` is a store once MLFLOW_ALLOW_FILE_STORE=true is set; until then `trackdsl status` says to set it."""
    import mlflow
    from packaging.version import Version

    uri = Path("mlruns").absolute().as_uri()
    if Version(mlflow.__version__) >= Version("3.17"):
        trackdsl.configure(tracking_uri=uri)
        with experiment("row-67-refused"):
            pass
        assert sync().returncode == 1
        assert "Set MLFLOW_ALLOW_FILE_STORE=true" in _status()
        assert not list(Path().glob("mlruns/*/*"))
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    _record(uri, "row-67")  # What had to wait arrives with it.
    _check(uri, "row-67")
    assert Path("mlruns").is_dir()


def _status() -> str:
    """What `trackdsl status --json` says."""
    import subprocess
    import sys

    done = subprocess.run(
        [sys.executable, "-m", "trackdsl.cli", "status", "--json"], capture_output=True, text=True, check=True
    )
    return "\n".join(journal["error"] or "" for journal in json.loads(done.stdout)["journals"]) + done.stdout

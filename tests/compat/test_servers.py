"""Rows 20 to 27: tracking servers, and a compose file that starts one."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

import trackdsl
from tests import services as real
from tests.conftest import client, deliver, sync
from tests.services import Service
from trackdsl import TrackingServerError, experiment, start_logging
from trackdsl.cli import main

Services = Callable[..., Service]


def _record(uri: str, name: str) -> Any:
    """A run with a file, delivered; as the store has it."""
    trackdsl.configure(tracking_uri=uri)
    with experiment(name) as run:
        run.log_metric("m", 1)
        run.log_text("hello", "notes/hello.txt")
    deliver()
    mlflow = client(uri)
    (found,) = mlflow.search_runs([mlflow.get_experiment_by_name(name).experiment_id])
    assert (found.info.status, found.data.metrics) == ("FINISHED", {"m": 1.0})
    assert Path(mlflow.download_artifacts(found.info.run_id, "notes/hello.txt")).read_text() == "hello"
    return found


@pytest.fixture
def elsewhere(services: Services) -> str:
    """A server that knows itself as this machine, called by an address that it does not know."""

    def start(folder: Path) -> Service:
        return real.mlflow_server(
            folder,
            "--workers=1",
            "--backend-store-uri=sqlite:///{folder}/mlflow.db",
            "--default-artifact-root=./mlflow-artifacts",
            host="0.0.0.0",  # noqa: S104
        )

    return services("rows-20-to-23", start).uri


def _local(uri: str) -> str:
    return uri.replace("0.0.0.0", "127.0.0.1")  # noqa: S104


def test_r20_a_server_on_a_host_and_port(elsewhere: str) -> None:
    """`mlflow server --host 0.0.0.0 --port N` holds what is recorded for it."""
    _record(_local(elsewhere), "row-20")


def test_r21_a_server_with_a_sqlite_backend(elsewhere: str, services: Services) -> None:
    """The file that `--backend-store-uri sqlite:///…` names has the runs."""
    found = _record(_local(elsewhere), "row-21")
    (database,) = real.folder_of(services, "rows-20-to-23").glob("mlflow.db")
    assert client(f"sqlite:///{database}").get_run(found.info.run_id).data.metrics == {"m": 1.0}


def test_r22_a_server_with_a_local_artifact_root(elsewhere: str, services: Services) -> None:
    """Files go to the folder that `--default-artifact-root` names, seen from the server."""
    found = _record(_local(elsewhere), "row-22")
    folder = real.folder_of(services, "rows-20-to-23") / "mlflow-artifacts"
    assert found.info.artifact_uri.removeprefix("file://").startswith(str(folder))
    assert list(folder.glob(f"*/{found.info.run_id}/artifacts/notes/hello.txt"))


def test_r23_a_server_that_does_not_know_its_name(elsewhere: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Called by a name that `--allowed-hosts` does not have, it refuses; a start and `status` say what to do."""
    uri = elsewhere.replace("0.0.0.0", "127.0.0.3")  # noqa: S104
    trackdsl.configure(tracking_uri=uri)
    with experiment("row-23"):
        pass
    done = sync()
    assert done.returncode == 1
    status = subprocess.run(
        [sys.executable, "-m", "trackdsl.cli", "status"], capture_output=True, text=True, check=True
    ).stdout
    assert "Invalid Host header" in status
    assert "--allowed-hosts" in status
    monkeypatch.setenv("TRACKDSL_MODE", "online")
    with pytest.raises(TrackingServerError, match=r"403: 'Invalid Host header.*--allowed-hosts") as caught:
        start_logging("row-23", config={"tracking_uri": uri})
    assert caught.value.status == 403


@pytest.fixture
def compose(tmp_path: Path) -> dict[str, Any]:
    """The compose file, as `trackdsl compose --output` writes it."""
    result = CliRunner().invoke(main, ["compose", "--output", str(tmp_path / "tracking")])
    assert result.exit_code == 0, result.output
    assert ".env.example" in result.output
    found: dict[str, Any] = yaml.safe_load((tmp_path / "tracking" / "compose.yaml").read_text())
    return found


def test_r24_a_compose_file_with_a_tracking_service(compose: dict[str, Any]) -> None:
    """It has the server, its database and its store of files, which it waits for; no password is in it."""
    services = compose["services"]
    assert set(services) == {"tracking", "database", "storage"}
    image, install = services["tracking"]["build"]["dockerfile_inline"].splitlines()
    assert image.startswith("FROM ghcr.io/mlflow/mlflow:")
    assert image.endswith("-full")  # The other one has no drivers.
    assert "pip install" in install
    assert "trackdsl==" in install
    assert {wait["condition"] for wait in services["tracking"]["depends_on"].values()} == {"service_healthy"}
    assert all("healthcheck" in service for service in services.values())
    for service in services.values():
        for name, value in service["environment"].items():
            if "PASSWORD" in name or "SECRET" in name or "ACCESS_KEY" in name:
                assert value.startswith("${"), name
                assert ":?" in value, name  # Compose asks for it before anything starts.


def test_r25_the_compose_file_publishes_the_port(compose: dict[str, Any]) -> None:
    """Port 5000 is that of the server, for this machine alone unless the user says otherwise."""
    services = compose["services"]
    assert services["tracking"]["ports"] == ["${MLFLOW_BIND:-127.0.0.1}:5000:5000"]
    assert not any("ports" in service for name, service in services.items() if name != "tracking")


def test_r26_the_command_of_the_compose_file(compose: dict[str, Any]) -> None:
    """The server listens where its container is reached, and has the options that MLflow 3 needs."""
    tracking = compose["services"]["tracking"]
    command = tracking["command"]
    assert command[:4] == ["trackdsl", "server", "--host=0.0.0.0", "--port=5000"]
    assert "--serve-artifacts" in command
    assert any(option.startswith("--allowed-hosts=") for option in command)
    assert any(option.startswith("--artifacts-destination=s3://") for option in command)
    assert tracking["environment"]["MLFLOW_BACKEND_STORE_URI"].startswith("postgresql+psycopg2://")


def test_r27_what_the_compose_file_keeps_is_in_volumes(compose: dict[str, Any]) -> None:
    """Runs and files outlive their containers."""
    services = compose["services"]
    kept = [volume.split(":")[0] for name in ("database", "storage") for volume in services[name]["volumes"]]
    assert sorted(kept) == sorted(compose["volumes"])

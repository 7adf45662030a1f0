"""A server with users: runs that one may not write are blocked, and delivered for one who may."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import requests

from tests import services as real
from tests.conftest import StartProgram, all_runs, sync

ADMIN = {"MLFLOW_TRACKING_USERNAME": "admin", "MLFLOW_TRACKING_PASSWORD": "admin-password-1"}
BOB = {"MLFLOW_TRACKING_USERNAME": "bob", "MLFLOW_TRACKING_PASSWORD": "bobs-password-12"}


@pytest.fixture(params=["basic-auth", "trackdsl-auth"])
def server(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[str]:
    """A server, also one with the plugin, whose user `bob` may read the experiment `private` and not write to it."""
    real.needs("flask_wtf")
    folder = tmp_path / "server"
    folder.mkdir()
    (folder / "auth.ini").write_text(
        "[mlflow]\ndefault_permission = READ\ndatabase_uri = sqlite:///auth.db\nadmin_username = admin\n"
        "authorization_function = mlflow.server.auth:authenticate_request_basic_auth\nauth_cache_ttl_seconds = 600\n"
    )
    service = real.mlflow_server(
        folder,
        "--workers=1",
        f"--app-name={request.param}",
        "--backend-store-uri=sqlite:///{folder}/runs.db",
        "--artifacts-destination={folder}/artifacts",
        MLFLOW_AUTH_CONFIG_PATH=str(folder / "auth.ini"),
        MLFLOW_AUTH_ADMIN_PASSWORD=ADMIN["MLFLOW_TRACKING_PASSWORD"],
        MLFLOW_FLASK_SERVER_SECRET_KEY=real.SECRET_KEY,
    )
    admin = tuple(ADMIN.values())
    for path, content in (
        ("users/create", {"username": "bob", "password": BOB["MLFLOW_TRACKING_PASSWORD"]}),
        ("experiments/create", {"name": "private"}),
    ):
        answer = requests.post(f"{service.uri}/api/2.0/mlflow/{path}", json=content, auth=admin, timeout=60)
        assert answer.status_code == 200, answer.text
    yield service.uri
    for pid in service.pids:
        os.killpg(pid, 9)


def test_a_run_that_its_user_may_not_write_is_blocked(
    server: str, start: StartProgram, monkeypatch: pytest.MonkeyPatch, names: Callable[[], list[str]]
) -> None:
    """Other runs arrive, `status` says why this one does not, and `sync` of a user who may write delivers it."""
    program = start(
        """
        from trackdsl import experiment
        for name in ("private", "bobs-own"):
            with experiment(name, run_name=f"in-{name}") as run:
                run.log_metric("loss", 0.5)
        """,
        TRACKDSL_TRACKING_URI=server,
    )
    code, _, err = program.finish()
    assert code == 0, err
    done = sync(**BOB)
    assert done.returncode == 1
    assert "blocked" in done.stderr
    assert names() == ["in-bobs-own"]
    status = subprocess.run(
        [sys.executable, "-m", "trackdsl.cli", "status"], capture_output=True, text=True, check=True
    )
    assert "ermission" in status.stdout
    done = sync(**ADMIN)
    assert done.returncode == 0, done.stderr
    assert sorted(names()) == ["in-bobs-own", "in-private"]


@pytest.fixture
def names(server: str, monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[str]]:
    """The names of the runs that have ended well, as the administrator sees them."""

    def ask() -> list[str]:
        with monkeypatch.context() as patch:
            for name, value in ADMIN.items():
                patch.setenv(name, value)
            return [run.info.run_name for run in all_runs(server) if run.info.status == "FINISHED"]

    return ask

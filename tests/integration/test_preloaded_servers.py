"""The servers of the tests, which are forks of a process that has imported MLflow."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from tests import preloaded_servers
from tests.conftest import Server
from tests.preloaded_servers import PreloadedServers


def test_counters_are_registered_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """MLflow's server is imported anew for each server, but for the module that registers counters for Prometheus."""
    names = ["mlflow", "mlflow.server", "mlflow.server.auth", "mlflow.server.otlp_metrics", "mlflow.server_plugin"]
    with monkeypatch.context() as patch:
        patch.setattr(sys, "modules", modules := dict.fromkeys(names))
        preloaded_servers._forget_application()
    assert [*modules] == ["mlflow", "mlflow.server.otlp_metrics", "mlflow.server_plugin"]


def test_a_session_inside_another_one_has_servers_of_its_own_code(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever inherits the environment uses the same process, unless it has other code."""
    monkeypatch.delenv("PRELOADED_SERVERS")
    outer = PreloadedServers()
    assert PreloadedServers()._folder == outer._folder
    monkeypatch.setenv("PRELOADED_SERVERS", f"{outer._folder}{os.pathsep}/elsewhere/tests/preloaded_servers.py")
    assert PreloadedServers()._folder != outer._folder


@pytest.mark.slow
def test_a_server_that_ends_at_once_is_an_error_at_once(tmp_path: Path) -> None:
    """The error of a server that cannot start has what it printed."""
    with pytest.raises(AssertionError, match="No such option"):
        Server(tmp_path, options=["--none"]).start()

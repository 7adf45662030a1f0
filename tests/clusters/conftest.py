"""What the tests of clusters share: programs that are run once, whichever processes the tests are in."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import PATIENCE

#: Runs a program once for all tests: its name, the program beside this file, its arguments, and what its environment
#: has beside ours. The folder that it ran in comes back, with its store in `mlflow.db`.
RunOnce = Callable[..., Path]


@pytest.fixture(scope="session")
def run_once(tmp_path_factory: pytest.TempPathFactory, empty_store: Path) -> RunOnce:
    """Run a program with a cluster of its own, deliver all that it recorded, and keep the store for the tests."""
    # With pytest-xdist each process has a folder of its own, below one that they share.
    base = tmp_path_factory.getbasetemp()
    base = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base

    def run(name: str, program: str, *arguments: str, **environment: str) -> Path:
        folder = base / name
        folder.mkdir(exist_ok=True)
        with (folder / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if (folder / "failed").exists():
                pytest.fail((folder / "failed").read_text(), pytrace=False)
            if not (folder / "done").exists():
                try:
                    command = [str(Path(__file__).parent / program), *arguments, str(folder)]
                    _run(folder, command, empty_store, environment)
                except Exception as error:
                    (folder / "failed").write_text(str(error))  # Not once more for each test.
                    raise
                (folder / "done").touch()
        return folder

    return run


def _run(folder: Path, command: list[str], empty_store: Path, environment: dict[str, str]) -> None:
    (folder / "mlflow.db").write_bytes(empty_store.read_bytes())
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW_", "TRACKDSL_"))}
    # Delivered afterwards, and once: it takes MLflow longer to start than all of this to run.
    environment = {**clean, "TRACKDSL_SPOOL": str(folder / "spool"), "TRACKDSL_MODE": "offline", **environment}
    for arguments in (command, ["-m", "trackdsl.cli", "sync"]):
        done = subprocess.run(
            [sys.executable, *arguments],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=4 * PATIENCE,  # A cluster is many processes, and others may be busy.
            check=False,
        )
        (folder / "log").open("a").write(done.stdout + done.stderr)
        assert done.returncode == 0, done.stdout + done.stderr

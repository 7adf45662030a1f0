"""Starts MLflow servers from a process that has imported MLflow.

`mlflow server` imports MLflow in a process that only starts uvicorn, which imports it again: together some ten seconds
of CPU time. Here one process imports it once, and each server is a fork of it, which runs `mlflow server` with
its arguments and then, in the same process, the uvicorn command that this gives. Several workers are forks of that.
"""

from __future__ import annotations

import gc
import importlib
import json
import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

#: What a server needs. It imports `mlflow.server` again, which reads the environment as it is imported.
_IMPORTED = ("mlflow.cli", "mlflow.server.auth", "mlflow.server.fastapi_app", "uvicorn.main")


class PreloadedServers:
    """The process whose forks are servers. It ends with the process that started it."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None

    def start(self, arguments: Sequence[str], folder: Path, log: Path, environment: Mapping[str, str]) -> int:
        """Start a server in a process group of its own.

        Args:
            arguments: of `mlflow server`.
            folder: its working directory.
            log: what it prints is added to this file.
            environment: all of its variables.

        Returns:
            The id of its process, which is not a child of this one.
        """
        if self._process is None or self._process.poll() is not None:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-W", "ignore", __file__],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True, cwd="/",
                env={name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW", "TRACKDSL"))},
            )  # fmt: skip
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        wanted = {"arguments": [*arguments], "folder": str(folder), "log": str(log), "environment": dict(environment)}
        self._process.stdin.write(json.dumps(wanted) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        assert answer, "the process that starts MLflow servers has ended; what it printed says why"
        return int(answer)


def _main() -> None:
    """Fork a server for each line of the standard input."""
    for name in _IMPORTED:
        importlib.import_module(name)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # Servers that end leave no zombies.
    gc.freeze()
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            _become_server(**json.loads(line))
        os.setpgid(pid, pid)  # Before anybody knows the id, and may kill the group.
        sys.stdout.write(f"{pid}\n")
        sys.stdout.flush()


def _become_server(arguments: list[str], folder: str, log: str, environment: dict[str, str]) -> None:
    os.chdir(folder)
    written = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    silent = os.open(os.devnull, os.O_RDONLY)
    for source, standard in ((silent, 0), (written, 1), (written, 2)):
        os.dup2(source, standard)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = ["mlflow", "server", *arguments]
    import uvicorn._subprocess
    from mlflow import cli
    from mlflow.utils import process

    # Uvicorn would start each of several workers as a new program.
    vars(uvicorn._subprocess)["spawn"] = multiprocessing.get_context("fork")
    run_command = process._exec_cmd

    def run_here(command: Any, *, extra_env: Mapping[str, str] | None = None, **options: Any) -> Any:
        """Run uvicorn in this process."""
        if command[1:3] != ["-m", "uvicorn"]:
            return run_command(command, extra_env=extra_env, **options)
        os.environ.update(extra_env or {})
        _forget_application()
        _close_connections()
        return uvicorn.main.main(command[3:])

    vars(process)["_exec_cmd"] = run_here
    _forget_application()
    cli.cli(["server", *arguments])


def _forget_application() -> None:
    for name in [*sys.modules]:
        if name == "mlflow.server" or name.startswith("mlflow.server."):
            del sys.modules[name]


def _close_connections() -> None:
    """Close the connections that the command has opened: workers that are forks would use one together."""
    from sqlalchemy.engine import Engine

    for found in gc.get_objects():
        if isinstance(found, Engine):
            found.dispose()


if __name__ == "__main__":
    _main()

"""Starts MLflow servers from a process that has imported MLflow.

`mlflow server` imports MLflow in a process that only starts uvicorn, which imports it again: together some ten seconds
of CPU time. Here one process imports it once, for all workers of pytest-xdist and the programs that they start, and
each server is a fork of it, which runs `mlflow server` with its arguments and then, in the same process, the uvicorn
command that this gives. Several workers are forks of that.
"""

from __future__ import annotations

import atexit
import fcntl
import gc
import importlib
import json
import multiprocessing
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

#: What a server needs. It imports `mlflow.server` again, which reads the environment as it is imported.
_IMPORTED = ("mlflow.cli", "mlflow.server.auth", "mlflow.server.fastapi_app", "uvicorn.main")
#: What would fail if it was imported again: it registers its counters for Prometheus, whatever the environment.
_KEPT = "mlflow.server.otlp_metrics"
#: The variable that tells other processes of a test session the folder of the process, and which code it was made for.
_FOLDER = "PRELOADED_SERVERS"


class PreloadedServers:
    """The process whose forks are servers. It ends with the first process that has made one of these objects."""

    def __init__(self) -> None:
        folder, _, code = os.environ.get(_FOLDER, "").partition(os.pathsep)
        if code != __file__:  # There is none, or this is a test session inside another one.
            folder = tempfile.mkdtemp(prefix="servers-")
            os.environ[_FOLDER] = folder + os.pathsep + __file__
            atexit.register(_remove, folder, os.getpid())
            alive = os.open(Path(folder, "alive"), os.O_RDWR | os.O_CREAT)  # Open until this process ends.
            fcntl.flock(alive, fcntl.LOCK_EX)
        self._folder = Path(folder)

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
        wanted = {"arguments": [*arguments], "folder": str(folder), "log": str(log), "environment": dict(environment)}
        with self._connection() as connection, connection.makefile("rw") as stream:
            stream.write(json.dumps(wanted) + "\n")
            stream.flush()
            answer = stream.readline()
        assert answer, f"the process that starts MLflow servers has ended: {(self._folder / 'log').read_text()}"
        return int(answer)

    def _connection(self) -> socket.socket:
        """A connection to the process, which is started if there is none."""
        connection = socket.socket(socket.AF_UNIX)
        address = self._folder / "socket"
        with open(self._folder / "lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            try:
                connection.connect(str(address))
            except (FileNotFoundError, ConnectionRefusedError):
                address.unlink(missing_ok=True)
                self._launch(address)
                connection.connect(str(address))
        return connection

    def _launch(self, address: Path) -> None:
        with socket.socket(socket.AF_UNIX) as listener, open(self._folder / "log", "w") as log:
            listener.bind(str(address))
            listener.listen()
            subprocess.Popen(
                [sys.executable, "-P", "-W", "ignore", __file__, str(listener.fileno()), str(self._folder / "alive")],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, pass_fds=[listener.fileno()],
                start_new_session=True, cwd="/",
                env={name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW", "TRACKDSL"))},
            )  # fmt: skip


def _remove(folder: str, maker: int) -> None:
    if os.getpid() == maker:  # Not in its forks.
        shutil.rmtree(folder, ignore_errors=True)


def _main(descriptor: int, alive: str) -> None:
    """Fork a server for each connection."""
    threading.Thread(target=_end_after, args=(os.open(alive, os.O_RDWR),), daemon=True).start()
    for name in _IMPORTED:
        importlib.import_module(name)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # Servers that end leave no zombies.
    gc.freeze()
    listener = socket.socket(fileno=descriptor)
    while True:
        connection = listener.accept()[0]
        with connection, connection.makefile("rw") as stream:
            wanted = json.loads(stream.readline())
            pid = os.fork()
            if pid == 0:
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                listener.close()
                stream.close()
                connection.close()
                _become_server(**wanted)
            os.setpgid(pid, pid)  # Before anybody knows the id, and may kill the group.
            stream.write(f"{pid}\n")


def _end_after(alive: int) -> None:
    """End this process with the one that holds the lock."""
    fcntl.flock(alive, fcntl.LOCK_EX)
    os._exit(0)


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
        if name == "mlflow.server" or (name.startswith("mlflow.server.") and name != _KEPT):
            del sys.modules[name]


def _close_connections() -> None:
    """Close the connections that the command has opened: workers that are forks would use one together."""
    from sqlalchemy.engine import Engine

    for found in gc.get_objects():
        if isinstance(found, Engine):
            found.dispose()


if __name__ == "__main__":
    _main(int(sys.argv[1]), sys.argv[2])

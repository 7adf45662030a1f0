"""The workspace of the benchmarks: temporary folders, stores, servers good and bad, the delivery process of a spool.

Everything that is started here is ended by its process id.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType

_START = 90.0


class Workspace:
    """A temporary folder with everything that one run of the benchmarks leaves behind, removed at the end."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="trackdsl-benchmarks-"))
        self._open = contextlib.ExitStack()
        self._servers: dict[tuple[str, int], str] = {}
        self._count = 0
        self._schema: Path | None = None

    def env(self, **extra: str) -> dict[str, str]:
        """An environment for a child: ours, without what would steer MLflow or trackdsl."""
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("MLFLOW_", "TRACKDSL_"))}
        threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
        return {**kept, **threads, "MLFLOW_DISABLE_TELEMETRY": "true", **extra}

    def recording(self, mode: str, uri: str | None = None) -> tuple[Path, dict[str, str]]:
        """A fresh spool, and an environment that records into it."""
        spool = self.new_path("spool")
        uri = uri or self.new_store()
        return spool, self.env(TRACKDSL_MODE=mode, TRACKDSL_SPOOL=str(spool), TRACKDSL_TRACKING_URI=uri)

    def new_path(self, name: str) -> Path:
        """A path inside the folder where nothing is yet."""
        self._count += 1
        return self.folder / f"{self._count:03d}-{name}"

    def new_store(self) -> str:
        """The URI of a fresh SQLite store; MLflow takes seconds to make one, so it is made once and copied."""
        if self._schema is None:
            self._schema = self.new_path("empty.db")
            self._with_tables(f"sqlite:///{self._schema}")
        path = self.new_path("mlflow.db")
        shutil.copyfile(self._schema, path)
        return f"sqlite:///{path}"

    def server(self, app: str = "", workers: int = 1) -> str:
        """The URI of a real MLflow server, started when first asked for.

        Args:
            app: a plugin that the server runs; empty for MLflow's own.
            workers: how many processes answer.
        """
        if (app, workers) not in self._servers:
            server = self._open.enter_context(_mlflow_server(self, app, workers))
            _wait_for(server)
            self._servers[app, workers] = server
        return self._servers[app, workers]

    def postgresql(self) -> Callable[[], str]:
        """Start PostgreSQL; returns what makes a database with MLflow's tables in it, and gives its URI.

        Raises:
            LookupError: it is not installed.
        """
        sys.path.append(str(Path(__file__).parents[2]))
        try:
            import pytest

            from tests import services
        except ImportError as error:
            raise LookupError(f"pip install -e '.[test,stores]' ({error})") from None
        try:
            service = services.postgresql(self.folder)
        except pytest.skip.Exception as error:
            raise LookupError(str(error)) from None
        self._open.callback(_end, service.pids, service.folders)

        services.execute(f"{service.uri}/postgres", "CREATE DATABASE empty")
        self._with_tables(f"{service.uri}/empty")

        def fresh() -> str:
            name = self.new_path("database").name.replace("-", "_")
            services.execute(f"{service.uri}/postgres", f'CREATE DATABASE "{name}" TEMPLATE empty')
            return f"{service.uri}/{name}"

        return fresh

    def _with_tables(self, uri: str) -> None:
        code = "import mlflow, sys; mlflow.MlflowClient(sys.argv[1]).search_experiments()"
        command = [sys.executable, "-W", "ignore", "-c", code, uri]
        subprocess.run(command, env=self.env(), cwd=self.folder, check=True, capture_output=True)

    def __enter__(self) -> Workspace:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._open.close()
        shutil.rmtree(self.folder, ignore_errors=True)


def closed_port() -> int:
    """A port of this machine without a listener."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextlib.contextmanager
def hung_server() -> Iterator[str]:
    """A server that accepts every connection and never answers."""
    held: list[socket.socket] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def accept() -> None:
            with contextlib.suppress(OSError):
                while True:
                    held.append(listener.accept()[0])

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()
            for connection in held:
                connection.close()


class Delivery:
    """The delivery process of a spool, stopped and continued so that its share of the time can be measured.

    Args:
        spool: a spool of this run alone.
    """

    def __init__(self, spool: Path) -> None:
        self._spool = spool

    def pids(self) -> list[int]:
        """The processes that deliver this spool."""
        wanted = [b"-m", b"trackdsl.delivery", os.fsencode(self._spool)]
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                with contextlib.suppress(OSError):
                    if (entry / "cmdline").read_bytes().split(b"\0")[:-1][-3:] == wanted:
                        found.append(int(entry.name))
        return found

    def end(self) -> None:
        """Kill it, wherever it is."""
        for pid in self.pids():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        give_up = time.monotonic() + 5
        while self.pids() and time.monotonic() < give_up:
            time.sleep(0.01)

    @contextlib.contextmanager
    def stopped(self) -> Iterator[_Switch]:
        """Suspend the delivery process (SIGSTOP), except inside `with switch:`."""
        switch = _Switch(self.pids())
        switch.send(signal.SIGSTOP)
        try:
            yield switch
        finally:
            switch.send(signal.SIGCONT)


class _Switch:
    """Lets a delivery process run while it is entered."""

    def __init__(self, pids: list[int]) -> None:
        self.pids = pids

    def send(self, number: int) -> None:
        for pid in self.pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def __enter__(self) -> None:
        self.send(signal.SIGCONT)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.send(signal.SIGSTOP)


@contextlib.contextmanager
def _mlflow_server(workspace: Workspace, app: str = "", workers: int = 1) -> Iterator[str]:
    """A real MLflow server on a fresh SQLite store; gives its URI at once."""
    port = closed_port()
    command = [sys.executable, "-W", "ignore", "-m", "mlflow", "server", "--backend-store-uri", workspace.new_store()]
    command += ["--host", "127.0.0.1", "--port", str(port), "--workers", str(workers)]
    command += ["--app-name", app] if app else []
    # Its job runners import MLflow nine times, which takes the CPUs long after it has answered first.
    env = workspace.env(MLFLOW_SERVER_ENABLE_JOB_EXECUTION="false")
    with open(workspace.new_path("server.log"), "wb") as log:
        process = subprocess.Popen(
            command, env=env, cwd=workspace.folder, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        # Its workers are in the session that was made for it.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _wait_for(uri: str) -> None:
    """Wait until a server answers.

    Raises:
        TimeoutError: it does not.
    """
    address = uri.removeprefix("http://")
    give_up = time.monotonic() + _START
    while time.monotonic() < give_up:
        connection = http.client.HTTPConnection(address, timeout=2)
        try:
            connection.request("GET", "/health")
            if connection.getresponse().status == 200:
                return
        except OSError:
            time.sleep(0.1)
        finally:
            connection.close()
    raise TimeoutError(f"{uri} did not answer within {_START:g} s")


def _end(pids: list[int], folders: list[str]) -> None:
    """End services, each with its process group, and remove what they leave."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)

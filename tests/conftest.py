"""What the tests share: private spools, real stores, programs in processes of their own."""

from __future__ import annotations

import contextlib
import fcntl
import gc
import os
import shutil
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hypothesis
import psutil
import pytest
from _pytest.assertion.rewrite import AssertionRewritingHook

from trackdsl import settings
from trackdsl._core import runtime
from trackdsl.delivery import _timing
from trackdsl.journal import _target
from trackdsl.journal._lock import is_held

from .drawn_processes import Machine
from .memory_store import MemoryStore

# No deadline: a machine that is busy with the other tests is no fault of the one at hand.
hypothesis.settings.register_profile("full", deadline=None, max_examples=100)
hypothesis.settings.register_profile("plain", deadline=None, max_examples=20)
hypothesis.settings.load_profile("plain")  # `--hypothesis-profile full` is read after this file.

# pytest parses the modules of its plugins, of which trackdsl is one. In Python 3.11 two threads that parse at once fail
# with a SystemError (https://github.com/python/cpython/issues/106905), such as a test and the delivery thread.
_rewriting = [finder for finder in sys.meta_path if isinstance(finder, AssertionRewritingHook)]
for _finder in _rewriting:
    _finder._must_rewrite -= {name for name in _finder._must_rewrite if name.partition(".")[0] == "trackdsl"}
    _finder._marked_for_rewrite_cache.clear()

# Hundreds of programs are started: each would compile the package anew.
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

# A shell has what it starts in the background ignore Ctrl-C, and the programs that the tests start inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

#: What the machine may take for anything that is waited for, in seconds.
PATIENCE = 90.0


#: What starts databases, clusters and servers, which takes seconds each.
_SERVICES = ("clusters/", "stores/", "compat/test_autologging.py", "compat/test_servers.py", "compat/test_stores.py")


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[None]:
    """Keep the garbage collector from the millions of objects that imports leave: a collection takes a second else."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()
        gc.freeze()


@pytest.hookimpl(wrapper=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> Iterator[None]:
    """Leave services to the slow tests, and begin with those that take longest, shared among the workers."""
    _mark_services(items)
    yield
    workers = getattr(config, "workerinput", {"workercount": 1})["workercount"]
    longest = [item for item in items if item.get_closest_marker("long")]
    others = [item for item in items if not item.get_closest_marker("long")]
    share = -(-len(others) // workers)
    # Each worker begins with an equal part of the list.
    items[:] = [
        item
        for number in range(workers)
        for item in [*longest[number::workers], *others[number * share : (number + 1) * share]]
    ]


def _mark_services(items: list[pytest.Item]) -> None:
    """Of the tests at a tracking server, `test_delivery.py` alone is among the quick ones."""
    for item in items:
        place = item.path.relative_to(Path(__file__).parent).as_posix()
        fixtures = set(getattr(item, "fixturenames", ()))
        at_server = "[server" in item.name or fixtures & {"shared_server", "own_server"}
        if place.startswith(_SERVICES) or (at_server and place != "integration/test_delivery.py"):
            item.add_marker(pytest.mark.slow)


def examples(number: int) -> int:
    """How many examples Hypothesis tries: the number with `--hypothesis-profile full`, else a fifth of it."""
    return max(5, number * hypothesis.settings.default.max_examples // 100)


def wait_until(
    condition: Callable[[], Any],
    what: str,
    patience: float = PATIENCE,
    progress: Callable[[], object] = lambda: None,
) -> Any:
    """Wait for a condition; its first true value is returned.

    Args:
        condition: what to wait for.
        what: the same, for the error.
        patience: give up after so many seconds without progress.
        progress: a value that changes with each progress.
    """
    give_up = time.monotonic() + patience
    pause = time.sleep  # The pause of a poll, not a guess at how long something takes.
    seen = progress()
    while True:
        value = condition()
        if value:
            return value
        if (now := progress()) != seen:
            seen, give_up = now, time.monotonic() + patience
        if time.monotonic() > give_up:
            raise AssertionError(f"waited {patience} s in vain for {what}")
        pause(0.02)


@pytest.fixture(autouse=True)
def private(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Each test has a working directory and a spool of its own, and leaves no setting behind."""
    for name in list(os.environ):
        if name.startswith(("TRACKDSL_", "MLFLOW_")):
            monkeypatch.delenv(name)
    for name in ("COLUMNS", "LINES"):  # Readline sets them where Python's `os.environ` does not show it.
        monkeypatch.delenv(name, raising=False)
        os.unsetenv(name)
    monkeypatch.setenv("TRACKDSL_SPOOL", str(tmp_path / "spool"))
    monkeypatch.setenv("TRACKDSL_MODE", "offline")
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    runtime.reset()
    yield
    runtime.reset()
    if "mlflow" in sys.modules:
        sys.modules["mlflow"].set_tracking_uri(None)
    with contextlib.suppress(OSError):  # The test has put something else in the place of the lock.
        if is_held(tmp_path / "spool" / "delivery.lock"):  # Delivery that waits for a server would outlive its test.
            for pid in delivery_pids(tmp_path / "spool"):
                os.kill(pid, signal.SIGKILL)


@dataclass
class Program:
    """A program that runs in a process of its own, in the test's working directory and spool."""

    process: subprocess.Popen[str]

    @property
    def pid(self) -> int:
        return self.process.pid

    def say(self) -> str:
        """The next line that the program prints; the way for it to say how far it is."""
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def go_on(self) -> None:
        """Let a program go on that waits for a line of input."""
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def finish(self, timeout: float = PATIENCE) -> tuple[int, str, str]:
        """Wait for the end: exit code, output, errors."""
        out, err = self.process.communicate(timeout=timeout)
        return self.process.returncode, out, err

    def kill(self, number: int = signal.SIGKILL) -> int:
        """Send a signal and wait for the end; returns the exit code."""
        self.process.send_signal(number)
        self.process.communicate(timeout=PATIENCE)
        return self.process.returncode


StartProgram = Callable[..., Program]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[StartProgram]:
    """Start a program from its source; whatever still runs at the end is killed by its process id."""
    started: list[Program] = []

    def start_program(source: str, *arguments: str, **environment: str) -> Program:
        path = tmp_path / f"program_{len(started)}.py"
        path.write_text(textwrap.dedent(source))
        process = subprocess.Popen(
            [sys.executable, str(path), *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1", **environment},
        )
        started.append(Program(process))
        return started[-1]

    yield start_program
    for program in started:
        if program.process.poll() is None:
            program.kill()
    end_delivery(tmp_path / "spool")


def delivery_pids(spool: Path) -> list[int]:
    """The delivery processes of a spool."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        command = process.info["cmdline"] or [""]
        # The shell that starts one has its whole command in its own command line.
        if "trackdsl.delivery" in command and str(spool) in command and not command[0].endswith("sh"):
            found.append(process.pid)
    return found


def memory_of(pid: int) -> int:
    """The resident memory of a process in bytes; 0 when it is gone."""
    try:
        return int(psutil.Process(pid).memory_info().rss)
    except psutil.Error:
        return 0


def open_files(folder: Path, pid: int | None = None) -> list[str]:
    """The paths of the files below a folder that a process has open; this process where no id is given."""
    return sorted(file.path for file in psutil.Process(pid).open_files() if Path(file.path).is_relative_to(folder))


def end_delivery(spool: Path) -> None:
    """Kill the delivery process of a spool, if there is one."""
    for pid in delivery_pids(spool):
        os.kill(pid, signal.SIGKILL)
    # The lock goes last: a process that is dying has no command line any more, and still holds it.
    wait_until(lambda: not delivery_pids(spool) and not is_held(spool / "delivery.lock"), "delivery to end")


def sync(timeout: float = PATIENCE, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run `trackdsl sync`."""
    return subprocess.run(
        [sys.executable, "-m", "trackdsl.cli", "sync"],
        capture_output=True,
        text=True,
        timeout=timeout,
        env={**os.environ, **environment},
        check=False,
    )


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def client(uri: str | None = None) -> Any:
    """MLflow's client on a store; the default one of the working directory where no URI is given."""
    import mlflow

    uri = uri or f"sqlite:///{Path.cwd()}/mlflow.db"
    mlflow.set_tracking_uri(uri)  # MLflow 3.1 asks the global one where a server's artifacts are.
    return mlflow.MlflowClient(uri)


def all_runs(uri: str | None = None) -> list[Any]:
    """Every run of a store, in the order they began."""
    mlflow = client(uri)
    experiments = [experiment.experiment_id for experiment in mlflow.search_experiments()]
    found: list[Any] = []
    token = None
    while True:
        page = mlflow.search_runs(experiments, max_results=1000, page_token=token)
        found += page
        token = page.token
        if not token:
            return sorted(found, key=lambda run: run.data.tags.get("trackdsl.id", ""))


def last_run(uri: str | None = None) -> Any:
    """The run of a store that began last: a server is shared with other tests."""
    return max(all_runs(uri), key=lambda run: (run.info.start_time, run.data.tags.get("trackdsl.id", "")))


class Server:
    """A real `mlflow server` on loopback, which can be killed and started again on the same port."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self.uri = f"http://127.0.0.1:{self.port}"
        self.process: subprocess.Popen[bytes] | None = None
        #: Where it keeps its runs: a URI, or a folder.
        self.backend = f"sqlite:///{self.folder}/srv.db"

    def start(self) -> None:
        """Start it and wait until it answers."""
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW", "TRACKDSL"))}
        with open(self.folder / "server.log", "ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", self.backend,
                 "--artifacts-destination", str(self.folder / "artifacts"), "--host", "127.0.0.1",
                 "--port", str(self.port), "--workers", "1"],
                stdout=log, stderr=log, cwd=self.folder, start_new_session=True,
                env={**environment, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
                     "MLFLOW_ALLOW_FILE_STORE": "true"},
            )  # fmt: skip
        wait_until(self.answers, "the MLflow server to answer")

    def answers(self) -> bool:
        """Whether it is there."""
        import http.client

        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
        try:
            connection.request("GET", "/health")
            return connection.getresponse().status == 200
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    def kill(self) -> None:
        """SIGKILL, for it and its workers, which are in its process group."""
        if self.process is not None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            self.process = None


@pytest.fixture(scope="session")
def shared_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One server for the tests of this process that leave it alive."""
    server = Server(tmp_path_factory.mktemp("server"))
    server.start()
    yield server
    server.kill()


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[Server]:
    """A server for one test, which may kill it. It is not started yet."""
    folder = tmp_path / "server"
    folder.mkdir()
    server = Server(folder)
    yield server
    server.kill()


def once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], None]) -> Path:
    """A folder that is made once, for all processes that the tests run in."""
    base = factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / name
    with open(folder.with_suffix(".lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            folder.mkdir()
            make(folder)
            (folder / "done").touch()
    assert (folder / "done").exists(), f"what should be in {folder} could not be made"
    return folder


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SQLite store with its tables and nothing in it: making one takes seconds, copying it nothing."""

    def make(folder: Path) -> None:
        with contextlib.chdir(folder):  # The default experiment keeps its artifacts where it was made.
            client(f"sqlite:///{folder}/mlflow.db").search_experiments()

    return once(tmp_path_factory, "empty-store", make) / "mlflow.db"


@pytest.fixture
def sqlite_store(empty_store: Path) -> str:
    """The default store of the working directory, with its tables made."""
    shutil.copy(empty_store, "mlflow.db")
    return f"sqlite:///{Path.cwd()}/mlflow.db"


@pytest.fixture(params=["sqlite", "server"])
def store(request: pytest.FixtureRequest) -> str:
    """A real store, of each kind."""
    if request.param == "sqlite":
        return str(request.getfixturevalue("sqlite_store"))
    return str(request.getfixturevalue("shared_server").uri)


def deliver(uri: str | None = None) -> None:
    """Deliver what this process recorded, as the delivery process would, and end its journals."""
    from trackdsl.delivery._worker import Worker
    from trackdsl.delivery.service import open_sink

    spool = settings.spool()
    assert spool is not None
    _target.close_all()
    worker = Worker(spool, open_sink)
    rounds = 0

    def is_over() -> bool:
        nonlocal rounds
        busy = worker.round()
        rounds += busy
        return not busy and worker.idle()

    wait_until(is_over, "everything to be delivered", progress=lambda: rounds)
    worker.close()


def points(run: Any, key: str, uri: str | None = None) -> list[tuple[int, float]]:
    """The points of a metric as MLflow holds them: step and value, in the order of their times."""
    history = client(uri).get_metric_history(run.info.run_id, key)
    return [(point.step, point.value) for point in sorted(history, key=lambda p: (p.timestamp, p.step))]


#: Changes durations of delivery until the end of the test, in seconds: `change_timing(first_retry=0.0)`.
ChangeTiming = Callable[..., None]


@contextlib.contextmanager
def changed_timing(**durations: float) -> Iterator[None]:
    """Change durations of delivery inside the block, in seconds."""
    before = _timing.timing()
    _timing.change_timing(**durations)
    try:
        yield
    finally:
        _timing.set_timing(before)


@pytest.fixture
def change_timing() -> Iterator[ChangeTiming]:
    with changed_timing():
        yield _timing.change_timing


@pytest.fixture
def no_pauses(change_timing: ChangeTiming) -> None:
    """Nothing that failed waits before it is tried again, and a run that was asked for once is given up."""
    change_timing(
        first_retry=0.0, longest_retry=0.0, longest_search=0.0, file_retry=0.0, late_request=0.0, git_answer=0.0,
        other_process=0.0, missing_run=0.0,
    )  # fmt: skip


@pytest.fixture
def machines(tmp_path: Path) -> Iterator[Callable[[str, MemoryStore], Machine]]:
    """Makes machines, each with a spool and a worker of its own."""
    made: list[Machine] = []

    def make(name: str, store: MemoryStore) -> Machine:
        made.append(Machine(tmp_path / name, store))
        return made[-1]

    yield make
    for machine in made:
        machine.restart()

"""What the tests share: private spools, real stores, programs in processes of their own."""

from __future__ import annotations

import contextlib
import fcntl
import functools
import gc
import itertools
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hypothesis
import psutil
import pytest
from _pytest.assertion.rewrite import AssertionRewritingHook
from click.testing import CliRunner

import trackdsl
from trackdsl import settings
from trackdsl._core import ids, runtime
from trackdsl.cli import main
from trackdsl.journal import _target
from trackdsl.journal._lock import is_held
from trackdsl.journal._spool import journals
from trackdsl.store_format.empty_database import adapt
from trackdsl.store_format.known_runs import read_runs
from trackdsl.store_format.servers import server_of

from .drawn_processes import Process
from .preloaded_servers import PreloadedServers

if TYPE_CHECKING:
    from trackdsl.delivery.process._worker import Worker

#: Fixtures of tests that change how delivery works, and of those that use plain MLflow.
pytest_plugins = ["tests.delivery_settings", "tests.plain_mlflow"]
pytest.register_assert_rewrite(
    "tests.drawn_programs", "tests.handler_contract", "tests.run_zoo", "tests.written_journals"
)

# No deadline: a machine that is busy with the other tests is not a fault of the one at hand.
hypothesis.settings.register_profile("full", deadline=None, max_examples=100)
hypothesis.settings.register_profile("plain", deadline=None, max_examples=10)
# For code that is broken on purpose: the first example that shows it is enough, and is the same each time.
hypothesis.settings.register_profile(
    "planted",
    deadline=None, max_examples=20, derandomize=True, database=None,
    phases=[hypothesis.Phase.explicit, hypothesis.Phase.generate],
)  # fmt: skip
hypothesis.settings.load_profile("plain")  # `--hypothesis-profile full` is read after this file.

# pytest parses the modules of its plugins, of which trackdsl is one. In Python 3.11 two threads that parse at once fail
# with a SystemError (https://github.com/python/cpython/issues/106905), such as a test and the delivery thread.
_rewriting = [finder for finder in sys.meta_path if isinstance(finder, AssertionRewritingHook)]
for _finder in _rewriting:
    _finder._must_rewrite -= {name for name in _finder._must_rewrite if name.partition(".")[0] == "trackdsl"}
    _finder._marked_for_rewrite_cache.clear()

# Hundreds of programs are started: each would compile the package again.
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

# PySpark takes a worker of pytest-xdist, whose main module has no file, for a doctest, and ends it without gRPC.
if not hasattr(sys.modules["__main__"], "__file__"):
    sys.modules.setdefault("pyspark.sql.connect", None)  # type: ignore[arg-type]

# A shell has what it starts in the background ignore Ctrl-C, and the programs that the tests start inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

#: What the machine may take for anything that is waited for, in seconds.
PATIENCE = 90.0


#: What starts databases, clusters, servers and programs of several libraries, which takes seconds each.
_SERVICES = (
    "clusters/", "stores/", "compat/test_autologging.py", "compat/test_models.py", "compat/test_plain_mlflow.py",
    "compat/test_servers.py", "compat/test_stores.py",
)  # fmt: skip


@pytest.hookimpl(optionalhook=True)  # Planted faults are tested without pytest-xdist.
def pytest_xdist_auto_num_workers() -> int:
    """One more than there are CPUs: the tests wait for a quarter of their time, as for programs and disks."""
    return 1 + len(os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1))


#: The fixtures that start a service.
_STARTED = {"delivering", "kernel", "own_server", "shared_server"}


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
    """Leave services to the slow tests, and begin with those that take longest, shared among the workers.

    Tests of large libraries come last, and so at one worker first: from a process that has imported TensorFlow, a fork
    takes 27 ms instead of 0.5, and each imported library is imported by as many workers as have tests of it.
    """
    _mark_services(items)
    yield
    workers = getattr(config, "workerinput", {"workercount": 1})["workercount"]
    longest = [item for item in items if item.get_closest_marker("long")]
    others = [item for item in items if not item.get_closest_marker("long")]
    others.sort(key=lambda item: _imports_large_library(item.path))
    share = -(-len(others) // workers)
    # Each worker begins with an equal part of the list.
    items[:] = [
        item
        for number in range(workers)
        for item in [*longest[number::workers], *others[number * share : (number + 1) * share]]
    ]


@functools.cache
def _imports_large_library(path: Path) -> bool:
    return re.search(r"\b(keras|lightning|tensorflow|torch|xgboost)\b", path.read_text()) is not None


def _mark_services(items: list[pytest.Item]) -> None:
    """Leave to the slow tests what starts services: a server or a kernel takes as long as hundreds of other tests."""
    for item in items:
        path = item.path.relative_to(Path(__file__).parent).as_posix()
        fixtures = set(getattr(item, "fixturenames", ()))
        started = path.startswith(_SERVICES) or "[server" in item.name or fixtures & _STARTED
        if started or item.get_closest_marker("exhaustive"):
            item.add_marker(pytest.mark.slow)


def examples(number: int) -> int:
    """How many examples Hypothesis tries: the number with `--hypothesis-profile full`, else a tenth of it."""
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
        patience: give up after this many seconds without progress.
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


_folders = itertools.count()


@pytest.fixture
def tmp_path(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of the test's own: pytest's fixture searches the folders of all earlier tests for a free number."""
    name = re.sub(r"\W", "_", request.node.name)[:30]
    return tmp_path_factory.mktemp(f"{next(_folders)}-{name}", numbered=False)


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
    # What changed is noted, and reports are made, a moment after a run is delivered. Most tests look at the run before,
    # or compare all of it.
    monkeypatch.setenv("TRACKDSL_CHANGES", "0")
    monkeypatch.setenv("TRACKDSL_REPORTS", "0")
    Process.begin_now()
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    _freeze_imported()
    runtime.reset()
    yield
    runtime.reset()
    if "mlflow" in sys.modules:
        sys.modules["mlflow"].set_tracking_uri(None)
    with contextlib.suppress(OSError):  # The test has replaced the lock by something else.
        if is_held(tmp_path / "spool" / "delivery.lock"):  # Delivery that waits for a server would outlive its test.
            for pid in delivery_pids(tmp_path / "spool"):
                os.kill(pid, signal.SIGKILL)


_frozen = 0


def _freeze_imported() -> None:
    """Keep the garbage collector from what a test has imported: looking through PyTorch and MLflow takes 0.2 s else."""
    global _frozen
    if len(sys.modules) > _frozen + 50:
        gc.freeze()
        _frozen = len(sys.modules)


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

    def resume(self) -> None:
        """Let a program continue that waits for a line of input."""
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


def run_command(*arguments: str, answer: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command of `trackdsl` in this process, where it has imported everything; the environment stays as it is.

    Args:
        arguments: the command's arguments.
        answer: what the user types.
        environment: variables for the command.
    """
    before = dict(os.environ)
    try:
        result = CliRunner().invoke(main, arguments, input=answer, env=environment)
    finally:
        os.environ.clear()
        os.environ.update(before)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return subprocess.CompletedProcess(arguments, result.exit_code, result.stdout, result.stderr)


#: Delivery to one server that writes few events at once, so that there is something to interrupt.
_FEW_AT_ONCE = """
import runpy
from trackdsl.delivery.journals import _stretch_size
_stretch_size._STRETCH = 20
runpy.run_module("trackdsl.delivery", run_name="__main__")
"""


def runs_made(spool: Path) -> int:
    """How many runs delivery has noted."""
    return sum(1 for journal in journals(spool) for _ in read_runs(journal))


def kill_delivery(spool: Path, uri: str, made: int) -> None:
    """Start a process that delivers to a store, and kill it as soon as it has noted this many runs."""
    command = [sys.executable, "-W", "ignore", "-c", _FEW_AT_ONCE, str(spool), "--server", server_of(uri)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE)
    try:
        wait_until(lambda: runs_made(spool) >= made, f"{made} runs to be made")
        assert process.poll() is None
    finally:
        process.kill()
        process.wait()


def await_git(spool: Path) -> None:
    """Wait until git has answered each program of a spool, so that no file appears while the spool is copied."""
    wait_until(lambda: all((each / "git").exists() for each in (spool / "journals").iterdir()), "git's answer")


def free_port() -> int:
    """A port without a listener."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def remember_newest_schema() -> None:
    """Let MLflow find its newest schema once: it reads 70 files of migrations whenever it opens a database."""
    from mlflow.store.db import utils

    if not hasattr(utils._get_latest_schema_revision, "cache_clear"):
        utils._get_latest_schema_revision = functools.cache(utils._get_latest_schema_revision)


def client(uri: str | None = None) -> Any:
    """MLflow's client on a store; the default one of the working directory where no URI is given."""
    import mlflow

    remember_newest_schema()
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
    """The run of a store that began last; of a server, which other tests use too, the last one of this process."""
    found = all_runs(uri)
    if uri is not None and uri.startswith("http"):
        found = [run for run in found if run.data.tags.get("trackdsl.id", "").startswith(ids.prefix().hex())]
    return max(found, key=lambda run: (run.info.start_time, run.data.tags.get("trackdsl.id", "")))


@pytest.fixture
def no_collection() -> Iterator[None]:
    """Disables the garbage collector: with an exhausted stack, the callbacks that it calls would fail."""
    gc.disable()
    yield
    gc.enable()


#: Starts the MLflow servers of this process.
servers = PreloadedServers()


class Server:
    """A real `mlflow server` on loopback, which can be killed and started again on the same port.

    Args:
        folder: where it runs.
        empty_store: a store to copy, as a new one takes seconds.
        port: where one that runs already listens.
        options: more options of `mlflow server`.
    """

    def __init__(
        self, folder: Path, empty_store: Path | None = None, port: int | None = None, options: Sequence[str] = ()
    ) -> None:
        self.folder = folder
        self.port = port or free_port()
        self.empty_store = empty_store
        self.options = options
        self.uri = f"http://127.0.0.1:{self.port}"
        self.pid: int | None = None
        #: Where it keeps its runs: a URI, or a folder.
        self.backend = f"sqlite:///{self.folder}/srv.db"

    def start(self) -> None:
        """Start it and wait until it answers."""
        store = self.folder / "srv.db"
        if self.empty_store is not None and not store.exists():
            shutil.copy(self.empty_store, store)
            adapt(str(store), "mlflow-artifacts:/")
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW", "TRACKDSL"))}
        self.pid = servers.start(
            ["--backend-store-uri", self.backend, "--artifacts-destination", str(self.folder / "artifacts"),
             "--host", "127.0.0.1", "--port", str(self.port), "--workers", "1", *self.options],
            self.folder,
            self.folder / "server.log",
            {**environment, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_ALLOW_FILE_STORE": "true"},
        )  # fmt: skip
        wait_until(self.answers, "the MLflow server to answer")

    def answers(self) -> bool:
        """Whether it is there.

        Raises:
            AssertionError: it has ended.
        """
        import http.client

        assert self.pid is None or psutil.pid_exists(self.pid), (self.folder / "server.log").read_text()
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
        if self.pid is not None:
            pid, self.pid = self.pid, None
            with contextlib.suppress(ProcessLookupError):  # It has ended by itself.
                os.killpg(pid, signal.SIGKILL)
            wait_until(lambda: not psutil.pid_exists(pid), "the MLflow server to end")


@pytest.fixture(scope="session")
def shared_server(tmp_path_factory: pytest.TempPathFactory, empty_store: Path) -> Iterator[Server]:
    """One server shared by all tests that do not kill it; the first test starts it and the last one stops it."""
    folder = shared_folder(tmp_path_factory, "server")
    users = folder / "users"
    with locked(folder):
        if not users.exists():
            folder.mkdir(exist_ok=True)
            server = Server(folder, empty_store)
            server.start()
            users.write_text(f"{server.pid} {server.port} 0")
        pid, port, count = map(int, users.read_text().split())
        users.write_text(f"{pid} {port} {count + 1}")
    yield Server(folder, port=port)
    with locked(folder):
        count = int(users.read_text().split()[2]) - 1
        users.write_text(f"{pid} {port} {count}")
        if not count:
            users.unlink()
            os.killpg(pid, signal.SIGKILL)


@pytest.fixture
def own_server(tmp_path: Path, empty_store: Path) -> Iterator[Server]:
    """A server for one test, which may kill it. It is not started yet."""
    folder = tmp_path / "server"
    folder.mkdir()
    server = Server(folder, empty_store)
    yield server
    server.kill()


def shared_folder(factory: pytest.TempPathFactory, name: str) -> Path:
    """The path of a folder for all processes that the tests run in."""
    base = factory.getbasetemp()
    return (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / name


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a shared folder's lock, which stands beside it."""
    with open(folder.with_suffix(".lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], None]) -> Path:
    """A folder that is made once, for all processes that the tests run in."""
    folder = shared_folder(factory, name)
    with locked(folder):
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


@contextlib.contextmanager
def recorded_offline(empty_store: Path, folder: Path) -> Iterator[str]:
    """Record in the block to a SQLite store in a folder, whose URI this gives; the settings stay as they were.

    Afterwards everything is delivered.
    """
    shutil.copy(empty_store, folder / "mlflow.db")
    uri = f"sqlite:///{folder}/mlflow.db"
    before = settings.configured()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("TRACKDSL_SPOOL", str(folder / "spool"))
        patch.setenv("TRACKDSL_MODE", "offline")
        trackdsl.configure(tracking_uri=uri)
        yield uri
        deliver()
    settings.restore(before)


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
    from trackdsl.delivery.process._worker import Worker
    from trackdsl.delivery.service import open_sink

    remember_newest_schema()
    spool = settings.spool()
    assert spool is not None
    _target.close_all()
    if is_held(spool / "delivery.lock") and delivery_pids(spool):  # Two would deliver the same journals.
        end_delivery(spool)
    finish_delivery(Worker(spool, open_sink))


def finish_delivery(worker: Worker) -> None:
    """Deliver all that a worker finds, and close it."""
    rounds = 0

    def is_over() -> bool:
        nonlocal rounds
        busy = worker.round()
        rounds += busy
        return not busy and worker.idle()

    try:
        wait_until(is_over, "everything to be delivered", progress=lambda: rounds)
    finally:
        worker.close()


def points(run: Any, key: str, uri: str | None = None) -> list[tuple[int, float]]:
    """The points of a metric as MLflow holds them: step and value, in the order of their times."""
    history = client(uri).get_metric_history(run.info.run_id, key)
    return [(point.step, point.value) for point in sorted(history, key=lambda p: (p.timestamp, p.step))]

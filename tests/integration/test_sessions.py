"""Sessions: `start_logging` and `stop_logging`, wherever they are called and however the program ends."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import pickle
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from jupyter_client.manager import start_new_kernel

import trackdsl
import trackdsl.compat.tracelet as tracelet
from tests.conftest import Server, StartProgram, all_runs, client, deliver, free_port, points
from trackdsl import (
    ExperimentDeleted,
    OptionError,
    SettingsError,
    TrackingServerError,
    TrackingServerUnreachable,
    current_run,
    errors,
    experiment,
    log_metric,
    stage,
    start_logging,
    stop_logging,
)
from trackdsl.settings import Settings
from trackdsl.testing import Captured, capture_runs


@pytest.fixture
def captured() -> Any:
    with capture_runs() as runs:
        yield runs
        while trackdsl._api.open_sessions.open_sessions:
            trackdsl._api.open_sessions.open_sessions[-1].end(None)


@pytest.fixture
def online(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sessions ask their store; delivery is left to the test."""
    monkeypatch.setattr(trackdsl.journal._store_target.Target, "watch", lambda self, now: None)
    monkeypatch.setenv("TRACKDSL_MODE", "online")
    monkeypatch.setattr(trackdsl.journal._delivery_hooks._delivery, "waits_at_exit", False)


def test_one_after_the_other(captured: Captured) -> None:
    """Sessions repeated in one process are roots of their own, and nothing of one is left in the next."""
    for number in range(3):
        run = start_logging(f"trial-{number}", config={"tags": {"number": str(number)}})
        assert current_run() is run
        run.log_metric("loss", number, iteration=number)
        log_metric("also", 1)
        stop_logging()
        assert current_run() is None
    assert [run.name for run in captured.roots] == ["trial-0", "trial-1", "trial-2"]
    assert {run.status for run in captured.runs} == {"FINISHED"}
    assert [run.tags["number"] for run in captured.runs] == ["0", "1", "2"]
    assert [point.step for run in captured.runs for point in run.metrics["loss"]] == [0, 1, 2]


def test_stopping_twice_or_unstarted_does_nothing(captured: Captured) -> None:
    """`stop_logging` without a session does nothing, also inside a stage, whose run it leaves alone."""
    stop_logging()
    start_logging("once")
    stop_logging()
    stop_logging()
    with stage("around") as run:
        stop_logging()
        assert current_run() is run
    assert [run.status for run in captured.runs] == ["FINISHED", "FINISHED"]


def test_inside_scopes_and_around_them(captured: Captured) -> None:
    """A session inside a stage is its child; stages inside a session are its children."""
    with experiment("outer"):
        start_logging("inside", config={"experiment_name": "elsewhere"})
        with stage("within"):
            log_metric("deep", 1)
        stop_logging()
        log_metric("after", 1)
    inside = captured.one("inside")
    assert inside.path == "outer/inside"
    assert captured.one("within").path == "outer/inside/within"
    assert inside.tags["trackdsl.experiment"] == "elsewhere"
    assert "after" in captured.one("outer").metrics


def test_stopped_inside_a_stage(captured: Captured) -> None:
    """A session that is stopped inside a stage of its own ends, and the stage stays the current run."""
    start_logging("session")
    with stage("inner") as inner:
        stop_logging()
        assert current_run() is inner
        log_metric("still", 1)
    assert current_run() is None
    assert captured.one("session").status == "FINISHED"
    assert "still" in captured.one("inner").metrics


def test_a_second_start_ends_the_first(captured: Captured, caplog: pytest.LogCaptureFixture) -> None:
    """A session that is still open is ended by the next one of the same thread, which is logged."""
    start_logging("first")
    start_logging("second")
    assert captured.one("first").status == "FINISHED"
    assert captured.one("second").parent is None
    assert "ends the run 'first', which was still open" in caplog.text


def test_other_threads_and_tasks_nest(captured: Captured) -> None:
    """Threads and tasks started inside a session open sessions of their own below it, and each ends its own."""
    start_logging("study")

    def trial(number: int) -> None:
        start_logging(f"thread-{number}").log_metric("value", number)
        stop_logging()

    async def task(number: int) -> None:
        start_logging(f"task-{number}")
        await asyncio.sleep(0)
        log_metric("value", number)
        stop_logging()

    threads = [threading.Thread(target=trial, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    async def gathered() -> None:
        await asyncio.gather(*(task(number) for number in range(4)))

    asyncio.run(gathered())
    log_metric("end", 1)
    stop_logging()
    study = captured.one("study")
    assert study.parent is None
    assert "end" in study.metrics
    for kind in ("thread", "task"):
        for number in range(4):
            run = captured.one(f"{kind}-{number}")
            assert run.parent is not None
            assert run.parent.id == study.id
            assert run.metric("value") == number


def test_where_nothing_is_current_the_only_session_is(captured: Captured, caplog: pytest.LogCaptureFixture) -> None:
    """A thread older than the session records on it while it is the only one open, and on none if there are two."""
    go, done = threading.Event(), threading.Event()

    def work() -> None:
        for step in range(2):
            go.wait(60)
            go.clear()
            log_metric("old", step)
            done.set()

    def let_it_log() -> None:
        done.clear()
        go.set()
        assert done.wait(60)

    thread = threading.Thread(target=work)
    thread.start()
    start_logging("only")
    let_it_log()
    opened = threading.Thread(target=start_logging, args=("another",))
    opened.start()
    opened.join()
    let_it_log()
    thread.join()
    assert captured.one("only").metric("old") == 0
    assert "outside of any run" in caplog.text


def test_sessions_of_threads_are_their_own(captured: Captured) -> None:
    """Independent threads open root runs concurrently, and their stages are below their own."""
    ready, opened = threading.Barrier(4), threading.Barrier(4)

    def trial(number: int) -> None:
        ready.wait(60)
        with stage(f"before-{number}"):
            pass
        start_logging(f"trial-{number}").log_metric("value", number)
        opened.wait(60)
        with stage(f"inside-{number}"):
            pass
        stop_logging()

    # From plain threads: as those of a pool that was there before.
    threads = [threading.Thread(target=trial, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number in range(4):
        assert captured.one(f"before-{number}").parent is None
        assert captured.one(f"trial-{number}").parent is None
        assert captured.one(f"inside-{number}").path == f"trial-{number}/inside-{number}"


def test_one_thread_after_the_other(captured: Captured) -> None:
    """A session of one thread does not affect another thread, which begins roots."""
    opened, released = threading.Event(), threading.Event()

    def keep_open() -> None:
        start_logging("of a thread")
        opened.set()
        released.wait(60)
        stop_logging()

    thread = threading.Thread(target=keep_open)
    thread.start()
    assert opened.wait(60)
    with stage("elsewhere"):
        pass
    start_logging("another")
    stop_logging()
    released.set()
    thread.join()
    assert {run.name for run in captured.roots} == {"of a thread", "elsewhere", "another"}
    assert {run.status for run in captured.runs} == {"FINISHED"}


def test_in_a_notebook(tmp_path: Path) -> None:
    """Cells of a real kernel, also those that await: one session continues in the next cell, the next one ends it."""
    kernel, client_ = start_new_kernel()

    def cell(code: str) -> str:
        out: list[str] = []
        client_.execute_interactive(
            code, output_hook=lambda message: out.append(message["content"].get("text", "")), timeout=90
        )
        return "".join(out).strip()

    try:
        cell("import asyncio, trackdsl")
        cells = (
            "run = trackdsl.start_logging('a')",
            "print(trackdsl.current_run().path)",
            "await asyncio.sleep(0); run = trackdsl.start_logging('b')",
            "trackdsl.current_run().log_metric('m', 1); print(run.path)",
            "await asyncio.sleep(0); trackdsl.stop_logging(); trackdsl.stop_logging()",
            "run = trackdsl.start_logging('c'); print(run.path)",
            "trackdsl.stop_logging(); print(trackdsl._api.open_sessions.open_sessions)",
        )
        printed = [cell(code) for code in cells]
    finally:
        kernel.shutdown_kernel(now=True)
    assert [each for each in printed if each and "ends the run" not in each] == ["a", "b", "c", "[]"]


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ("pass", "FINISHED"),
        ("raise ValueError('x')", "FAILED"),
        ("sys.exit(0)", "FINISHED"),
        ("raise KeyboardInterrupt", "KILLED"),
    ],
)
def test_stopped_in_finally(captured: Captured, body: str, status: str) -> None:
    """`stop_logging` in a `finally` sees the exception on its way, and one that was handled before is none."""
    program = f"""
import sys
try:
    raise LookupError("handled, and over")
except LookupError:
    start_logging("run")
    try:
        {body}
    finally:
        stop_logging()
"""
    with contextlib.suppress(ValueError, SystemExit, KeyboardInterrupt):
        exec(program, {"start_logging": start_logging, "stop_logging": stop_logging})  # noqa: S102 - text of ours
    assert captured.one("run").status == status


ENDS = {
    "no stop": ("pass", "", "FINISHED"),
    "crash": ("raise ValueError('boom')", "", "FAILED"),
    "crash, stopped at exit": ("raise ValueError('boom')", "atexit.register(trackdsl.stop_logging)", "FAILED"),
    "exit code": ("sys.exit(3)", "", "FAILED"),
    "exit code, stopped at exit": ("sys.exit('no data')", "atexit.register(trackdsl.stop_logging)", "FAILED"),
    "exit": ("sys.exit()", "", "FINISHED"),
    "raised exit code": ("def main(): return 3\nraise SystemExit(main())", "", "FAILED"),
    "raised exit, stopped at exit": ("raise SystemExit('no data')", "atexit.register(trackdsl.stop_logging)", "FAILED"),
    "raised exit": ("raise SystemExit(0)", "", "FINISHED"),
    "raised after another one": (
        "kept = []\ntry: raise SystemExit(3)\nexcept SystemExit as error: kept.append(error)\nraise SystemExit",
        "",
        "FINISHED",
    ),
    "raised and caught": ("try: raise SystemExit(3)\nexcept SystemExit as error: kept = error", "", "FINISHED"),
    "replaced stderr": ("sys.stderr = open(os.devnull, 'w')\nraise SystemExit(3)", "", "FAILED"),
    "exit because of an error": ("try: 1 / 0\nexcept ZeroDivisionError: sys.exit(1)", "", "FAILED"),
    "exit because of Ctrl-C": ("try: raise KeyboardInterrupt\nexcept KeyboardInterrupt: sys.exit(1)", "", "KILLED"),
    "exit at once": ("try: 1 / 0\nexcept ZeroDivisionError: os._exit(1)", "", "FAILED"),
    "stopped at exit": ("pass", "atexit.register(trackdsl.stop_logging)", "FINISHED"),
    "interrupted": ("raise KeyboardInterrupt", "", "KILLED"),
    "stopped, then crashed": ("trackdsl.stop_logging(); raise ValueError('boom')", "", "FINISHED"),
    "killed": ("os.kill(os.getpid(), signal.SIGKILL)", "", "KILLED"),
    "crash caught and printed": ("try: 1 / 0\nexcept ZeroDivisionError: traceback.print_exc()", "", "FINISHED"),
}


@pytest.mark.slow
def test_however_the_program_ends(start: StartProgram, sqlite_store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The status of a session says how its program ended: by itself, by a crash, by a signal, stopped or not."""
    programs = {}
    for name, (body, before, _) in ENDS.items():
        head = "import atexit, os, signal, sys, traceback\nimport trackdsl\n"
        programs[name] = start(f"{head}trackdsl.start_logging({name!r})\n{before}\n{body}\n", TRACKDSL_MODE="offline")
    for program in programs.values():
        program.finish()
    deliver()
    runs = {str(run.info.run_name): run for run in all_runs()}
    assert {name: run.info.status for name, run in runs.items()} == {
        name: status for name, (_, _, status) in ENDS.items()
    }
    failures = {name: run.data.tags.get("trackdsl.exception.type") for name, run in runs.items()}
    assert failures["exit because of an error"] == failures["exit at once"] == "ZeroDivisionError"
    assert "raise SystemExit(main())" in runs["raised exit code"].data.tags["trackdsl.exception.traceback"]


def test_a_forked_child_leaves_the_session_to_its_parent(start: StartProgram, sqlite_store: str) -> None:
    """A child that is forked inside a session logs on it, may end, and does not end it."""
    program = start(
        """
        import os, sys
        import trackdsl
        run = trackdsl.start_logging("shared")
        if os.fork() == 0:
            trackdsl.log_metric("child", 1)
            trackdsl.stop_logging()
            sys.exit(0)
        os.wait()
        trackdsl.log_metric("parent", 1)
        print(trackdsl.current_run().name)
        raise RuntimeError("the parent fails")
        """
    )
    assert program.finish()[1].split() == ["shared"]
    deliver()
    (run,) = all_runs()
    assert run.info.status == "FAILED"
    assert set(run.data.metrics) == {"child", "parent"}


def test_names_and_experiments(sqlite_store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Name, experiment and tags of the run come from the call, then the settings, the environment, the defaults."""
    settings = tracelet.TraceletSettings(project="settled", backend=["mlflow"], mlflow_experiment_name="from settings")
    cases: list[tuple[str, Callable[[], Any], str, str, str | None]] = [
        ("bare", lambda: start_logging("bare"), "bare", "Default", None),
        ("project", lambda: start_logging("p", project="vision"), "p", "vision", "vision"),
        (
            "config",
            lambda: start_logging("c", "vision", config={"experiment_name": "E", "run_name": "named"}),
            "named",
            "E",
            "vision",
        ),
        ("settings", lambda: start_logging("s", settings=settings), "s", "from settings", "settled"),
        (
            "config before settings",
            lambda: start_logging("cs", "call", settings=settings, config={"experiment_name": "E"}),
            "cs",
            "E",
            "call",
        ),
    ]
    for _, begin, _, _, _ in cases:
        begin()
        stop_logging()
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "of MLflow")
    start_logging("environment", project="vision")
    stop_logging()
    monkeypatch.setenv("TRACELET_MLFLOW_EXPERIMENT_NAME", "of tracelet")
    start_logging("environment 2", project="vision")
    stop_logging()
    start_logging("settings over environment", settings=Settings(experiment_name="given"))
    stop_logging()
    deliver()
    names = {e.experiment_id: e.name for e in client().search_experiments()}
    found = {run.info.run_name: (names[run.info.experiment_id], run.data.tags.get("project")) for run in all_runs()}
    expected = {name: (experiment_name, project) for _, _, name, experiment_name, project in cases}
    expected |= {
        "environment": ("of MLflow", "vision"),
        "environment 2": ("of tracelet", "vision"),
        "settings over environment": ("given", None),
    }
    assert found == expected


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: start_logging("x", config={"tracking_url": "u"}),
            "did you mean `tracking_uri`.*Known: tracking_uri, exp",
        ),
        (lambda: start_logging("x", config={"tags": "team"}), r"config\['tags'\] must be a mapping"),
        (lambda: start_logging("x", config=["tags"]), "takes a dict"),  # type: ignore[arg-type]
        (lambda: start_logging("x", backend="wandb"), "MLflow only"),
        (lambda: start_logging("x", backend=["mlflow", "aim"]), "backend='aim'"),
        (lambda: start_logging("x", settings={"project": "p"}), "pass a dict as config"),  # type: ignore[arg-type]
        (lambda: start_logging("x", offline="later"), "'raise' or 'spool'"),  # type: ignore[arg-type]
        (lambda: start_logging(3), "takes a string"),  # type: ignore[arg-type]
        (lambda: start_logging("x", settings=tracelet.TraceletSettings(backend="clearml")), "MLflow only"),
    ],
)
def test_misuse_names_the_fix(captured: Captured, call: Callable[[], Any], message: str) -> None:
    """Wrong arguments are refused by an error that names the right ones, and no run begins."""
    with pytest.raises(OptionError, match=message):
        call()
    assert not captured.runs
    assert current_run() is None


def test_settings_of_tracelet_are_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    """A setting that `TraceletSettings` does not have is refused with the known ones; its variables are read."""
    with pytest.raises(SettingsError, match=r"no setting 'mlflow_uri'.*mlflow_tracking_uri"):
        tracelet.TraceletSettings(mlflow_uri="x")
    monkeypatch.setenv("TRACELET_PROJECT", "of the environment")
    assert tracelet.TraceletSettings().project == "of the environment"


def test_both_names_of_a_step(captured: Captured) -> None:
    """`iteration` is the step, 0 included; giving both is an error."""
    run = start_logging("r")
    for iteration in (0, 7):
        run.log_metric("m", 1, iteration=iteration)
        run.log_metrics({"n": 1}, iteration=iteration)
    with pytest.raises(OptionError, match="two names of one argument"):
        run.log_metric("m", 1, 3, iteration=3)
    stop_logging()
    kept = captured.one("r").metrics
    assert [p.step for p in kept["m"]] == [p.step for p in kept["n"]] == [0, 7]


def test_sys_exit_is_as_ever(captured: Captured) -> None:
    """While a session is open `sys.exit` works as usual, and afterwards it is the original."""
    before = sys.exit
    start_logging("first")
    start_logging("second")
    with pytest.raises(SystemExit) as caught:
        sys.exit("with text")
    assert caught.value.code == "with text"
    assert sys.exit.__name__ == "exit"
    stop_logging()
    assert sys.exit is before


def test_disabled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where trackdsl is switched off a session does nothing, and asks no server."""
    trackdsl.configure(mode="disabled")
    run = start_logging("off", config={"tracking_uri": "http://127.0.0.1:1"})
    run.log_metric("m", 1, iteration=0)
    stop_logging()
    assert current_run() is None


def test_settings_for_the_program(sqlite_store: str, online: None) -> None:
    """Settings of a session's start apply from then on, and not if the start fails."""
    dead = {"tracking_uri": "http://127.0.0.1:1"}
    with pytest.raises(TrackingServerUnreachable):
        start_logging("x", config=dead, settings=Settings(secret_names=("pin",)))
    assert trackdsl.settings.secret_names() == ()
    start_logging("x", config=dead, settings=Settings(mode="offline"))
    stop_logging()
    assert trackdsl.settings.mode() == "offline"


# A session first asks the store that its runs go to.


def test_an_unreachable_server(online: None, tmp_path: Path) -> None:
    """A server that is not there raises, and leaves neither a run nor a journal; the next start records locally."""
    uri = f"http://someone:hush@127.0.0.1:{free_port()}"
    with pytest.raises(TrackingServerUnreachable, match="offline='spool'") as caught:
        start_logging("lost", config={"tracking_uri": uri})
    assert isinstance(caught.value, ConnectionError)
    assert "hush" not in str(caught.value) + caught.value.uri + caught.value.reason
    assert current_run() is None
    assert not (tmp_path / "spool").exists()
    run = start_logging("found")
    assert run.target.uri == f"sqlite:///{Path.cwd()}/mlflow.db"
    stop_logging()
    deliver()
    assert [run.info.run_name for run in all_runs()] == ["found"]


@pytest.mark.slow
def test_offline_spool(online: None, own_server: Server, caplog: pytest.LogCaptureFixture) -> None:
    """With `offline="spool"` a session records without its server, which has everything once it is there."""
    run = start_logging("patient", config={"tracking_uri": own_server.uri}, offline="spool")
    run.log_metric("loss", 0.5, iteration=0)
    stop_logging()
    assert "is recorded now, and delivered once the server answers" in caplog.text
    own_server.start()
    deliver()
    (found,) = all_runs(own_server.uri)
    assert points(found, "loss", own_server.uri) == [(0, 0.5)]


def test_a_deleted_experiment(online: None, store: str) -> None:
    """A deleted experiment is reported at once, with the command that restores it; another one is open as ever."""
    mlflow = client(store)
    gone = mlflow.create_experiment("gone")
    mlflow.delete_experiment(gone)
    with pytest.raises(ExperimentDeleted, match=rf"mlflow experiments restore --experiment-id {gone}") as caught:
        start_logging("r", config={"tracking_uri": store, "experiment_name": "gone"})
    assert (caught.value.experiment, caught.value.experiment_id) == ("gone", gone)
    assert current_run() is None
    mlflow.restore_experiment(gone)
    start_logging("r", config={"tracking_uri": store, "experiment_name": "gone"})
    stop_logging()
    mlflow.delete_experiment(gone)


def test_a_program_written_for_mlflow_catches_it(online: None) -> None:
    """Where MLflow has been imported the errors are its exceptions too, and travel between processes as ours."""
    from mlflow.exceptions import MlflowException

    with pytest.raises(MlflowException) as caught:
        start_logging("r", config={"tracking_uri": f"http://127.0.0.1:{free_port()}"})
    assert isinstance(caught.value, TrackingServerUnreachable)
    again = pickle.loads(pickle.dumps(caught.value))
    assert type(again) is TrackingServerUnreachable
    assert (str(again), again.reason) == (str(caught.value), caught.value.reason)


def test_every_error_travels() -> None:
    """Every error of ours comes back from a pickle with its message and fields."""
    kinds = [
        kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, trackdsl.TrackdslError)
    ]
    assert len(kinds) > 10
    for kind in kinds:
        wanted = inspect.signature(kind.__init__).parameters.values()
        error = kind(
            "message", **{p.name: f"<{p.name}>" for p in wanted if p.kind is p.KEYWORD_ONLY and p.default is p.empty}
        )
        again = pickle.loads(pickle.dumps(error))
        assert (type(again), str(again), again.__dict__) == (kind, "message", error.__dict__)


class Answers:
    """A real HTTP server that answers everything the same way."""

    def __init__(self, status: int, body: bytes, version: bytes | None = b"3.17.2") -> None:
        import http.server

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                asked = self.path == "/version" and version is not None
                self.send_response(200 if asked else status)
                self.end_headers()
                self.wfile.write(version if asked and version is not None else body)

            def log_message(self, *_: Any) -> None: ...

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.uri = f"http://127.0.0.1:{self.server.server_address[1]}"
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        self.thread.start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


@pytest.mark.parametrize(
    ("status", "body", "version", "message"),
    [
        (403, b"Invalid Host header - possible DNS rebinding attack detected", b"3.17.2", "403.*--allowed-hosts"),
        (401, b"You are not authenticated.", b"3.17.2", "401.*MLFLOW_TRACKING_USERNAME"),
        (403, b"Permission denied", b"3.17.2", "403.*may not do this"),
        (404, b"<html>Not Found</html>", None, "404.*not as an MLflow server"),
        (200, b"<html>Welcome to nginx</html>", None, "200.*not as an MLflow server"),
        (200, b"{}", b"2.22.1", r"runs MLflow 2\.22\.1; trackdsl works with 3\.1 or newer, below 4\.0.*Upgrade"),
        (200, b"{}", b"1.30.0", r"MLflow 1\.30\.0"),
        (200, b"{}", b"4.2.0", r"MLflow 4\.2\.0.*pip install --upgrade trackdsl"),
    ],
)
def test_answers_that_are_no_welcome(
    online: None, status: int, body: bytes, version: bytes | None, message: str
) -> None:
    """Anything else that answers at the address is recognized, and the error says what to do about it."""
    server = Answers(status, body, version)
    try:
        with pytest.raises(TrackingServerError, match=message) as caught:
            start_logging("r", config={"tracking_uri": server.uri})
        assert not isinstance(caught.value, TrackingServerUnreachable)
        assert caught.value.status == status
    finally:
        server.close()


def test_a_gateway_without_its_server_counts_as_unreachable(online: None) -> None:
    """Where a gateway says that its server is away, a session can be spooled."""
    server = Answers(503, b"upstream connect error", None)
    try:
        with pytest.raises(TrackingServerUnreachable, match="it answers 503"):
            start_logging("r", config={"tracking_uri": server.uri})
        start_logging("r", config={"tracking_uri": server.uri}, offline="spool")
        stop_logging()
    finally:
        server.close()


def test_a_server_that_never_answers(online: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that accepts the connection and never answers is given up."""
    import socket

    from trackdsl._server import reachable as _reachable

    monkeypatch.setattr(_reachable, "PATIENCE", 0.2)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        with pytest.raises(TrackingServerUnreachable, match=r"no answer within 0\.2 s"):
            start_logging("r", config={"tracking_uri": f"http://127.0.0.1:{silent.getsockname()[1]}"})


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("file:///tmp/nowhere/mlruns", "MLFLOW_ALLOW_FILE_STORE=true"),
        ("./mlruns", "sqlite:///mlflow.db"),
        ("nosuchdb://host/x", None),
        ("sqlite:///program.txt", "is not an MLflow database"),
        ("postgresql+nosuchdriver://host/x", "driver"),
    ],
)
def test_other_stores(online: None, uri: str, message: str | None) -> None:
    """Stores that MLflow will not take are reported at once; schemes of plugins are left to MLflow."""
    from trackdsl._core import uris as _uris
    from trackdsl._server import reachable as _reachable

    Path("program.txt").write_text("no database at all" * 100)
    if message is None:
        assert _reachable.check(uri, "e") == _reachable.Store()
        return
    with pytest.raises(TrackingServerError, match=message):
        _reachable.check(_uris.absolute_uri(uri, str(Path.cwd())), "e")


def test_credentials_are_used_and_not_shown(online: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """User and password of the environment, a token, and MLflow's file of credentials reach the server."""
    from trackdsl._server.request_options import request_options

    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".mlflow").mkdir()
    (tmp_path / ".mlflow/credentials").write_text(
        "[mlflow]\nmlflow_tracking_username = ann\nmlflow_tracking_password = pw\n"
    )
    assert request_options()["headers"]["Authorization"] == "Basic YW5uOnB3"
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "bob")
    assert request_options()["headers"]["Authorization"] == "Basic Ym9iOnB3"
    (tmp_path / ".mlflow/credentials").unlink()
    monkeypatch.delenv("MLFLOW_TRACKING_USERNAME")
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "t0ken")
    assert request_options()["headers"]["Authorization"] == "Bearer t0ken"

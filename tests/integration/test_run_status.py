"""How runs and sessions end: as the program says, in child processes of every kind, at prompts."""

from __future__ import annotations

import asyncio
import builtins
import os
import subprocess
import sys
import textwrap
import threading
from typing import Any

import mlflow
import pytest

import trackdsl
from tests.conftest import StartProgram, all_runs, deliver
from trackdsl import experiment, stage, start_logging, stop_logging
from trackdsl.testing import capture_runs


@pytest.mark.parametrize("status", ["FINISHED", "failed", "KILLED"])
@pytest.mark.parametrize("kind", ["block", "call", "session", "stop"])
def test_status_of_choice(status: str, kind: str) -> None:
    """A run ends as the program says, with the reason as a tag; what the program does later does not change that."""

    @stage("train")
    def train() -> None:
        run = trackdsl.current_run()
        assert run is not None
        run.end(status, "the loss diverged")
        trackdsl.log_metric("m", 1.0)

    with capture_runs() as captured:
        if kind == "block":
            with stage("train") as run:
                run.end(status, "the loss diverged")
                trackdsl.log_metric("m", 1.0)
        elif kind == "call":
            train()
        else:
            run = start_logging("train")
            if kind == "session":
                run.end(status, "the loss diverged")
            trackdsl.log_metric("m", 1.0)
            if kind == "session":
                stop_logging()
            else:
                stop_logging(status=status, reason="the loss diverged")
    found = captured.one("train")
    assert (found.status, found.tags["trackdsl.ended"], found.metric("m")) == (status.upper(), "the loss diverged", 1.0)


def test_end_by_hand_is_kept(sqlite_store: str) -> None:
    """A run that was ended by hand has that time and status, at the store too, though its block raises later."""
    with pytest.raises(ValueError, match="later"), experiment(run_name="train") as run:
        run.end("KILLED", "preempted, password=hunter2-hunter2")
        with stage("child"):
            pass
        raise ValueError("later")
    deliver()
    parent, child = sorted(all_runs(), key=lambda each: str(each.info.run_name), reverse=True)
    assert (parent.info.status, child.info.status) == ("KILLED", "FINISHED")
    assert parent.info.end_time <= child.info.end_time
    assert "hunter2" not in parent.data.tags["trackdsl.ended"]
    assert "trackdsl.exception.type" not in parent.data.tags


def test_ended_twice() -> None:
    """The last call that ends a run counts, also after its block."""
    with capture_runs() as captured:
        with stage("train") as run:
            run.end()
            run.end("FAILED")
        with stage("judged") as judged:
            pass
        judged.end("FAILED", "worse than the baseline")
    assert [run.status for run in captured.runs] == ["FAILED", "FAILED"]


@pytest.mark.parametrize("status", ["DONE", "RUNNING", None, 3])
def test_no_such_status(status: Any) -> None:
    """A status that no run can end with is refused at once, and the run stays open."""
    with capture_runs() as captured, stage("train") as run:
        with pytest.raises(trackdsl.TrackdslError, match="FINISHED, FAILED, KILLED"):
            run.end(status)
        if status is not None:
            with pytest.raises(trackdsl.TrackdslError, match="FINISHED, FAILED, KILLED"):
                stop_logging(status=status)
    assert captured.one("train").status == "FINISHED"


def test_end_of_a_run_of_others(caplog: pytest.LogCaptureFixture, sqlite_store: str) -> None:
    """We do not end a run that plain MLflow has open, and log that once."""
    mlflow.set_tracking_uri(sqlite_store)
    with mlflow.start_run() as active:
        run = trackdsl.current_run()
        assert run is not None
        run.end("FAILED")
        run.end("FAILED")
    assert mlflow.get_run(active.info.run_id).info.status == "FINISHED"
    assert len([record for record in caplog.records if "mlflow.end_run" in record.message]) == 1


@pytest.mark.parametrize("status", ["FAILED", "KILLED"])
def test_status_by_plain_mlflow(sqlite_store: str, monkeypatch: pytest.MonkeyPatch, status: str) -> None:
    """`mlflow.end_run` with a status inside a scope is kept, by whichever of MLflow's ways; the block continues."""
    monkeypatch.setenv("TRACKDSL_MODE", "online")
    monkeypatch.setenv("TRACKDSL_DELIVERY", "thread")
    mlflow.set_tracking_uri(sqlite_store)
    with experiment("e", run_name="plain"):
        mlflow.end_run(status)
        mlflow.end_run()
        trackdsl.log_metric("after", 1.0)
    with experiment("e", run_name="again") as run, mlflow.start_run(run_id=run.run_id):
        mlflow.end_run(status=status)
    with experiment("e", run_name="client") as run:
        mlflow.log_metric("m", 1.0)
        mlflow.MlflowClient().set_terminated(run.run_id, status)
    with experiment("e", run_name="client first") as run:
        mlflow.MlflowClient().set_terminated(run.run_id, status)
    with experiment("e", run_name="well"):
        mlflow.end_run()
        with pytest.raises(Exception, match="status"):
            mlflow.end_run("DONE")
    with pytest.raises(ValueError, match="bad"), experiment("e", run_name="raises"):
        mlflow.end_run("KILLED")
        raise ValueError("bad")
    assert trackdsl.flush(60)
    found = {run.info.run_name: run for run in all_runs()}
    assert {name: run.info.status for name, run in found.items()} == {
        "plain": status, "again": status, "client": status, "client first": status, "well": "FINISHED",
        "raises": "FAILED",
    }  # fmt: skip
    assert found["plain"].data.metrics == {"after": 1.0}


_CHILDREN = """
    import multiprocessing, os, sys
    from concurrent.futures import ProcessPoolExecutor
    from trackdsl import log_metric, start_logging, stop_logging

    def work(name):
        start_logging(name)
        log_metric("m", 1)
        if name.endswith("raises"):
            raise ValueError("bad")
        if name.endswith("exits"):
            sys.exit(3)

    if __name__ == "__main__":
        method = sys.argv[1]
        if method == "os.fork":
            for name, code in (("well", 0), ("raises", 1)):
                if not os.fork():
                    start_logging(name)
                    os._exit(code)
                os.wait()
            if not os.fork():
                start_logging("stopped")
                stop_logging()
                os._exit(1)
            os.wait()
            sys.exit()
        context = multiprocessing.get_context(method)
        for name in ("well", "raises", "exits"):
            child = context.Process(target=work, args=(name,))
            child.start(); child.join()
        with ProcessPoolExecutor(1, mp_context=context) as pool:
            for name in ("pool-raises", "pool-well"):
                try:
                    pool.submit(work, name).result()
                except ValueError:
                    pass
        print("done")
"""


@pytest.mark.parametrize(
    ("method", "around"),
    [
        ("fork", False),
        ("os.fork", True),
        *(pytest.param(*each, marks=pytest.mark.slow) for each in [("fork", True), ("os.fork", False)]),
        *(
            pytest.param(kind, each, marks=pytest.mark.slow)
            for kind in ("spawn", "forkserver")
            for each in (False, True)
        ),
    ],
)
def test_sessions_of_children(start: StartProgram, sqlite_store: str, method: str, around: bool) -> None:
    """A session that a child process leaves open ends as the child does, however it was started and however it ends."""
    source = _CHILDREN
    if around:
        source = source.replace("        method = sys", "        start_logging('around')\n        method = sys")
    program = start(source, method)
    code, _, err = program.finish()
    assert code == 0, err
    deliver()
    found = {run.info.run_name: run for run in all_runs()}
    statuses = {name: run.info.status for name, run in found.items()}
    assert not around or statuses.pop("around") == "FINISHED"
    if method == "os.fork":
        assert statuses == {"well": "FINISHED", "raises": "FAILED", "stopped": "FINISHED"}
        return
    expected = {"well": "FINISHED", "raises": "FAILED", "exits": "FAILED"}
    assert statuses == {**expected, "pool-well": "FINISHED", "pool-raises": "FAILED"}
    for name in ("raises", "pool-raises"):
        assert found[name].data.tags["trackdsl.exception.message"] == "bad"


@pytest.mark.parametrize(("code", "status"), [(0, "FINISHED"), (3, "FAILED")])
def test_session_of_a_program_that_exits_at_once(
    start: StartProgram, sqlite_store: str, code: int, status: str
) -> None:
    """A session ends by the code of `os._exit`, and a block that is open there is KILLED."""
    program = start(
        f"""
        import os
        from trackdsl import stage, start_logging
        start_logging("session")
        with stage("block"):
            os._exit({code})
        """
    )
    assert program.finish()[0] == code
    deliver()
    assert {run.info.run_name: run.info.status for run in all_runs()} == {"session": status, "block": "KILLED"}


#: The last statements of programs, and how their sessions end.
_LAST = {
    "exit(1)": "FAILED",
    "quit()": "FINISHED",
    "try: sys.exit(1)\nexcept SystemExit: pass": "FINISHED",
    "try: sys.exit(1)\nfinally: print()": "FAILED",
    "def caught():\n    try: sys.exit(1)\n    except SystemExit: return\ncaught(); sys.exit(0)": "FINISHED",
    "import contextlib\nwith contextlib.suppress(SystemExit): exit('no')\nraise ValueError": "FAILED",
}


@pytest.mark.slow
def test_sessions_of_programs_that_exit(start: StartProgram, sqlite_store: str) -> None:
    """`exit` works like `sys.exit`; an exit that the program has caught ends nothing."""
    names = {f"session-{number}": last for number, last in enumerate(_LAST)}
    programs = [
        start(
            f"import sys\nfrom trackdsl import start_logging\n_ = start_logging({name!r})\n{last}",
            TRACKDSL_MODE="offline",
        )
        for name, last in names.items()
    ]
    for program in programs:
        program.finish()
    deliver()
    assert {names[run.info.run_name]: run.info.status for run in all_runs()} == _LAST


def _raise_in(thread: bool) -> None:
    def helper() -> None:
        start_logging("open")

    def fails() -> None:
        helper()
        raise ValueError("diverged")

    if thread:
        other = threading.Thread(target=fails)
        other.start()
        other.join()
        return

    async def task() -> None:
        fails()

    async def main() -> None:
        await asyncio.gather(task(), return_exceptions=True)

    asyncio.run(main())


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize("thread", [True, False])
def test_session_of_a_thread_or_task_that_fails(thread: bool) -> None:
    """A session that a thread or asyncio task leaves open by an exception is FAILED, at once."""
    with capture_runs() as captured:
        start_logging("program")
        _raise_in(thread)
        stop_logging()
    assert (captured.one("open").status, captured.one("program").status) == ("FAILED", "FINISHED")


def test_exit_is_put_back() -> None:
    """Once no session is open, all watched functions are the originals."""

    def watched() -> list[Any]:
        return [sys.exit, os._exit, threading.excepthook, type(builtins.exit).__call__]

    before = watched()
    with capture_runs():
        start_logging("one")
        assert all(now is not then for now, then in zip(watched(), before, strict=True))
        stop_logging()
    assert watched() == before


_STATEMENTS = [
    pytest.param(["undefined_name", "x = 1"], "FINISHED", id="corrected"),
    pytest.param(["undefined_name", "x = 1", "1 / 0"], "FAILED", id="last"),
    pytest.param(["x = 1", "undefined_name"], "FAILED", id="only", marks=pytest.mark.slow),
    pytest.param(["undefined_name", "x = 1", "1 / 0", "x = 2"], "FINISHED", id="twice", marks=pytest.mark.slow),
    pytest.param(["undefined_name", "x = 1", "import sys; sys.exit(3)"], "FAILED", id="exit", marks=pytest.mark.slow),
    pytest.param(["x = 1"], "FINISHED", id="none", marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("statements", "status"), _STATEMENTS)
def test_session_at_a_prompt(sqlite_store: str, statements: list[str], status: str) -> None:
    """An error at Python's prompt makes a session FAILED, unless another statement has followed."""
    lines = ["from trackdsl import start_logging", "_ = start_logging('session')", *statements]
    done = subprocess.run(
        [sys.executable, "-i", "-q"],
        input="\n".join(lines) + "\n",
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert done.stderr.count(">>> ") >= len(lines)
    deliver()
    (run,) = all_runs()
    assert run.info.status == status


@pytest.mark.slow
@pytest.mark.parametrize(("statements", "status"), [*_STATEMENTS[:4], (["undefined_name", "exit"], "FAILED")])
def test_session_in_cells(start: StartProgram, sqlite_store: str, statements: list[str], status: str) -> None:
    """An error in a notebook's cell makes a session FAILED, unless another cell has followed."""
    pytest.importorskip("IPython")
    program = start(
        f"""
        from IPython.core.interactiveshell import InteractiveShell
        shell = InteractiveShell.instance()
        shell.run_cell("from trackdsl import start_logging; _ = start_logging('session')")
        for cell in {statements!r}:
            shell.run_cell(cell)
        """
    )
    program.finish()
    deliver()
    (run,) = all_runs()
    assert run.info.status == status


@pytest.mark.slow
def test_sessions_at_the_prompt_of_python_3_13(start: StartProgram, sqlite_store: str) -> None:
    """At the prompt of Python 3.13, whose inputs are numbered files, a statement after an error has corrected it."""
    cases = {
        "corrected": (["undefined_name", "x = 1"], "FINISHED"),
        "syntax": (["x = = 1", "x = 1"], "FINISHED"),
        "last": (["x = 1", "undefined_name"], "FAILED"),
        "exit": (["undefined_name", "exit()"], "FAILED"),
        "corrected-exit": (["undefined_name", "x = 1", "exit()"], "FINISHED"),
    }
    for name, (inputs, _) in cases.items():
        start(
            f"""
            import linecache, sys
            for number, source in enumerate(["from trackdsl import *", "_ = start_logging({name!r})", *{inputs!r}]):
                file = f"<python-input-{{number}}>"
                linecache.cache[file] = (len(source), None, [source], file)
                try:
                    exec(compile(source, file, "single"))
                except Exception as error:
                    sys.last_value = error
            """,
            TRACKDSL_MODE="offline",
        ).finish()
    deliver()
    assert {run.info.run_name: run.info.status for run in all_runs()} == {
        name: status for name, (_, status) in cases.items()
    }


def test_prompt_stays(sqlite_store: str) -> None:
    """The prompt that a session watches is the same object, and plain again afterwards."""
    source = textwrap.dedent(
        """
        import sys; sys.ps1 = "in: "
        from trackdsl import start_logging, stop_logging
        _ = start_logging("session")
        sys.ps1 == "in: ", isinstance(sys.ps1, str)
        stop_logging()
        type(sys.ps1)
        """
    )
    done = subprocess.run(
        [sys.executable, "-i", "-q"], input=source, capture_output=True, text=True, timeout=90, check=False
    )
    assert "(True, True)" in done.stdout
    assert "<class 'str'>" in done.stdout
    assert "in: " in done.stderr


@pytest.mark.slow
def test_sessions_of_data_loader_workers(start: StartProgram, sqlite_store: str) -> None:
    """A session that a worker of PyTorch's `DataLoader` leaves open is FINISHED."""
    pytest.importorskip("torch")
    program = start(
        """
        from torch.utils.data import DataLoader
        from trackdsl import start_logging

        def begin(worker):
            start_logging(f"worker-{worker}")

        if __name__ == "__main__":
            assert len(list(DataLoader(range(4), num_workers=2, worker_init_fn=begin))) == 4
        """
    )
    code, _, err = program.finish()
    assert code == 0, err
    deliver()
    assert {run.info.run_name: run.info.status for run in all_runs()} == {
        "worker-0": "FINISHED",
        "worker-1": "FINISHED",
    }

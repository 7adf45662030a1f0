"""Programs in bad surroundings: full disks, no shell, no home, FIFOs, forks, delivery that is killed."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.conftest import StartProgram, delivery_pids, free_port, wait_until
from tests.delivery_settings import ChangeLimits
from trackdsl import log_metric, stage
from trackdsl.delivery.program import _client
from trackdsl.errors import SettingsError
from trackdsl.journal import _origin, _spare_segments
from trackdsl.journal._lock import is_held
from trackdsl.journal._reader import read_all
from trackdsl.journal._replay import RecordedRun, replay
from trackdsl.journal._spool import journals
from trackdsl.testing import capture_runs


def recorded(spool: Path) -> dict[str, RecordedRun]:
    """The runs in the journals of a spool, by name."""
    runs = replay((event, directory) for directory in journals(spool) for event in read_all(directory))
    assert len({run.name for run in runs}) == len(runs)
    return {run.name: run for run in runs}


def test_a_full_disk_costs_no_descriptors(monkeypatch: pytest.MonkeyPatch, change_limits: ChangeLimits) -> None:
    """Journals that cannot be made, time and again, leave no open file behind."""

    def full(path: Path, size: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(_spare_segments, "allocate", full)
    change_limits(no_journal_retry=0)
    before = psutil.Process().num_fds()
    with stage("s") as run:
        for _ in range(100):
            run.log_metric("m", 1)
    assert psutil.Process().num_fds() < before + 10
    assert run.lost > 100


def run_of_two(spool: Path) -> RecordedRun:
    """Record a run of two points, as the program of a test does; returns what is in the one journal of it."""
    with stage("s") as run:
        log_metric("m", 1)
        run.log_metric("m", 2)
    assert len(list(journals(spool))) == 1
    return recorded(spool)["s"]


def shell_fails(*_: Any, **options: Any) -> Any:
    if options.get("check"):
        raise subprocess.CalledProcessError(2, "sh")
    return subprocess.CompletedProcess([], 2)


def shell_is_missing(*_: Any, **__: Any) -> Any:
    raise FileNotFoundError(errno.ENOENT, "No such file or directory", "/bin/sh")


@pytest.mark.parametrize("mode", ["offline", "online"])
@pytest.mark.parametrize("run", [shell_fails, shell_is_missing])
def test_without_a_shell(
    run: Callable[..., Any], mode: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: Any
) -> None:
    """Where no process can be started, everything is recorded in one journal, and a thread is to deliver."""
    threads: list[Path] = []
    monkeypatch.setattr(_client, "_start_thread", threads.append)
    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.setenv("TRACKDSL_MODE", mode)
    found = run_of_two(tmp_path / "spool")
    assert (len(found.metrics["m"]), found.status) == (2, "FINISHED")
    assert set(threads) == ({tmp_path / "spool"} if mode == "online" else set())
    assert ("cannot start its delivery process" in caplog.text) is (mode == "online")


@pytest.mark.parametrize("delivery", ["process", "thread"])
def test_without_any_way_to_deliver(
    delivery: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: Any
) -> None:
    """Where neither a process nor a thread can be started, everything is recorded, and the log says so."""

    def no_thread(spool: Path) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(subprocess, "run", shell_is_missing)
    monkeypatch.setattr(_client, "_start_thread", no_thread)
    monkeypatch.setenv("TRACKDSL_MODE", "online")
    monkeypatch.setenv("TRACKDSL_DELIVERY", delivery)
    assert len(run_of_two(tmp_path / "spool").metrics["m"]) == 2
    assert "cannot deliver from a thread" in caplog.text


def test_without_a_working_directory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A program whose working directory has been removed is recorded like any other."""
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    monkeypatch.setattr(sys, "argv", ["-c"])
    gone.rmdir()
    assert len(run_of_two(tmp_path / "spool").metrics["m"]) == 2


def test_a_working_directory_that_is_no_text(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: Any) -> None:
    """In a folder whose name is not valid UTF-8 a program is recorded all the same, and a warning says so."""
    os.mkdir(os.fsencode(tmp_path) + b"/caf\xe9")
    monkeypatch.chdir(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9"))
    monkeypatch.setattr(sys, "argv", ["-c"])
    assert len(run_of_two(tmp_path / "spool").metrics["m"]) == 2
    assert "not valid UTF-8" in caplog.text


def test_without_a_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: Any) -> None:
    """A user of a container who has no home, nor an entry in passwd, is recorded in the temporary folder."""
    import platformdirs

    def homeless(*_: Any, **__: Any) -> str:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(platformdirs, "user_state_dir", homeless)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.delenv("TRACKDSL_SPOOL")
    with stage("s") as run:
        run.log_metric("m", 1)
    (spool,) = tmp_path.glob("trackdsl-*/spool/*")
    assert recorded(spool)["s"].metric("m") == 1
    assert "TRACKDSL_SPOOL" in caplog.text


def test_a_frozen_program_does_not_start_itself(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Where `sys.executable` is the program itself, a thread delivers instead of one more copy of the program."""
    started: list[list[str]] = []
    threads: list[Path] = []
    monkeypatch.setattr(sys, "frozen", True, raising=False)
    monkeypatch.setattr(_origin, "run_detached", lambda command, **_: started.append(command))
    monkeypatch.setattr(_client, "_start_thread", threads.append)
    monkeypatch.setenv("TRACKDSL_MODE", "online")
    run_of_two(tmp_path / "spool")
    assert not [command for command in started if sys.executable in command]
    assert tmp_path / "spool" in threads


@pytest.mark.parametrize("inside", [False, True], ids=["itself", "in a folder"])
def test_a_fifo_is_a_visible_omission(inside: bool, tmp_path: Path) -> None:
    """A FIFO, which cannot be read to its end, is left out, and a tag says so."""
    folder = tmp_path / "out"
    folder.mkdir()
    os.mkfifo(folder / "pipe")
    with capture_runs() as captured, stage("s") as run:
        # From a thread that may be left behind: reading a FIFO has no end.
        thread = threading.Thread(target=run.log_artifact, args=[folder if inside else folder / "pipe"], daemon=True)
        thread.start()
        wait_until(lambda: not thread.is_alive(), "the artifact to be left out")
    assert any(tag.startswith("trackdsl.omitted.") for tag in captured.one("s").tags)


def test_a_bad_mode_is_reported_every_time(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A mode that does not exist raises at every run, and nothing is made on disk."""
    monkeypatch.setenv("TRACKDSL_MODE", "bogus")
    for _ in range(3):
        with pytest.raises(SettingsError, match="TRACKDSL_MODE is 'bogus'"), stage("s"):
            raise AssertionError("entered")
        with pytest.raises(SettingsError):
            stage("f")(lambda: None)()
    assert not list(journals(tmp_path / "spool"))


def test_a_forked_child_ends_its_own_runs_alone(start: StartProgram, tmp_path: Path) -> None:
    """A forked child that unwinds through its parent's block does not end the parent's run; it ends its own."""
    program = start("""
        import os, sys, trackdsl
        with trackdsl.stage("parent") as run:
            pid = os.fork()
            if pid == 0:
                with trackdsl.stage("child"):
                    sys.exit(3)
            assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 3
            run.log_metric("after", 1)
    """)
    code, _, err = program.finish()
    assert code == 0, err
    runs = recorded(tmp_path / "spool")
    assert (runs["parent"].status, runs["parent"].metric("after")) == ("FINISHED", 1)
    assert (runs["child"].status, runs["child"].parent) == ("FAILED", runs["parent"])


def test_moving_the_spool_with_an_open_run(start: StartProgram, tmp_path: Path) -> None:
    """`configure(spool=...)` inside a run, and a fork after it: everything is in one of the journals."""
    program = start(f"""
        import os, trackdsl
        with trackdsl.stage("old") as run:
            run.log_metric("before", 1)
            trackdsl.configure(spool={str(tmp_path / "two")!r})
            run.log_metric("moved", 1)
            pid = os.fork()
            name = "child" if pid == 0 else "parent"
            for step in range(300):
                run.log_metric(name, step, step=step)
            with trackdsl.stage("of " + name):
                pass
            if pid == 0:
                os._exit(0)
            os.waitpid(pid, 0)
        with trackdsl.stage("new"):
            pass
    """)
    code, _, err = program.finish()
    assert code == 0, err
    directories = [*journals(tmp_path / "spool"), *journals(tmp_path / "two")]
    runs = {run.name: run for run in replay((event, journal) for journal in directories for event in read_all(journal))}
    counts = Counter({name: len(points) for name, points in runs["old"].metrics.items()})
    assert counts == {"before": 1, "moved": 1, "parent": 300, "child": 300}
    assert {name: (run.status, run.lost) for name, run in runs.items()} == dict.fromkeys(
        ["old", "of parent", "of child", "new"], ("FINISHED", 0)
    )
    assert "new" in recorded(tmp_path / "two")


def test_locks_are_not_inherited(start: StartProgram, tmp_path: Path) -> None:
    """The locks of a program that is killed are free, also where a forked child of it lives on."""
    program = start(f"""
        import os, time, trackdsl
        from pathlib import Path
        from trackdsl.journal._spool import take_lock
        with trackdsl.stage("s"):
            lock = take_lock(Path({str(tmp_path / "spool")!r}), 0)
            pid = os.fork()
            if pid:
                print(pid)
            input()
    """)
    child = int(program.say())
    (directory,) = journals(tmp_path / "spool")
    locks = [directory / "lock", tmp_path / "spool" / "delivery.lock"]
    try:
        assert all(is_held(lock) for lock in locks)
        program.process.send_signal(signal.SIGKILL)
        program.process.wait()
        os.kill(child, 0)
        wait_until(lambda: not any(is_held(lock) for lock in locks), "the locks to be free", 20)
    finally:
        os.kill(child, signal.SIGKILL)


def test_recording_and_flushing_import_no_mlflow(start: StartProgram) -> None:
    """A program that waits for its delivery needs no MLflow of its own."""
    program = start(
        """
        import os, sys, trackdsl
        @trackdsl.stage
        def f(x):
            return trackdsl.flush(0.1)
        print(f(1), "mlflow" in sys.modules, flush=True)
        os._exit(0)
        """,
        TRACKDSL_MODE="online",
        TRACKDSL_TRACKING_URI=f"http://127.0.0.1:{free_port()}",
    )
    code, out, err = program.finish()
    assert (code, out) == (0, "False False\n"), err


def test_delivery_is_started_again_while_metrics_are_logged(start: StartProgram, tmp_path: Path) -> None:
    """A delivery process that is killed has a successor, though the program does nothing but log metrics."""
    start(
        """
        import time, trackdsl
        with trackdsl.stage("s") as run:
            while True:
                run.log_metric("m", 1)
                time.sleep(0.01)
        """,
        TRACKDSL_MODE="online",
        TRACKDSL_TRACKING_URI=f"http://127.0.0.1:{free_port()}",
    )
    spool = tmp_path / "spool"
    wait_until(lambda: is_held(spool / "delivery.lock") and delivery_pids(spool), "the delivery process")
    first = set(delivery_pids(spool))
    for pid in first:
        os.kill(pid, signal.SIGKILL)
    wait_until(lambda: set(delivery_pids(spool)) - first, "a new one")

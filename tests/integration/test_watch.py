"""`trackdsl watch`: what runs on this machine, live, from the journals."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import re
import shutil
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import psutil
import pytest

from tests.conftest import PATIENCE, StartProgram, await_git, deliver, end_delivery, run_command, wait_until
from tests.delivery_settings import ChangeLimits
from trackdsl import experiment, log_metric, stage, steps
from trackdsl.cli.watching import _journal, _spool
from trackdsl.cli.watching._lines import line_of, structure_of
from trackdsl.cli.watching._runs import WatchedRun
from trackdsl.cli.watching._spool import WatchedSpool
from trackdsl.journal import _target
from trackdsl.journal._lock import FileLock
from trackdsl.journal._mounts import FileSystem
from trackdsl.journal._origin import read_origin, write_origin
from trackdsl.journal._segments import segments
from trackdsl.journal._spool import journals

#: A tree of three processes: a forked child that waits, and a spawned one that fails; each says when it is there.
FAMILY = """
    import multiprocessing, sys, time
    from trackdsl import experiment, stage, steps

    def fail():
        with stage("spawned"):
            raise ValueError("no data\\x1b[31m")

    if __name__ == "__main__":
        with experiment("e", run_name="family"):
            forked = multiprocessing.get_context("fork").Process(target=lambda: child())
            def child():
                with stage("forked"):
                    for epoch in steps(range(4), "epoch"):
                        time.sleep(100)
            forked.start()
            spawned = multiprocessing.get_context("spawn").Process(target=fail)
            spawned.start()
            spawned.join()
            print(forked.pid, flush=True)
            forked.join()
            sys.stdin.readline()
"""
ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def seen(spool: WatchedSpool) -> dict[str, WatchedRun]:
    """The runs by their paths, after everything that is there was read."""
    spool.read(10.0)
    return {run.path: run for run in spool.runs}


@pytest.fixture
def spool(tmp_path: Path) -> WatchedSpool:
    """The spool of this test, watched."""
    (tmp_path / "spool").mkdir(mode=0o700)
    return WatchedSpool(tmp_path / "spool", ended=False)


def test_a_program_that_begins_later(spool: WatchedSpool) -> None:
    """Runs appear while they run, with their loops, metrics and failures, and end as the program ends them."""
    assert not seen(spool)
    with pytest.raises(ValueError, match="no data"), experiment("e", run_name="root"):
        for epoch in steps(range(10), "epoch"):
            log_metric("loss", 1 / (epoch + 1))
            if epoch == 3:
                break
        found = seen(spool)["root"]
        assert (found.status, found.metrics["loss"], found.steps["loss"]) == ("RUNNING", [1.0, 1 / 2, 1 / 3, 1 / 4], 3)
        assert [(loop.name, loop.done, loop.total) for loop in found.loops] == [("epoch", 3, 10.0)]
        assert "epoch 3/10" in line_of(found)
        with stage("fit"):
            raise ValueError("no data\nsecond line")
    runs = seen(spool)
    assert {path: (run.status, run.failure) for path, run in runs.items()} == {
        "root": ("FAILED", "ValueError: no data … second line"),
        "root/fit": ("FAILED", "ValueError: no data … second line"),
    }
    assert runs["root/fit"].parent is runs["root"]
    shown = structure_of(runs["root"])
    assert (shown["metrics"]["loss"], shown["progress"]["remaining"]) == ({"value": 0.25, "step": 3}, None)


def test_a_journal_that_is_deleted(spool: WatchedSpool) -> None:
    """If the journal is deleted while its program runs, the program continues in another one, and so does its run."""
    with experiment("e", run_name="root") as run:
        found = seen(spool)["root"]
        (journal,) = journals(spool.spool)
        await_git(spool.spool)
        shutil.rmtree(journal)
        assert seen(spool)["root"].is_open
        wait_until(lambda: run.log_metric("loss", 1) or list(journals(spool.spool)), "a new journal")
        assert seen(spool)["root"] is found
        assert (found.is_open, found.journal != journal.name) == (True, True)
    assert seen(spool)["root"].status == "FINISHED"


def cut(segment: Path) -> None:
    os.truncate(segment, 4096)


def overwrite(segment: Path) -> None:
    with open(segment, "r+b") as file:
        file.seek(200)
        file.write(os.urandom(500))


def to_fifo(segment: Path) -> None:
    segment.unlink()
    os.mkfifo(segment)


def without_lock(segment: Path) -> None:
    (segment.parent / "lock").unlink()
    (segment.parent / "lock").mkdir()


def bad_notes(segment: Path) -> None:
    for name in ("origin", "progress", "ledger"):
        (segment.parent / name).write_bytes(os.urandom(300))


@pytest.mark.parametrize("damage", [cut, overwrite, to_fifo, without_lock, bad_notes])
@pytest.mark.parametrize("before", [True, False], ids=["before", "while"])
def test_a_damaged_journal(spool: WatchedSpool, damage: Callable[[Path], None], before: bool) -> None:
    """Whatever happens to the files of a journal, before or while it is watched, the others are shown."""
    for name in ("first", "second"):
        with experiment("e", run_name=name) as run:
            for step in range(500):
                run.log_metric("loss", step, step=step)
        _target.close_all()
    first, second = journals(spool.spool)
    held = [FileLock(journal / "lock") for journal in (first, second)]
    assert all(lock.acquire() for lock in held)  # As if both programs were running.
    if not before:
        assert seen(spool).keys() == {"first", "second"}
    damage(first / "000001.seg")
    assert seen(spool)["second"].steps == {"loss": 499}
    for lock in held:
        lock.release()
    assert seen(spool)["second"].status == "FINISHED"
    assert before or "first" in seen(spool)


def test_a_program_of_another_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a shared spool, a program of another machine runs until a file notes its end, as its lock may not be seen."""
    block = experiment("e", run_name="there")
    block.__enter__()
    (journal,) = journals(tmp_path / "spool")
    _target.close_all()
    ended = journal / "ended"
    end = ended.read_text()
    ended.unlink()
    origin = read_origin(journal)
    assert origin is not None
    write_origin(journal, msgspec.structs.replace(origin, host="node7", boot="of node7"))
    monkeypatch.setattr(_spool, "file_system", lambda folder: FileSystem("lustre", frozenset({"flock"})))
    spool = WatchedSpool(tmp_path / "spool", ended=False)
    assert seen(spool)["there"].is_open
    (watched,) = spool.journals.values()
    assert (watched.is_local, "cannot be seen from here" in watched.unsure) == (False, True)
    ended.write_text(end)
    assert seen(spool)["there"].status == "KILLED"


def test_more_points_than_can_be_read(spool: WatchedSpool, monkeypatch: pytest.MonkeyPatch) -> None:
    """If much is left to read, points are passed over, but no run, and the latest points are there."""
    monkeypatch.setattr(_journal, "_MOST_READ", 20_000)
    monkeypatch.setattr(_journal, "_TAIL", 2_000)
    with experiment("e", run_name="root"):
        for number in range(30):
            with stage(f"fit {number}") as fit:
                for step in range(300):
                    fit.log_metric("loss", step, step=step)
        with stage("last") as last:
            for step in range(300):
                last.log_metric("loss", step, step=step)
            runs = seen(spool)
            (journal,) = spool.journals.values()
            assert (len(runs), journal.left_out, journal.caught_up) == (32, True, True)
            assert {path for path, run in runs.items() if run.is_open} == {"root", "root/last"}
            assert (runs["root/last"].steps, "loss" in runs["root/fit 3"].metrics) == ({"loss": 299}, False)


def test_the_beginning_of_a_long_program(sqlite_store: str, spool: WatchedSpool, change_limits: ChangeLimits) -> None:
    """What runs has name and parent although the segments of its beginning are removed, and no ended run is lost."""
    from trackdsl.delivery.process._worker import Worker
    from trackdsl.delivery.service import open_sink

    change_limits(first_segment=4096, largest_segment=4096)
    worker = Worker(spool.spool, open_sink)
    with experiment("e", run_name="root"), stage("over"):
        pass
    with experiment("e", run_name="root"):
        with stage("over"):
            pass
        with stage("fit") as fit:
            for step in range(400):
                fit.log_metric("loss", step, step=step)
            (journal,) = journals(spool.spool)
            wait_until(lambda: not worker.round() and segments(journal)[0] > 2, "segments to be removed")
            runs = seen(spool)
            assert {path: run.status for path, run in runs.items()} == {"root": "RUNNING", "root/fit": "RUNNING"}
            assert runs["root/fit"].parent is runs["root"]
            # The others were delivered unread: they are counted, the one inside the run that still runs below it.
            assert (spool.runs.totals["ENDED"], runs["root"].dropped) == (3, {"ENDED": 1})
            assert [dict(one.runs.totals) for one in (spool, WatchedSpool(spool.spool, ended=True)) if seen(one)] == [
                {"RUNNING": 2, "ENDED": 3}
            ] * 2
    worker.close()


def test_how_far_behind_delivery_is(spool: WatchedSpool, monkeypatch: pytest.MonkeyPatch) -> None:
    """It counts from when an event was recorded, also for a program that is watched only later."""
    began = time.time()
    with experiment("e", run_name="root") as run:
        seen(spool)
        assert [journal.delay < 60 for journal in spool.journals.values()] == [True]
        monkeypatch.setattr(time, "time", lambda: began + 3600)
        for _ in range(2000):
            run.log_metric("loss", 1)
            spool.read(10.0)
        later = WatchedSpool(spool.spool, ended=False)
        later.read(10.0)
        for watched in (spool, later):
            (journal,) = watched.journals.values()
            assert 3540 < journal.delay <= 3600


def test_when_a_program_was_killed(spool: WatchedSpool, start: StartProgram) -> None:
    """A program that records nothing until it is killed has run until then."""
    program = start(
        """
        import sys
        from trackdsl import experiment
        with experiment("e", run_name="root"):
            print("open", flush=True)
            sys.stdin.readline()
        """
    )
    program.say()
    assert seen(spool)["root"].is_open
    alive_at = time.time_ns()
    assert seen(spool)["root"].is_open
    program.kill()
    wait_until(lambda: seen(spool)["root"].status == "KILLED", "the end")
    ended = seen(spool)["root"].ended
    assert ended is not None
    assert ended >= alive_at


def test_a_run_with_more_below_than_is_kept(spool: WatchedSpool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each run below the one that is watched has a line, also if it had ended before and is not kept."""
    monkeypatch.setattr("trackdsl.cli.watching._runs._MOST_ENDED", 10)
    with experiment("e", run_name="other"), stage("no"):
        pass
    with experiment("e", run_name="root"):
        for number in range(50):
            with stage(f"fit {number}"):
                pass
    done = run_command("watch", "root", "--json")
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert (done.returncode, sorted(one["path"] for one in found)) == (
        0, sorted(["root", *(f"root/fit {number}" for number in range(50))])
    )  # fmt: skip


def test_a_run_that_is_not_there(spool: WatchedSpool) -> None:
    """A name that no run has is an error with the most similar name; a run that has ended prints its status at once."""
    with contextlib.suppress(ValueError), experiment("e", run_name="pipeline"):
        raise ValueError("\x1b[31mno data")
    done = run_command("watch", "pipelin")
    assert (done.returncode, "there is no run 'pipelin'" in done.stderr) == (1, True)
    assert "did you mean `pipeline`? `trackdsl watch` shows" in done.stderr
    done = run_command("watch", "pipeline")
    assert (done.returncode, done.stdout.count("\n")) == (1, 1)
    assert re.search(r"  failed  pipeline  \d+ ms  ValueError: \\x1b\[31mno data$", done.stdout.strip())
    (shown,) = map(json.loads, run_command("watch", "pipeline", "--json").stdout.splitlines())
    assert (shown["event"], shown["name"], shown["status"]) == ("run", "pipeline", "FAILED")


class Terminal:
    """A command of `trackdsl` at a terminal of its own."""

    def __init__(self, *arguments: str, columns: int = 80, **environment: str) -> None:
        self.master, slave = pty.openpty()
        self.resize(columns)
        self.before = termios.tcgetattr(slave)
        self.slave = slave
        self.process = subprocess.Popen(
            [sys.executable, "-m", "trackdsl.cli", *arguments],
            stdin=slave, stdout=slave, stderr=slave, start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
            env={**os.environ, "TERM": "xterm-256color", **environment},
        )  # fmt: skip
        os.set_blocking(self.master, False)
        self.text = ""

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self.master)
        os.close(self.slave)

    def resize(self, columns: int, lines: int = 20) -> None:
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def type(self, keys: str) -> None:
        os.write(self.master, keys.encode())

    def lines(self) -> list[str]:
        """What the screen shows, or what is left on it after the end."""
        with contextlib.suppress(OSError):  # Nothing more for now, or the program has ended.
            while found := os.read(self.master, 65536):
                self.text += found.decode()
        # Each picture begins at the top left.
        *_, last = self.text.rpartition("\x1b[H") if "\x1b[?1049l" not in self.text else self.text.rpartition("1049l")
        return [line.rstrip() for line in ESCAPES.sub("", last).replace("\r", "").split("\n")]

    def shows(self, *patterns: str) -> bool:
        """Whether for each of the patterns there is a line, in this order."""
        lines = iter(self.lines())
        return all(any(re.search(pattern, line) for line in lines) for pattern in patterns)

    def is_restored(self) -> bool:
        """Whether the terminal is as it was: its modes, the ordinary screen, a visible cursor."""
        self.lines()
        left = all(
            self.text.rfind(on) > self.text.rfind(off) for on, off in (("[?1049l", "[?1049h"), ("[?25h", "[?25l"))
        )
        return left and termios.tcgetattr(self.slave) == self.before

    def finish(self) -> int:
        def is_over() -> bool:
            self.lines()
            return self.process.poll() is not None

        wait_until(is_over, "the end of the command")
        return self.process.returncode


@pytest.mark.slow
def test_at_a_terminal(tmp_path: Path, start: StartProgram) -> None:
    """Programs that begin later, their children, failures and kills are shown; `q` restores the terminal."""
    with Terminal("watch") as terminal:
        wait_until(lambda: terminal.shows("^nothing", "^Nothing is running"), "an empty screen")
        family = start(FAMILY)
        child = int(family.say())
        wait_until(
            lambda: terminal.shows(
                r"^2 running, 1 failed", rf"^program_0\.py  pid {family.pid}", r"^▾ family +● ",
                r"^├─ forked +● .* epoch 0/4", r"^└─ spawned +✗ ", r"^ {4,}ValueError: no data\\x1b\[31m$",
            ), "the tree",
        )  # fmt: skip
        os.kill(child, signal.SIGKILL)
        wait_until(lambda: terminal.shows(r"^▾ family", r"forked +■ "), "the killed child")
        terminal.resize(40)
        wait_until(lambda: max(map(len, terminal.lines())) == 40 and terminal.shows("^├─ forked +■"), "a narrow screen")
        terminal.type(" ")
        terminal.type("\x1b[B ")
        wait_until(lambda: terminal.shows(r"^▸ family \+2|^▸ family +\+2"), "the folded tree")
        family.kill()
        wait_until(
            lambda: terminal.shows("^2 killed, 1 failed|^1 failed, 2 killed", r"^▸ family .* ■"), "the killed program"
        )
        terminal.type("q")
        assert terminal.finish() == 0
        assert terminal.is_restored()
        assert terminal.shows(r"^▸ family .* ■")
    end_delivery(tmp_path / "spool")


@pytest.mark.slow
@pytest.mark.parametrize(("how", "code"), [("\x03", 130), (signal.SIGTERM, 143)], ids=["ctrl-c", "sigterm"])
def test_the_terminal_is_restored(how: Any, code: int) -> None:
    """Ctrl-C and SIGTERM end it with their exit codes and restore the terminal, as Ctrl-Z does for a while."""
    with Terminal("watch", NO_COLOR="1") as terminal:
        wait_until(lambda: terminal.shows("^Nothing is running"), "an empty screen")
        assert "\x1b[3" not in terminal.text
        terminal.type("\x1a")
        process = psutil.Process(terminal.process.pid)
        wait_until(lambda: process.status() == psutil.STATUS_STOPPED, "the stop")
        assert terminal.is_restored()
        process.send_signal(signal.SIGCONT)
        wait_until(lambda: not terminal.is_restored() and terminal.shows("^Nothing is running"), "the screen again")
        terminal.type(how) if isinstance(how, str) else process.send_signal(how)
        assert terminal.finish() == code
        assert terminal.is_restored()


@pytest.mark.slow
def test_until_the_end_of_a_run(start: StartProgram) -> None:
    """With a run, it follows this run alone, line by line without a terminal, and ends with it and with its status."""
    program = start(
        """
        import sys
        from trackdsl import experiment, stage
        with experiment("e", run_name="other"), experiment("e", run_name="root"):
            print("open", flush=True)
            with stage("fit") as fit:
                fit.log_metric("loss", float("nan"))
                sys.stdin.readline()
        """
    )
    program.say()
    watch = subprocess.Popen(
        [sys.executable, "-m", "trackdsl.cli", "watch", "other/root", "--json"], stdout=subprocess.PIPE, text=True
    )
    assert watch.stdout is not None
    printed = [json.loads(watch.stdout.readline()) for _ in range(2)]
    assert {(one["path"], one["status"]) for one in printed} == {
        ("other/root", "RUNNING"),
        ("other/root/fit", "RUNNING"),
    }
    program.resume()
    printed = list(map(json.loads, watch.stdout))
    assert watch.wait(PATIENCE) == 0
    assert [(one["path"], one["status"]) for one in printed[-2:]] == [
        ("other/root/fit", "FINISHED"), ("other/root", "FINISHED"),
    ]  # fmt: skip
    assert printed[-2]["metrics"] == {"loss": {"value": None, "step": 0}}


def record(name: str) -> None:
    """A run, delivered to the store of the working directory."""
    with experiment("e", run_name=name):
        pass
    deliver()


@pytest.mark.slow
def test_a_list_that_is_watched(sqlite_store: str) -> None:
    """`ls --watch` shows what comes, at a terminal and as lines of JSON, each only if something has changed."""
    record("first")
    lines = subprocess.Popen(
        [sys.executable, "-m", "trackdsl.cli", "ls", "--watch", "--json"], stdout=subprocess.PIPE, text=True
    )
    assert lines.stdout is not None
    assert [run["name"] for run in json.loads(lines.stdout.readline())["runs"]] == ["first"]
    with Terminal("ls", "--watch") as terminal:
        wait_until(lambda: terminal.shows("q quits", "^run +name", " first "), "the list")
        record("second")
        wait_until(lambda: terminal.shows(" second ", " first "), "the new list")
        terminal.type("q")
        assert terminal.finish() == 0
        assert terminal.is_restored()
        assert terminal.shows(" second ", " first ")
    assert [run["name"] for run in json.loads(lines.stdout.readline())["runs"]] == ["second", "first"]
    lines.send_signal(signal.SIGINT)
    assert lines.communicate(timeout=PATIENCE)[0] == ""
    assert lines.returncode == 130


@pytest.mark.parametrize("command", [["watch"], ["watch", "--json"], ["ls", "--watch", "--json"]])
def test_a_pipe_that_is_closed(sqlite_store: str, command: list[str]) -> None:
    """Where nobody reads what they print any more, `watch` and `ls --watch` end, though nothing has changed."""
    with subprocess.Popen(
        [sys.executable, "-m", "trackdsl.cli", *command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            if command[0] == "ls":
                assert process.stdout.readline().startswith("{")
            process.stdout.close()
            assert process.wait(PATIENCE) == 1
            assert process.stderr is not None
            assert process.stderr.read() == ""
        finally:
            process.kill()


@pytest.fixture(autouse=True)
def delivery(tmp_path: Path) -> Iterator[None]:
    """The delivery process of a test ends with it."""
    yield
    end_delivery(tmp_path / "spool")

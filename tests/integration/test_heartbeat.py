"""The heartbeat of delivery: its file, what programs read of it, and the priority that depends on who waits."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import wait_until
from trackdsl.cli import _status
from trackdsl.delivery.process._heartbeat_writer import HeartbeatWriter
from trackdsl.delivery.process._priority import Priority
from trackdsl.delivery.program import _client
from trackdsl.journal import _origin, _spool
from trackdsl.journal._lock import FileLock
from trackdsl.journal._waiters import Waiter, is_awaited
from trackdsl.store_format import heartbeat, heartbeat_monitor
from trackdsl.store_format.heartbeat import (
    DELIVERING,
    IDLE,
    IMPORTING,
    Heartbeat,
    HeartbeatFile,
    is_starting,
    mark_starting,
    read_heartbeat,
)
from trackdsl.store_format.heartbeat_monitor import HeartbeatMonitor

STORE = "sqlite:////data/mlflow.db"
#: The content of a file with one beat.
HEARD = Heartbeat(4711, 12, 3, DELIVERING, "http://tracking:5000", 1.5)


@pytest.fixture
def spool(tmp_path: Path) -> Path:
    return _spool.make(tmp_path / "spool")


def test_a_beat_is_read_as_it_was_written(spool: Path) -> None:
    """A beat replaces the one before, in space that is allocated at the beginning, so a full disk does not matter."""
    file = HeartbeatFile(spool)
    size = (spool / "heartbeat").stat().st_size
    for count in range(1, 4):
        beat = Heartbeat(4711, count, 1 << 40, DELIVERING, "ü" * heartbeat._LONGEST_STORE, 1e6 / 3)
        file.write(beat)
        assert read_heartbeat(spool) == beat
    assert (spool / "heartbeat").stat().st_size == size


@given(
    damage=st.dictionaries(st.integers(0, 60) | st.integers(0, 511), st.binary(min_size=1, max_size=1), min_size=1),
    length=st.just(512) | st.just(512) | st.integers(0, 600),
)
def test_a_damaged_heartbeat_counts_as_none(
    tmp_path_factory: pytest.TempPathFactory, damage: dict[int, bytes], length: int
) -> None:
    """Whatever was changed, the file is read as what was written, or as nothing; the next beat repairs it."""
    spool = tmp_path_factory.mktemp("spool")
    file = HeartbeatFile(spool)
    file.write(HEARD)
    content = bytearray((spool / "heartbeat").read_bytes())
    for at, byte in damage.items():
        content[at : at + 1] = byte
    (spool / "heartbeat").write_bytes(bytes(content).ljust(length, b"\7")[:length])
    assert read_heartbeat(spool) in (None, HEARD)
    file.write(HEARD)
    assert read_heartbeat(spool) == HEARD


@pytest.mark.parametrize(
    "beat",
    [
        Heartbeat(1, 1, 1, "\x1b[2J"),
        Heartbeat(1, 1, 1, DELIVERING, "http://\x1b]0;x\7"),
        Heartbeat(-1, 1, 1, IDLE),
        Heartbeat(1, 1, 1, DELIVERING, "", float("nan")),
    ],
)
def test_a_beat_that_no_delivery_process_writes_counts_as_none(spool: Path, beat: Heartbeat) -> None:
    """A beat with other texts than a delivery process writes is ignored, as terminals show them."""
    HeartbeatFile(spool).write(beat)
    assert read_heartbeat(spool) is None


def _link(path: Path) -> None:
    (path.parent / "victim").write_bytes(b"dear")
    path.symlink_to("victim")


@pytest.mark.parametrize("plant", [_link, os.mkfifo, os.mkdir])
def test_another_file_under_its_name_is_left_alone(spool: Path, plant: Callable[[Path], None]) -> None:
    """Neither the process that delivers nor the programs that wait follow a link or wait at a FIFO."""
    plant(spool / "heartbeat")
    writer = HeartbeatWriter(spool)
    writer.doing(DELIVERING, "http://tracking:5000")
    mark_starting(spool, os.getpid())
    assert read_heartbeat(spool) is None
    assert not is_starting(spool)
    writer.close()
    if plant is _link:
        assert (spool / "victim").read_bytes() == b"dear"


def test_the_heart_beats_while_the_process_is_busy(spool: Path) -> None:
    """A thread notes what another one does, and for how long that one has not moved."""
    leave, beats = threading.Event(), list[Heartbeat | None]()

    def deliver() -> None:
        writer = HeartbeatWriter(spool)
        with writer.during(IMPORTING):
            leave.wait()
        writer.doing(DELIVERING, "sqlite")
        writer.beat()
        beats.append(read_heartbeat(spool))
        writer.close()

    thread = threading.Thread(target=deliver)
    thread.start()
    wait_until(lambda: (beat := read_heartbeat(spool)) is not None and beat.count > 2 and beat.still > 0, "beats")
    beat = read_heartbeat(spool)
    assert beat is not None
    assert (beat.pid, beat.activity, beat.description()) == (os.getpid(), IMPORTING, IMPORTING)
    leave.set()
    thread.join()
    assert [(beat.activity, beat.still) for beat in beats if beat is not None] == [(DELIVERING, 0.0)]


class Process:
    """A delivery process as programs see it: its lock, and its heartbeat."""

    def __init__(self, spool: Path) -> None:
        self.lock = FileLock(spool / _spool.LOCK)
        assert self.lock.acquire()
        self.file = HeartbeatFile(spool)
        self.count = 0

    def beat(self, rounds: int = 1, still: float = 0.0, pid: int = 1 << 30) -> None:
        self.count += 1
        self.file.write(Heartbeat(pid, self.count, rounds, DELIVERING, "sqlite", still))


@pytest.fixture
def process(spool: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Process]:
    monkeypatch.setattr(heartbeat_monitor, "_LOOK_EVERY", 0.0)
    process = Process(spool)
    yield process
    process.lock.release()


def renewed(monitor: HeartbeatMonitor, process: Process, **beat: float) -> tuple[bool, bool]:
    """Whether one more beat shows that the process lives, and that it is at work."""
    lived, worked = monitor.lived, monitor.worked
    process.beat(**beat)  # type: ignore[arg-type]
    monitor.update(progressed=False)
    return monitor.lived > lived, monitor.worked > worked


def test_a_process_is_at_work_as_long_as_a_round_takes(spool: Path, process: Process) -> None:
    """A process counts as busy for a whole round, not while it only looks for work, or after hanging for minutes."""
    monitor = HeartbeatMonitor([(spool, STORE)])
    process.beat(rounds=7)
    monitor.update(progressed=True)
    assert renewed(monitor, process, rounds=7) == (True, True)
    assert renewed(monitor, process, rounds=7, still=100) == (True, True)
    assert monitor.description() == "waiting for sqlite since 100 s"
    assert renewed(monitor, process, rounds=7, still=1000) == (True, False)
    assert renewed(monitor, process, rounds=8) == (True, False)
    assert renewed(monitor, process, rounds=8) == (True, True)
    assert renewed(monitor, process, rounds=1000) == (True, False)
    assert renewed(monitor, process, rounds=1000) == (True, False)  # It has seen this journal often enough.
    process.lock.release()
    assert renewed(monitor, process, rounds=1000) == (False, False)
    assert not monitor.description()


def test_only_a_new_beat_is_a_sign(spool: Path, process: Process) -> None:
    """Only a new beat shows that a process lives: a process that was stopped leaves its last beat."""
    monitor = HeartbeatMonitor([(spool, STORE)])
    process.beat()
    monitor.update(progressed=True)
    lived, worked = monitor.lived, monitor.worked
    monitor.update(progressed=False)
    assert (monitor.lived, monitor.worked) == (lived, worked)
    assert monitor.runs


def test_status_of_a_process_that_was_stopped(spool: Path, process: Process) -> None:
    """The last activity of a stopped process is not shown; after a new beat it is, and without one nothing is."""
    process.beat()
    assert _status._doing(spool, []) == ""
    journal = SimpleNamespace(origin=SimpleNamespace(uri=STORE))
    assert _status._doing(spool, [journal]) == DELIVERING  # type: ignore[list-item]
    os.utime(spool / "heartbeat", (0, time.time() - 60))
    assert "no heartbeat for 6" in _status._doing(spool, [journal])  # type: ignore[list-item]
    process.beat()
    assert _status._doing(spool, [journal]) == DELIVERING  # type: ignore[list-item]
    os.utime(spool / "heartbeat", (0, time.time() - 60))
    process.lock.release()
    assert _status._doing(spool, [journal]) == ""  # type: ignore[list-item]


@pytest.fixture
def other() -> Iterator[subprocess.Popen[bytes]]:
    """A process that computes, and looks like one that delivers."""
    started = subprocess.Popen([sys.executable, "-c", "while True: pass", "trackdsl.delivery"])
    yield started
    started.kill()
    started.wait()


def test_a_process_that_computes_lives_without_a_beat(
    spool: Path, process: Process, other: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that computes in C, without a beat, counts as alive until it is stopped."""
    monkeypatch.setattr(heartbeat_monitor, "_UNSURE", 0.0)
    monkeypatch.setattr(heartbeat_monitor, "EVERY", 0.0)
    monitor = HeartbeatMonitor([(spool, STORE)])
    process.beat(pid=other.pid)
    monitor.update(progressed=True)

    def shows_life() -> bool:
        lived = monitor.lived
        monitor.update(progressed=False)
        return monitor.lived > lived

    for _ in range(3):
        wait_until(shows_life, "processor time")
    other.send_signal(signal.SIGSTOP)
    os.waitid(os.P_PID, other.pid, os.WSTOPPED)
    shows_life()
    assert not any(shows_life() for _ in range(20))


def test_a_process_that_was_started_is_not_started_again(
    spool: Path, other: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that is still starting, as on a busy machine, is not started a second time."""
    started: list[list[str]] = []

    def start(command: list[str], **_: object) -> int:
        started.append(command)
        return other.pid

    monkeypatch.setattr(_origin, "run_detached", start)
    for _ in range(3):
        _client.ensure_running(spool)
    assert len(started) == 1
    monitor = HeartbeatMonitor([(spool, STORE)])
    monitor.update(progressed=False)
    assert (monitor.description(), monitor.prepares, monitor.runs) == ("starting", True, False)
    other.kill()
    other.wait()
    _client.ensure_running(spool)
    assert len(started) == 2


def test_delivery_knows_who_waits(spool: Path) -> None:
    """Delivery knows that a program waits, as long as one does."""
    assert not is_awaited(spool)
    one, two = Waiter([spool]), Waiter([spool])
    one.close()
    assert is_awaited(spool)
    two.close()
    assert not is_awaited(spool)


def test_a_waiter_shows_itself_later_if_its_lock_is_taken(spool: Path) -> None:
    """A waiting program becomes visible later if delivery holds its lock for an instant to look."""
    look = FileLock(spool / "waiters.lock")
    assert look.acquire()
    waiter = Waiter([spool])
    look.release()
    assert not is_awaited(spool)
    waiter.show()
    assert is_awaited(spool)
    waiter.close()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has a priority for each thread")
def test_rounds_have_the_normal_priority_while_a_program_waits() -> None:
    """Rounds have the normal priority while a program waits, and a low one before and after."""
    waits = False
    watched: list[int] = []
    priority = Priority(lambda: waits, lambda: watched.append(threading.get_ident()))

    def niceness() -> tuple[int, bool]:
        return os.getpriority(os.PRIO_PROCESS, threading.get_native_id()), threading.get_ident() in watched

    normal = os.nice(0)
    assert priority.call(niceness) == (max(normal, 5), True)
    priority.lower()
    waits = True
    assert priority.call(niceness) == (normal, False)
    waits = False
    assert priority.call(niceness) == (max(normal, 12), True)
    assert os.nice(0) == normal


def test_an_error_of_a_round_comes_through() -> None:
    """An error in the thread with the low priority reaches the caller, and the thread continues."""
    priority = Priority(lambda: False, list)
    with pytest.raises(ZeroDivisionError):
        priority.call(lambda: 1 / 0)
    assert priority.call(lambda: 1) == 1

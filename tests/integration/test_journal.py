"""The journal across processes: kills, forks, full disks, deleted and unwritable spools."""

from __future__ import annotations

import os
import random
import shutil
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Program, StartProgram, open_files, wait_until
from tests.written_journals import read_with_gaps
from trackdsl import stage
from trackdsl._core import events
from trackdsl.journal import _lock
from trackdsl.journal._lock import FileLock, is_held
from trackdsl.journal._reader import read_all
from trackdsl.journal._replay import replay
from trackdsl.journal._segments import segments
from trackdsl.journal._spool import journals
from trackdsl.journal._store_target import Target
from trackdsl.journal._writer import Writer


def test_a_look_at_a_lock_does_not_hold_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While one thread looks whether a lock is held, another one that looks finds it free, too."""
    path = tmp_path / "lock"
    path.touch()
    release, seen = FileLock.release, []

    def look_before_release(lock: FileLock) -> None:
        monkeypatch.setattr(FileLock, "release", release)
        seen.append(is_held(path))
        release(lock)

    monkeypatch.setattr(FileLock, "release", look_before_release)
    assert (is_held(path), seen) == (False, [False])
    held = FileLock(path)
    assert held.acquire()
    assert is_held(path)
    held.release()


@pytest.mark.parametrize("deleted", ["the lock", "its folder"])
def test_a_look_at_a_lock_does_not_create_it(deleted: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A lock that is deleted while a thread looks at it stays deleted: this shows that a journal was deleted."""
    folder = tmp_path / "journal"
    folder.mkdir()
    (folder / "lock").touch()
    open_file = _lock.open_regular

    def open_after_deletion(path: Path, *arguments: Any) -> int:
        path.unlink()
        if deleted == "its folder":
            folder.rmdir()
            folder.touch()
        return open_file(path, *arguments)

    monkeypatch.setattr(_lock, "open_regular", open_after_deletion)
    assert not is_held(folder / "lock")
    assert not (folder / "lock").exists()


@pytest.mark.parametrize("size", [4096, 256 * 1024])
def test_an_append_is_safe_from_sigkill_when_it_returns(size: int, start: StartProgram, tmp_path: Path) -> None:
    """Killed at a random moment, a program's journal holds everything it had said was logged, and misses nothing."""
    program = start(f"""
        import sys, trackdsl
        from trackdsl.journal._limits import change_limits
        change_limits(first_segment={size}, largest_segment={size})
        with trackdsl.stage("s"):
            n = 0
            while True:
                trackdsl.log_metric("m", n, step=n)
                sys.stdout.write(f"{{n}}\\n")
                n += 1
    """)
    said = [int(program.say()) for _ in range(random.randint(400, 600))]
    program.kill()
    (directory,) = journals(tmp_path / "spool")
    assert read_with_gaps(directory)[1] == []
    steps = [event.step for event in read_all(directory) if isinstance(event, (events.Metric, events.Metrics))]
    assert steps[: max(said) + 1] == list(range(max(said) + 1))
    assert not is_held(directory / "lock")


FULL_DISK = """
    import logging, resource, signal, sys, trackdsl
    logging.basicConfig()
    trackdsl.configure(mode="offline")
    with trackdsl.stage("first") as run:
        run.log_metric("m", 0)
    # No file may grow from here on: what a full disk looks like to a program.
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
    with trackdsl.stage("second") as run:
        for n in range(20_000):
            run.log_metric("m", n, step=n)
        run.log_text("x" * 10_000, "text.txt")
        lost = run.lost
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    with trackdsl.stage("third") as run:
        while True:  # Until the journal has noticed that there is room again.
            before = run.lost
            run.log_metric("probe", 0)
            if run.lost == before:
                break
        for n in range(20_000):
            run.log_metric("m", n, step=n)
    print(lost)
"""


@pytest.mark.slow
def test_a_full_disk_costs_counted_events_and_nothing_else(start: StartProgram, tmp_path: Path) -> None:
    """The program continues, one line says why, the run ends with what is missing counted, and later runs are whole."""
    program: Program = start(FULL_DISK)
    code, out, err = program.finish()
    assert code == 0, err
    assert err.count("cannot write to its spool") == 1
    (directory,) = journals(tmp_path / "spool")
    first, second, third = replay((event, directory) for event in read_all(directory))
    lost = int(out)
    assert lost > 0
    assert (second.lost, second.status) == (lost, "FINISHED")
    assert len(second.metrics["m"]) == 20_000 - lost
    assert "trackdsl.omitted.text.txt" in second.tags
    assert len(third.metrics["m"]) == 20_000
    assert (first.lost, first.status) == (0, "FINISHED")


NO_DESCRIPTORS = """
    import logging, os, resource, trackdsl
    logging.basicConfig()
    with trackdsl.stage("s") as run:
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
        taken = []
        while True:
            try:
                taken.append(os.open(os.devnull, os.O_RDONLY))
            except OSError:
                break
        for n in range(60_000):
            run.log_metric("m", n, step=n)
"""


@pytest.mark.slow
def test_a_program_without_a_free_descriptor_loses_nothing(start: StartProgram, tmp_path: Path) -> None:
    """With every file descriptor taken, events are still recorded, over many segments, and nothing is reported."""
    code, _, err = start(NO_DESCRIPTORS).finish()
    assert (code, err) == (0, "")
    (directory,) = journals(tmp_path / "spool")
    assert len(segments(directory)) > 3
    (run,) = replay((event, directory) for event in read_all(directory))
    assert (len(run.metrics["m"]), run.lost, run.status) == (60_000, 0, "FINISHED")


def test_a_program_that_begins_without_a_free_descriptor(start: StartProgram, tmp_path: Path) -> None:
    """Where not even a journal can be made, the advice is about descriptors, and once one is free the run is known."""
    source = NO_DESCRIPTORS.replace("with trackdsl", "if trackdsl.stage:  # with trackdsl", 1).replace(
        "run.log", "pass  # run.log"
    )
    program = start(
        source
        + """
        with trackdsl.stage("s") as run:
            run.log_metric("lost", 1)
            for descriptor in taken:
                os.close(descriptor)
            run.target._retry_at = 0  # A second later.
            run.log_metric("kept", 1)
        print(run.lost)
    """
    )
    code, out, err = program.finish()
    assert (code, out) == (0, "2\n"), err
    assert "ulimit -n" in err
    assert "Free some space" not in err
    (directory,) = journals(tmp_path / "spool")
    (run,) = replay((event, directory) for event in read_all(directory))
    assert (run.name, set(run.metrics), run.lost, run.status) == ("s", {"kept"}, 2, "FINISHED")


def test_a_forked_child_leaves_the_next_segment_alone(tmp_path: Path) -> None:
    """A child that lets go of an inherited journal closes its own descriptors, and the parent is undisturbed."""
    writer = Writer.create(tmp_path / "j")
    assert open_files(tmp_path)
    pid = os.fork()
    if pid == 0:
        writer.forget()
        writer.append(b"z" * 1000)
        # What is left belongs to the mapping of the segment that the parent writes to.
        os._exit(open_files(tmp_path) != [str(tmp_path / "j" / "000001.seg")])
    assert os.waitpid(pid, 0)[1] == 0
    while len(segments(tmp_path / "j")) < 4:
        writer.append(events.encode(events.Params(b"a" * 16, {"x": "y" * 10_000})))
    writer.close()
    assert writer.lost == 0
    found = read_all(tmp_path / "j")
    assert all(isinstance(event, events.Params) for event in found)
    assert len(found) > 50


def test_an_unwritable_spool_is_replaced(start: StartProgram, tmp_path: Path) -> None:
    """Where the spool cannot be written, events go to the temporary folder, and one line says so."""
    (tmp_path / "file").write_text("in the way")
    program = start(
        """
        import logging, trackdsl
        logging.basicConfig()
        for _ in range(3):
            with trackdsl.stage("s") as run:
                run.log_metric("m", 1)
        """,
        TRACKDSL_SPOOL=str(tmp_path / "file" / "spool"),
        TMPDIR=str(tmp_path),
    )
    code, _, err = program.finish()
    assert (code, err.count("cannot use its spool")) == (0, 1)
    (directory,) = journals(next(tmp_path.glob("trackdsl-*/spool/*")))
    assert len(replay((event, directory) for event in read_all(directory))) == 3


def test_nowhere_to_write_is_counted(start: StartProgram, tmp_path: Path) -> None:
    """If no folder is writable, the program continues and reports at exit how many events were lost."""
    (tmp_path / "file").write_text("in the way")
    program = start(
        """
        import logging, tempfile, trackdsl
        logging.basicConfig()
        tempfile.tempdir = "/dev/null/none"
        with trackdsl.stage("s") as run:
            for n in range(8):
                run.log_metric("m", 1)
        print("continued")
        """,
        TRACKDSL_SPOOL=str(tmp_path / "file" / "spool"),
    )
    code, out, err = program.finish()
    assert (code, out) == (0, "continued\n")
    assert "could not record 10 events" in err


def test_a_forked_child_writes_a_journal_of_its_own(start: StartProgram, tmp_path: Path) -> None:
    """Parent and child log on the same run from two journals; neither touches the other's, and ids never repeat."""
    program = start("""
        import os, trackdsl
        with trackdsl.stage("parent") as run:
            run.log_metric("before", 1)
            pid = os.fork()
            if pid == 0:
                run.log_metric("child", 1)
                with trackdsl.stage("inside"):
                    pass
                os._exit(0)
            os.waitpid(pid, 0)
            run.log_metric("after", 1)
    """)
    code, _, err = program.finish()
    assert code == 0, err
    found = sorted(journals(tmp_path / "spool"))
    assert len(found) == 2
    runs = replay((event, directory) for directory in found for event in read_all(directory))
    parent, inside = runs
    assert set(parent.metrics) == {"before", "child", "after"}
    assert inside.parent is parent
    assert inside.id != parent.id


@pytest.mark.slow
def test_memory_stays_bounded(start: StartProgram) -> None:
    """Two hundred thousand points grow the program by less than 20 MB."""
    program = start("""
        import resource, trackdsl
        with trackdsl.stage("s") as run:
            run.log_metric("m", 0)
            before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            for n in range(200_000):
                run.log_metric("m", n, step=n)
            print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
    """)
    code, out, err = program.finish()
    assert code == 0, err
    assert int(out) < 20_000


def record_points(target: Target, run: bytes, steps: range) -> None:
    for step in steps:
        target.append(events.encode(events.Metric(run, "m", 0.0, step, 0)))


def delete(folder: Path) -> None:
    """Delete a folder, also where git's answer arrives in the middle of that."""
    wait_until(lambda: shutil.rmtree(folder, ignore_errors=True) or not folder.exists(), "the folder to be gone")


def replace_by_copy(journal: Path) -> None:
    """Replace a journal by a copy: the same names, and other files."""
    away = journal.rename(journal.with_name(f".{journal.name}"))
    # A git that is still answering gives its file another name.
    shutil.copytree(away, journal, ignore=shutil.ignore_patterns("*.part"))


DELETIONS: dict[str, Callable[[Path], object]] = {
    "the spool": lambda journal: delete(journal.parent.parent),
    "the folder of journals": lambda journal: delete(journal.parent),
    "the journal": delete,
    "its segments": lambda journal: [path.unlink() for path in journal.glob("*.seg")],
    "its lock": lambda journal: (journal / "lock").unlink(),
    "moved away": lambda journal: journal.rename(journal.with_name(f".{journal.name}")),
    "a copy instead of it": replace_by_copy,
}


@pytest.mark.parametrize("kind", DELETIONS)
@pytest.mark.parametrize("noticed", ["by watch", "at a change of segment"])
def test_a_deleted_journal_is_replaced(
    kind: str, noticed: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever of its journal is deleted, a program notices, says so once, and records on in a new journal."""
    with stage("outer") as outer, stage("closed"):
        pass
    with stage("open", tags={"a": "b"}) as run:
        target = run.target
        assert target.writer is not None
        old = target.writer
        DELETIONS[kind](old.directory)
        if noticed == "by watch":
            target.watch(0)
        else:
            record_points(target, run.key, range(20_000))
        assert target.writer is not old
        run.log_metric("after", 1)
        run.log_text("text", "text.txt")
        new = target.writer.directory
    assert [record.message for record in caplog.records if "was deleted" in record.message] == [
        f"The journal {old.directory} was deleted while this program records to it: what was not delivered by then is "
        "lost. New records go to a new journal."
    ]
    found = {replayed.id: replayed for replayed in replay((event, new) for event in read_all(new))}
    replayed = found[run.id]
    assert {each.status for each in found.values()} == {"FINISHED"}
    assert "when the journal was deleted" in replayed.tags["trackdsl.lost_events"]
    assert replayed.metric("after") == 1
    assert replayed.artifacts["text.txt"].read_text() == "text"
    assert is_held(new / "lock")
    assert outer.id != run.id


def test_a_journal_that_is_deleted_during_a_change_of_segment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder that is gone when a new segment is to get its name is noticed by the next look."""
    with stage("s") as run:
        target = run.target
        old = target.writer
        assert old is not None
        rename = os.rename

        def rename_too_late(source: Any, to: Any) -> None:
            if Path(to).name == "000002.seg":
                old.directory.rename(old.directory.with_name("moved"))
            rename(source, to)

        monkeypatch.setattr(os, "rename", rename_too_late)
        record_points(target, run.key, range(20_000))
        target.check()
        assert target.writer is not old
        run.log_metric("after", 1)
        assert target.writer is not None
        new = target.writer.directory
    (replayed,) = replay((event, new) for event in read_all(new))
    assert replayed.metric("after") == 1
    assert replayed.status == "FINISHED"


def test_threads_that_record_while_the_journal_is_replaced_lose_nothing_more(tmp_path: Path) -> None:
    """What other threads append once a deletion has been noticed is in the new journal, each thread's in its order."""
    with stage("s") as run:
        target = run.target
        assert target.writer is not None
        directory = target.writer.directory
        seen = threading.Event()
        stop = threading.Event()

        def write(thread: int) -> None:
            step = 0
            while not stop.is_set():
                run.log_metric(f"m{thread}", 0, step=step)
                step += 1
                if step == 1000:
                    seen.set()

        threads = [threading.Thread(target=write, args=(n,)) for n in range(4)]
        for thread in threads:
            thread.start()
        wait_until(seen.is_set, "the threads")
        directory.rename(directory.with_name(f".{directory.name}"))
        target.check()
        try:
            # One of the threads may have noticed it first, and be about to make the new one.
            wait_until(lambda: target.writer and target.writer.directory != directory, "the new journal")
            new = target.writer
            wait_until(lambda: new.position()[0] > 3, "some more segments")
        finally:
            stop.set()
            for thread in threads:
                thread.join()
    (replayed,) = replay((event, new.directory) for event in read_all(new.directory))
    for n in range(4):
        steps = [point.step for point in replayed.metrics[f"m{n}"]]
        assert steps == list(range(steps[0], steps[-1] + 1))


def test_runs_that_began_without_a_journal_are_known_once_there_is_one(tmp_path: Path) -> None:
    """Where no journal could be made when a run began, its later events belong to a run as soon as there is one."""
    (tmp_path / "spool").write_text("in the way")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tempfile, "tempdir", "/dev/null/none")
        with stage("s") as run:
            (tmp_path / "spool").unlink()
            run.target._retry_at = 0
            run.log_metric("m", 1)
    assert run.target.writer is not None
    directory = run.target.writer.directory
    (replayed,) = replay((event, directory) for event in read_all(directory))
    assert (replayed.name, replayed.metric("m"), replayed.lost) == ("s", 1, 1)

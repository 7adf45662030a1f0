"""Kill the program, the delivery process and the server, starve them, and count what MLflow holds afterwards."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import (
    Program,
    Server,
    StartProgram,
    all_runs,
    client,
    deliver,
    delivery_pids,
    end_delivery,
    kill_delivery,
    points,
    runs_made,
    sync,
    wait_until,
)
from trackdsl.delivery.program._client import ensure_running
from trackdsl.journal._spool import journals
from trackdsl.store_format.known_runs import read_runs
from trackdsl.store_format.progress import read_progress

#: Opens and closes runs of all kinds for ever, and says what it has done, one line per thing that has returned.
BUSY = """
    import sys, trackdsl

    def say(*parts):
        # Long lines fill the pipe soon, so that a program which nobody listens to does not run away.
        sys.stdout.write(" ".join(map(str, parts)).ljust(400) + "\\n")

    with trackdsl.experiment("busy") as root:
        say("open", root.id)
        n = 0
        while True:
            with trackdsl.stage("s", n=n) as run:
                say("open", run.id)
                run.log_metric("m", n, step=n)
                run.log_metric("m", n, step=n)
                say("metric", run.id, 2)
                run.set_tag("t", n)
                if n % 10 == 0:
                    run.log_text(f"text {n}", "t.txt")
                    say("file", run.id)
            say("close", run.id)
            n += 1
"""


class Reported:
    """What a `BUSY` program reported as done."""

    def __init__(self, lines: list[str]) -> None:
        self.opened: list[str] = []
        self.closed: set[str] = set()
        self.metrics: set[str] = set()
        self.files: set[str] = set()
        for line in lines:
            what, id_, *_ = line.split()
            if what == "open":
                self.opened.append(id_)
            else:
                {"close": self.closed, "metric": self.metrics, "file": self.files}[what].add(id_)


def hear(program: Program, lines: int) -> list[str]:
    return [program.say() for _ in range(lines)]


def check(reported: Reported, ended: str, uri: str | None = None) -> None:
    """Check that MLflow holds everything reported, once, with true statuses; the last action may be missing."""
    runs = all_runs(uri)
    by_id = {run.data.tags["trackdsl.id"]: run for run in runs}
    assert len(by_id) == len(runs), "a run was created twice"
    assert set(reported.opened) <= set(by_id)
    root = by_id[reported.opened[0]]
    mlflow = client(uri)
    for id_ in reported.opened:
        run = by_id[id_]
        if id_ in reported.closed:
            assert run.info.status == "FINISHED"
        assert run is root or run.data.tags["mlflow.parentRunId"] == root.info.run_id
        if id_ in reported.metrics:
            assert run.data.metrics["m"] == float(run.data.params["n"])
    for id_ in list(reported.metrics)[:20]:
        assert len(points(by_id[id_], "m", uri)) == 2
    for id_ in list(reported.files)[:10]:
        assert [f.path for f in mlflow.list_artifacts(by_id[id_].info.run_id)] == ["t.txt"]
    assert root.info.status == ended
    assert {run.info.status for run in runs} <= {"FINISHED", ended}
    assert all(run.info.end_time for run in runs)


@pytest.mark.parametrize(
    ("number", "mode"),
    [
        pytest.param(number, mode, id=f"{number.name}-{mode}", marks=[] if plain else pytest.mark.slow)
        for number, mode, plain in (
            (signal.SIGKILL, "online", False),
            (signal.SIGKILL, "offline", True),
            (signal.SIGTERM, "online", False),
            (signal.SIGTERM, "offline", False),
            (signal.SIGINT, "online", False),
            (signal.SIGINT, "offline", False),
        )
    ],
)
def test_a_killed_program_leaves_the_truth(
    number: signal.Signals, mode: str, start: StartProgram, sqlite_store: str
) -> None:
    """A program that is killed at a random moment leaves every run once, with all it logged; open runs are KILLED."""
    program = start(BUSY, TRACKDSL_MODE=mode)
    lines = hear(program, random.randint(20, 500))
    program.process.send_signal(number)
    _, err = program.process.communicate(timeout=90)
    assert program.process.returncode != 0
    reported = Reported(lines)
    if mode == "offline":
        deliver()
    else:
        done = sync()
        assert done.returncode == 0, done.stderr + err
    check(reported, "KILLED")
    root = next(run for run in all_runs() if run.info.run_name == "busy")
    if number == signal.SIGINT:
        assert root.data.tags["trackdsl.exception.type"] == "KeyboardInterrupt"
    else:
        assert "process died" in root.data.tags["trackdsl.ended"]


@pytest.mark.slow
def test_no_run_of_a_dead_process_stays_running(start: StartProgram, tmp_path: Path, sqlite_store: str) -> None:
    """Without `sync` or another program, the delivery process ends the runs of a program that was killed."""
    program = start(BUSY, TRACKDSL_MODE="online")
    hear(program, 100)
    wait_until(lambda: all_runs(sqlite_store), "the first runs at MLflow")
    assert "RUNNING" in {run.info.status for run in all_runs(sqlite_store)}
    program.kill()
    wait_until(lambda: {run.info.status for run in all_runs(sqlite_store)} == {"FINISHED", "KILLED"}, "the truth")
    wait_until(lambda: not delivery_pids(tmp_path / "spool"), "the delivery process to end")


@pytest.mark.slow
def test_ctrl_c_ends_a_program_as_ever(start: StartProgram, tmp_path: Path) -> None:
    """After Ctrl-C the program dies by the signal, as a shell or Makefile around it expects."""
    program = start(
        """
        import trackdsl
        with trackdsl.stage("s"):
            print("open", flush=True)
            while True:
                pass
        """,
        TRACKDSL_MODE="online",
    )
    assert program.say() == "open"
    assert program.kill(signal.SIGINT) == -signal.SIGINT


@pytest.mark.slow
def test_a_store_that_is_removed_is_made_again(start: StartProgram, tmp_path: Path, sqlite_store: str) -> None:
    """Where the SQLite file is deleted between two programs, the running delivery process continues with a new one."""
    source = "import trackdsl\nwith trackdsl.stage('s') as run: run.log_metric('m', 1)"
    keeper = start("import sys, trackdsl\nwith trackdsl.stage('k'): sys.stdin.readline()", TRACKDSL_MODE="online")
    assert start(source, TRACKDSL_MODE="online").finish()[0] == 0
    wait_until(lambda: len(all_runs(sqlite_store)) == 2, "both runs")
    Path("mlflow.db").unlink()
    code, _, err = start(source, TRACKDSL_MODE="online").finish()
    assert code == 0, err
    wait_until(lambda: Path("mlflow.db").exists(), "the new store")
    wait_until(lambda: {run.info.run_name for run in all_runs()} >= {"s"}, "the run in the new store")
    keeper.resume()
    assert keeper.finish()[0] == 0


@pytest.mark.slow
def test_the_end_of_a_program(start: StartProgram, sqlite_store: str) -> None:
    """Uncaught exceptions, `sys.exit` and `os._exit` each end their runs as they should."""
    ends = {
        "raise ValueError('no password=hunter2')": "FAILED",
        "sys.exit(0)": "FINISHED",
        "sys.exit('bad')": "FAILED",
        "os._exit(0)": "KILLED",
        "raise KeyboardInterrupt": "KILLED",
    }
    for number, how in enumerate(ends):
        start(f"import os, sys, trackdsl\nwith trackdsl.stage('s', n={number}):\n    {how}").finish()
    assert sync().returncode == 0
    runs = {run.data.params["n"]: run for run in all_runs(sqlite_store)}
    assert [runs[str(number)].info.status for number in range(len(ends))] == list(ends.values())
    tags = runs["0"].data.tags
    assert (tags["trackdsl.exception.type"], tags["trackdsl.exception.message"]) == ("ValueError", "no password=***")
    assert "hunter2" not in tags["trackdsl.exception.traceback"]
    assert "Traceback" in tags["trackdsl.exception.traceback"]


@pytest.mark.long
@pytest.mark.slow
def test_a_delivery_process_that_is_killed_again_and_again(
    start: StartProgram, tmp_path: Path, sqlite_store: str
) -> None:
    """SIGKILL at random moments of delivery: nothing is lost, nothing is there twice."""
    program = start(
        """
        import trackdsl
        with trackdsl.experiment("e"):
            for n in range(4000):
                with trackdsl.stage("s", n=n) as run:
                    for step in range(5):
                        run.log_metric("m", 1.0)
                    if n % 500 == 0:
                        run.log_text(str(n), "n.txt")
        """
    )
    code, _, err = program.finish()
    assert code == 0, err
    spool = tmp_path / "spool"
    for _ in range(3):
        kill_delivery(spool, sqlite_store, runs_made(spool) + random.randint(1, 40))
    assert runs_made(spool) < 4000
    done = sync()
    assert done.returncode == 0, done.stderr
    runs = all_runs(sqlite_store)
    assert len(runs) == 4001
    assert {run.info.status for run in runs} == {"FINISHED"}
    assert sorted(int(run.data.params["n"]) for run in runs if run.data.params) == list(range(4000))
    with contextlib.closing(sqlite3.connect("mlflow.db")) as connection:
        counts = connection.execute("SELECT count(*) FROM metrics GROUP BY run_uuid").fetchall()
    assert counts == [(5,)] * 4000
    assert not list(journals(spool))


def size_of(path: Path) -> int:
    """The size of a file; 0 where it has gone since it was seen, as SQLite's journals do."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


@pytest.mark.slow
def test_a_delivery_process_that_is_killed_while_it_makes_the_store(start: StartProgram, tmp_path: Path) -> None:
    """Killed in the middle of making a fresh SQLite file, which takes MLflow seconds, it leaves one that works."""
    assert start("import trackdsl\nwith trackdsl.stage('s'): pass").finish()[0] == 0
    spool = tmp_path / "spool"
    for size in (1, 200_000):
        ensure_running(spool)
        wait_until(lambda: any(size_of(p) >= size for p in Path().glob("mlflow.db*")), "the file")  # noqa: B023
        end_delivery(spool)
    done = sync()
    assert done.returncode == 0, done.stderr
    assert [run.info.run_name for run in all_runs()] == ["s"]
    assert [path.name for path in Path().glob("mlflow.db*")] == ["mlflow.db"]


@pytest.mark.long
@pytest.mark.slow
def test_a_server_that_is_killed_while_it_is_written_to(
    start: StartProgram, own_server: Server, tmp_path: Path
) -> None:
    """The server dies in the middle of delivery and comes back: everything is there, once."""
    own_server.start()
    program = start(
        """
        import sys, trackdsl
        with trackdsl.experiment("e"):
            for n in range(100):
                with trackdsl.stage("s", n=n) as run:
                    run.log_metric("m", n)
                    run.log_metric("m", n)
                    if n % 20 == 0:
                        run.log_text(str(n), "n.txt")
        print("recorded", flush=True)
        sys.stdin.readline()
        """,
        TRACKDSL_MODE="online",
        TRACKDSL_TRACKING_URI=own_server.uri,
    )
    assert program.say() == "recorded"
    (journal,) = journals(tmp_path / "spool")
    wait_until(lambda: len(list(read_runs(journal))) > random.randint(1, 20), "some runs")
    own_server.kill()
    wait_until(lambda: read_progress(journal).blocked_since, "delivery to notice")  # type: ignore[union-attr]
    own_server.start()
    program.kill()
    done = sync()
    assert done.returncode == 0, done.stderr
    runs = all_runs(own_server.uri)
    assert len(runs) == 101
    assert {run.info.status for run in runs} == {"FINISHED"}
    for run in runs[1:30]:
        assert len(points(run, "m", own_server.uri)) == 2
    files = [run for run in runs if client(own_server.uri).list_artifacts(run.info.run_id)]
    assert sorted(int(run.data.params["n"]) for run in files) == list(range(0, 100, 20))


@pytest.fixture
def deaf_port() -> Iterator[int]:
    """A port that accepts connections and never answers."""
    listener = socket.create_server(("127.0.0.1", 0))
    held: list[socket.socket] = []

    def accept() -> None:
        while True:
            try:
                held.append(listener.accept()[0])
            except OSError:
                return

    threading.Thread(target=accept, daemon=True).start()
    yield listener.getsockname()[1]
    listener.close()
    for connection in held:
        connection.close()


@pytest.mark.parametrize("kind", ["closed", pytest.param("deaf", marks=pytest.mark.slow)])
def test_no_server_holds_nobody_up(kind: str, start: StartProgram, deaf_port: int, tmp_path: Path) -> None:
    """With a server that is away or hangs, the program runs and ends as usual, and keeps what it recorded."""
    from tests.conftest import free_port

    port = deaf_port if kind == "deaf" else free_port()
    program = start(
        """
        import time, logging, trackdsl
        logging.basicConfig()
        began = time.perf_counter()
        with trackdsl.experiment("e"):
            for n in range(1000):
                with trackdsl.stage("s", n=n) as run:
                    run.log_metric("m", n)
        print(time.perf_counter() - began)
        """,
        TRACKDSL_MODE="online",
        TRACKDSL_TRACKING_URI=f"http://127.0.0.1:{port}",
    )
    said = program.say()
    code, _, err = program.finish()
    assert code == 0, err
    # That it ended at all is what is shown: MLflow's own client hangs for minutes. The figures are the benchmarks'.
    assert float(said) > 0
    assert err.count("not everything is at MLflow yet") == 1
    (journal,) = journals(tmp_path / "spool")
    end_delivery(tmp_path / "spool")
    assert journal.exists()


@pytest.mark.slow
def test_an_outage_ends_with_everything_delivered(start: StartProgram, own_server: Server, tmp_path: Path) -> None:
    """Recorded while the server was away, delivered by `sync` when it is there."""
    program = start(
        """
        import trackdsl
        with trackdsl.experiment("e"):
            for n in range(20):
                with trackdsl.stage("s", n=n) as run:
                    run.log_metric("m", n)
        """,
        TRACKDSL_MODE="online",
        TRACKDSL_TRACKING_URI=own_server.uri,
    )
    assert program.finish()[0] == 0
    failed = sync()
    assert failed.returncode != 0
    assert str(own_server.port) in failed.stderr
    own_server.start()
    done = sync()
    assert done.returncode == 0, done.stderr
    assert len(all_runs(own_server.uri)) == 21
    assert not list(journals(tmp_path / "spool"))


@pytest.mark.slow
def test_two_stores_do_not_hold_each_other_up(start: StartProgram, sqlite_store: str, tmp_path: Path) -> None:
    """If one of a program's two stores is unavailable, the other one receives its runs at once."""
    from tests.conftest import free_port

    program = start(
        f"""
        import trackdsl
        with trackdsl.experiment("away", tracking_uri="http://127.0.0.1:{free_port()}"):
            with trackdsl.experiment("here", tracking_uri={sqlite_store!r}) as run:
                run.log_metric("m", 1)
            with trackdsl.stage("also away"):
                pass
        """,
        TRACKDSL_MODE="online",
    )
    assert program.finish()[0] == 0
    wait_until(lambda: len(list(journals(tmp_path / "spool"))) == 1, "the end of the store's journal that is there")
    assert len(all_runs(sqlite_store)) == 1
    end_delivery(tmp_path / "spool")


@pytest.mark.slow
def test_a_damaged_record_is_reported_on_the_run(start: StartProgram, tmp_path: Path, sqlite_store: str) -> None:
    """A flipped byte costs one record; the rest arrives, and the run says that something is missing."""
    program = start(
        """
        import trackdsl
        with trackdsl.stage("s") as run:
            for n in range(100):
                run.log_metric("m", n, step=n)
        """
    )
    assert program.finish()[0] == 0
    (journal,) = journals(tmp_path / "spool")
    path = journal / "000001.seg"
    content = bytearray(path.read_bytes())
    content[2000] ^= 1
    path.write_bytes(content)
    done = sync()
    assert (done.returncode, "1 damaged record was skipped" in done.stderr) == (1, True)
    (run,) = all_runs(sqlite_store)
    assert len(points(run, "m", sqlite_store)) == 99
    assert run.data.tags["trackdsl.damaged_records"] == "1"
    assert run.info.status == "FINISHED"


@pytest.mark.slow
def test_lost_events_are_reported_on_the_run(start: StartProgram, sqlite_store: str) -> None:
    """The number of events that a full disk cost is a tag of the run."""
    from tests.integration.test_journal import FULL_DISK

    code, out, err = start(FULL_DISK).finish()
    assert code == 0, err
    done = sync()
    assert (done.returncode, "events could not be recorded" in done.stderr) == (1, True)
    runs = {run.info.run_name: run for run in all_runs(sqlite_store)}
    assert runs["second"].data.tags["trackdsl.lost_events"] == out.strip()
    assert len(points(runs["second"], "m", sqlite_store)) == 20_000 - int(out)
    assert "trackdsl.lost_events" not in runs["first"].data.tags


@pytest.mark.slow
def test_forked_children_end_truthfully(start: StartProgram, sqlite_store: str) -> None:
    """A child that is killed has its run KILLED while the parent continues; both log on the parent's run."""
    program = start("""
        import os, signal, trackdsl
        with trackdsl.experiment("e") as root:
            root.log_metric("parent", 1)
            pid = os.fork()
            if pid == 0:
                root.log_metric("child", 1)
                with trackdsl.stage("killed"):
                    os.kill(os.getpid(), signal.SIGKILL)
            os.waitpid(pid, 0)
            with trackdsl.stage("after"):
                pass
    """)
    code, _, err = program.finish()
    assert code == 0, err
    assert sync().returncode == 0
    runs = {run.info.run_name: run for run in all_runs(sqlite_store)}
    assert {name: run.info.status for name, run in runs.items()} == {
        "e": "FINISHED",
        "killed": "KILLED",
        "after": "FINISHED",
    }
    assert runs["killed"].data.tags["mlflow.parentRunId"] == runs["e"].info.run_id
    assert runs["e"].data.metrics == {"parent": 1.0, "child": 1.0}


@pytest.mark.slow
def test_a_deleted_experiment_waits_for_its_restoration(start: StartProgram, sqlite_store: str) -> None:
    """Runs of an experiment that was deleted are kept, `sync` names the command that helps, and then they arrive."""
    mlflow = client(sqlite_store)
    experiment_id = mlflow.create_experiment("gone")
    mlflow.delete_experiment(experiment_id)
    start("import trackdsl\nwith trackdsl.experiment('gone'): pass").finish()
    failed = sync()
    assert failed.returncode != 0
    assert f"mlflow experiments restore --experiment-id {experiment_id}" in failed.stderr
    mlflow.restore_experiment(experiment_id)
    done = sync()
    assert done.returncode == 0, done.stderr
    assert [run.info.run_name for run in all_runs(sqlite_store)] == ["gone"]


@pytest.mark.slow
def test_a_stopped_delivery_process_is_replaced(start: StartProgram, tmp_path: Path, sqlite_store: str) -> None:
    """Killed while the program runs, the delivery process is started again by the program itself."""
    program = start(
        """
        import sys, trackdsl
        with trackdsl.experiment("e"):
            print("open", flush=True)
            sys.stdin.readline()
        """,
        TRACKDSL_MODE="online",
    )
    assert program.say() == "open"
    spool = tmp_path / "spool"
    wait_until(lambda: delivery_pids(spool), "the delivery process")
    end_delivery(spool)
    assert program.process.poll() is None
    program.resume()
    assert program.finish()[0] == 0
    assert [run.info.status for run in all_runs(sqlite_store)] == ["FINISHED"]


#: Ten thousand points in several segments, in two nested runs.
LONG = """
    import trackdsl
    with trackdsl.experiment("outer"):
        with trackdsl.stage("inner") as run:
            for n in range(15_000):
                run.log_metric("m", n, step=n)
"""


@pytest.mark.slow
def test_a_missing_segment_is_reported(start: StartProgram, tmp_path: Path, sqlite_store: str) -> None:
    """A removed segment fails `sync`, which says what is gone, once; the runs that were open then say it too."""
    assert start(LONG).finish()[0] == 0
    (journal,) = journals(tmp_path / "spool")
    (journal / "000002.seg").unlink()
    assert "segment 2 is missing" in status()
    done = sync()
    assert done.returncode == 1
    assert "segment 2 is missing" in done.stderr
    assert "Everything else is delivered" in done.stdout
    runs = {run.info.run_name: run for run in all_runs(sqlite_store)}
    assert {run.data.tags["trackdsl.missing_segments"] for run in runs.values()} == {"segment 2"}
    assert 5000 < len(points(runs["inner"], "m", sqlite_store)) < 15_000
    assert {run.info.status for run in runs.values()} == {"FINISHED"}
    again = sync()
    assert (again.returncode, again.stderr) == (0, "")


@pytest.mark.long
@pytest.mark.slow
def test_damage_of_every_kind_is_reported_by_sync(start: StartProgram, tmp_path: Path, sqlite_store: str) -> None:
    """Without its first segment, or with one emptied, cut or of another number, `sync` exits with 1 and names it."""
    kinds: dict[str, Callable[[Path], object]] = {
        "segment 1 is missing": lambda journal: (journal / "000001.seg").unlink(),
        "segment 2 is missing": lambda journal: os.truncate(journal / "000002.seg", 0),
        "the end of segment 2 is missing": lambda journal: os.truncate(journal / "000002.seg", 100_000),
        "segment 2 (its file holds segment 1) is missing": lambda journal: shutil.copy(
            journal / "000001.seg", journal / "000002.seg"
        ),
        "segment 3 is missing": lambda journal: (journal / "000003.seg").unlink(),
    }
    for message, damage in kinds.items():
        assert start(LONG).finish()[0] == 0
        (journal,) = journals(tmp_path / "spool")
        damage(journal)
        done = sync()
        assert (done.returncode, message in done.stderr) == (1, True), done.stderr
        assert not list(journals(tmp_path / "spool"))


def status() -> str:
    """What `trackdsl status` prints."""
    command = [sys.executable, "-m", "trackdsl.cli", "status"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


@pytest.mark.slow
@pytest.mark.parametrize("what", ["spool", "journal"])
def test_a_spool_that_is_deleted_while_a_program_records(
    what: str, start: StartProgram, tmp_path: Path, sqlite_store: str
) -> None:
    """The program says what is lost, continues in a new journal, and its runs are at MLflow once, with a tag."""
    program = start(
        """
        import logging, sys, trackdsl
        logging.basicConfig()
        with trackdsl.experiment("e", run_name="outer") as outer:
            outer.log_metric("before", 1)
            trackdsl.flush()
            print(outer.run_id, flush=True)
            sys.stdin.readline()
            print(trackdsl.flush(), flush=True)
            with trackdsl.stage("inner") as inner:
                inner.log_metric("after", 1)
            outer.log_metric("after", 1)
            print(trackdsl.flush(), flush=True)
        """,
        TRACKDSL_MODE="online",
    )
    run_id = program.say()
    spool = tmp_path / "spool"
    (journal,) = journals(spool)
    away = spool if what == "spool" else journal
    away.rename(tmp_path / "away")
    shutil.rmtree(tmp_path / "away", ignore_errors=True)
    program.resume()
    assert (program.say(), program.say()) == ("False", "True")
    code, _, err = program.finish()
    assert code == 0, err
    assert err.count("was deleted while this program records") == 1
    assert "It is kept" not in err
    runs = {run.info.run_name: run for run in all_runs(sqlite_store)}
    assert {name: run.info.status for name, run in runs.items()} == {"outer": "FINISHED", "inner": "FINISHED"}
    assert len(all_runs(sqlite_store)) == 2
    assert runs["outer"].info.run_id == run_id
    assert runs["outer"].data.metrics == {"before": 1.0, "after": 1.0}
    assert "when the journal was deleted" in runs["outer"].data.tags["trackdsl.lost_events"]
    assert "trackdsl.ended" not in runs["outer"].data.tags
    assert runs["inner"].data.tags["mlflow.parentRunId"] == run_id


@pytest.mark.slow
def test_flush_knows_of_a_run_that_was_deleted(start: StartProgram, sqlite_store: str) -> None:
    """What is recorded for a run that was deleted at MLflow is lost: `flush` is False, and one line says so."""
    program = start(
        """
        import logging, sys, trackdsl
        logging.basicConfig()
        with trackdsl.stage("s") as run:
            print(run.run_id, trackdsl.flush(), flush=True)
            sys.stdin.readline()
            run.log_metric("m", 1)
            print(trackdsl.flush(), flush=True)
        with trackdsl.stage("t"):
            pass
        print(trackdsl.flush(), trackdsl.flush(), flush=True)
        """,
        TRACKDSL_MODE="online",
    )
    run_id, flushed = program.say().split()
    assert flushed == "True"
    client(sqlite_store).delete_run(run_id)
    program.resume()
    assert program.say() == "False"
    assert program.say() == "False True"  # The end of that run was refused too.
    code, _, err = program.finish()
    assert (code, err.count("refused by MLflow")) == (0, 2)


@pytest.mark.slow
def test_a_program_without_descriptors_is_delivered_whole(start: StartProgram, sqlite_store: str) -> None:
    """With every file descriptor taken, a program that delivers still records, and ends with all at MLflow."""
    from tests.integration.test_journal import NO_DESCRIPTORS

    code, _, err = start(
        f"{NO_DESCRIPTORS.replace('60_000', '20_000')}\n    print(trackdsl.flush(), flush=True)", TRACKDSL_MODE="online"
    ).finish()
    assert code == 0, err
    assert "Traceback" not in err
    assert "Free some space" not in err
    assert sync().returncode == 0
    (run,) = all_runs(sqlite_store)
    assert len(points(run, "m", sqlite_store)) == 20_000
    assert (run.info.status, "trackdsl.lost_events" in run.data.tags) == ("FINISHED", False)

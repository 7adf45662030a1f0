"""What users can do about records that can never be delivered: `trackdsl drop`, and `trackdsl sync --to`."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.conftest import PATIENCE, StartProgram, all_runs, delivery_pids, free_port, run_command, wait_until
from tests.integration.test_cli import LIVING, TWO_RUNS, journals, record, trackdsl
from tests.memory_store import MemoryStore
from trackdsl.delivery import journal_requests as _requests
from trackdsl.delivery.dropped_runs import dropped_runs
from trackdsl.delivery.process._worker import Worker
from trackdsl.delivery.state._blocked import BlockedRuns
from trackdsl.delivery.state._held_events import HeldEvents
from trackdsl.delivery.state._ledger import journal_ledger
from trackdsl.delivery.state._run_map import DeliveredRun, RunMap
from trackdsl.journal._lock import FileLock, is_held
from trackdsl.journal._origin import read_origin, write_origin
from trackdsl.journal._reader import Reader, read_all
from trackdsl.journal._spool import wake
from trackdsl.store_format.held_events import HeldEvent
from trackdsl.store_format.ledger import NAME
from trackdsl.store_format.progress import Progress, ProgressFile
from trackdsl.store_format.servers import LOCAL, lock_of, server_of

#: Records two runs, and a file; the delivery process still runs when it has ended.
ENDS = """
    from trackdsl import experiment, log_text, stage

    @stage
    def train(): ...

    with experiment("churn"):
        log_text("0123456789", "notes.txt")
        train()
"""


@pytest.fixture
def spool(tmp_path: Path) -> Path:
    """The spool of this test."""
    return tmp_path / "spool"


@pytest.fixture
def dead() -> str:
    """A tracking server that is not there, with a password."""
    return f"http://me:hunter2@127.0.0.1:{free_port()}"


def at_work(start: StartProgram, spool: Path, uri: str) -> int:
    """Let a program end whose delivery process still tries; returns that one's process id."""
    code, _, errors = start(ENDS, TRACKDSL_MODE="online", TRACKDSL_TRACKING_URI=uri).finish()
    assert code == 0, errors
    (pid,) = wait_until(lambda: is_held(spool / "delivery.lock") and delivery_pids(spool)[:1], "the delivery process")
    return int(pid)


class TestDrop:
    """`trackdsl drop`."""

    def test_shows_and_asks(self, start: StartProgram, spool: Path, dead: str) -> None:
        """What is lost is shown before anything happens, without credentials; only a yes removes it."""
        record(start, ENDS, TRACKDSL_TRACKING_URI=dead)
        (journal,) = journals(spool)
        assert journal.name in run_command("status").stdout
        for text, code in (("", 1), ("n\n", 1), ("y\n", 0)):
            assert journal.exists()
            result = run_command("drop", journal.name, answer=text)
            assert result.returncode == code
            for part in (
                journal.name,
                "program_0.py",
                "***@127.0.0.1",
                "5 that are not at MLflow",
                "2: churn, train",
                "1 (10 B)",
            ):
                assert part in result.stdout, result.stdout
            assert "hunter2" not in result.stdout + result.stderr
        assert journals(spool) == []

    @pytest.mark.slow
    def test_names(self, start: StartProgram, spool: Path) -> None:
        """The beginning of a journal's name is enough if it is unique; else nothing is dropped."""
        for _ in range(2):
            record(start, ENDS)
        first, second = journals(spool)
        differs = next(at for at in range(len(first.name)) if first.name[at] != second.name[at])
        common = first.name[:differs]
        ambiguous = run_command("drop", common, "--yes")
        assert ambiguous.returncode == 1
        assert first.name in ambiguous.stderr
        assert second.name in ambiguous.stderr
        for nothing in ("nope", "", "../spool", ".", str(first)):
            assert run_command("drop", nothing, "--yes").returncode == 1
        assert len(journals(spool)) == 2
        result = run_command("drop", second.name[: len(common) + 1], "--yes", "--json")
        assert result.returncode == 0, result.stderr
        answer = json.loads(result.stdout)
        assert (answer["dropped"], answer["journal"], answer["events"]) == (True, second.name, 5)
        assert [(run["name"], run["exists"]) for run in answer["runs"]] == [("churn", False), ("train", False)]
        assert journals(spool) == [first]

    def test_a_living_program_keeps_its_journal(self, start: StartProgram, spool: Path) -> None:
        """The journal of a living program is not dropped, whatever is answered; after it was killed, it is."""
        program = start(LIVING)
        assert program.say() == "recorded"
        (journal,) = journals(spool)
        result = run_command("drop", journal.name, "--yes")
        assert (result.returncode, "it still runs" in result.stderr) == (1, True)
        assert journals(spool) == [journal]
        assert program.process.poll() is None
        program.kill()
        assert trackdsl("drop", journal.name, "--yes").returncode == 0
        assert journals(spool) == []

    @pytest.mark.slow
    def test_damaged(self, start: StartProgram, spool: Path) -> None:
        """A journal that no delivery ever touches can be dropped, and `status` says so."""
        record(start, ENDS)
        (journal,) = journals(spool)
        (journal / "origin").write_bytes(b"00000000\n{}\n")
        assert "trackdsl drop JOURNAL" in run_command("status").stdout
        assert "trackdsl drop JOURNAL" in run_command("sync").stderr
        assert json.loads(run_command("drop", journal.name, "--yes", "--json").stdout)["events"] is None
        assert journals(spool) == []

    def test_runs_that_exist_stay(self, start: StartProgram, spool: Path) -> None:
        """The output says which runs are at MLflow already."""
        record(start, ENDS)
        (journal,) = journals(spool)
        opened = next(event for event in _events(journal) if type(event).__name__ == "Open")
        RunMap(journal_ledger(journal)).add(opened.run, DeliveredRun("m1", "0"))
        assert "1 of these runs" in run_command("drop", journal.name, answer="n\n").stdout
        answer = json.loads(run_command("drop", journal.name, "--yes", "--json").stdout)
        assert [run["exists"] for run in answer["runs"]] == [True, False]

    @pytest.mark.slow
    def test_one_run(self, start: StartProgram, spool: Path, sqlite_store: str) -> None:
        """A run is dropped by its id, or the beginning of that, with those below it; the others are delivered."""
        record(start, ENDS)
        record(start, TWO_RUNS)
        first, second = journals(spool)
        opened = [event for event in _events(first) if type(event).__name__ == "Open"]
        root, child = (event.run.hex() for event in opened)
        shown = run_command("drop", root, answer="n\n")
        assert shown.returncode == 1
        for text in (f"{root} (churn)", "5 that are not at MLflow", "below it   1: train"):
            assert text in shown.stdout
        ambiguous = run_command("drop", root[:8], "--yes")
        assert (ambiguous.returncode, f"run {child} (train)" in ambiguous.stderr) == (1, True)
        answer = json.loads(run_command("drop", child.upper(), "--yes", "--json").stdout)
        assert (answer["dropped"], answer["run"], answer["events"]) == (True, child, 2)
        assert run_command("drop", child, "--yes").returncode == 1
        assert journals(spool) == [first, second]
        assert run_command("drop", next(e.run.hex() for e in _events(second)), "--yes").returncode == 0
        assert run_command("sync").returncode == 0
        assert {run.info.run_name for run in all_runs(sqlite_store)} == {"churn"}

    def test_blocked_runs(self, start: StartProgram, spool: Path) -> None:
        """Events that are blocked count, and may be dropped while their program runs."""
        program = start(LIVING)
        assert program.say() == "recorded"
        (journal,) = journals(spool)
        id_ = next(event.run for event in _events(journal))
        assert "it still runs" in run_command("drop", id_.hex(), "--yes").stderr
        ledger = journal_ledger(journal)
        blocked = BlockedRuns(ledger)
        blocked.add(id_, "living", "the experiment is deleted")
        blocked.save()
        kept = HeldEvents(ledger)
        reader = Reader(journal)
        for entry in reader.read(2, writer_alive=True):
            assert entry.event is not None
            kept.add(HeldEvent(entry.event, entry.end))
        reader.close()
        before = (journal / NAME).read_bytes()
        answer = json.loads(run_command("drop", id_.hex(), "--yes", "--json").stdout)
        assert (answer["dropped"], answer["events"], answer["runs"][0]["name"]) == (True, 2, "living")
        assert (journal / NAME).read_bytes() == before
        assert dropped_runs(journal) == {id_}
        assert program.process.poll() is None

    @pytest.mark.slow
    def test_beside_the_delivery_process(self, start: StartProgram, spool: Path, dead: str) -> None:
        """The process that has the journal open removes it, continues with the others, and ends when none is left."""
        pid = at_work(start, spool, dead)
        at_work(start, spool, dead)
        first, second = journals(spool)
        assert run_command("drop", first.name, "--yes").returncode == 0
        assert journals(spool) == [second]
        assert pid in delivery_pids(spool)
        assert run_command("drop", second.name, "--yes").returncode == 0
        assert journals(spool) == []
        wait_until(lambda: not delivery_pids(spool), "the delivery process to end")
        assert "Traceback" not in (spool / "delivery.log").read_text()

    @pytest.mark.usefixtures("each_kind_of_store")
    def test_a_busy_delivery_process(self, start: StartProgram, spool: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """If no delivery process answers, the request stays, and the next delivery carries it out before sending."""
        record(start, ENDS)
        (journal,) = journals(spool)
        lock = FileLock(spool / "delivery.lock")
        assert lock.acquire()
        _requests.ask_to_drop(journal)
        assert _requests.carry_out_all(spool, [journal], 0.0) == [journal]
        assert journal.exists()
        lock.release()
        store = MemoryStore()
        worker = Worker(spool, lambda _uri, _cwd: store)
        worker.round()
        worker.close()
        assert journals(spool) == []
        assert not store.runs

    @pytest.mark.slow
    @pytest.mark.usefixtures("each_kind_of_store")
    def test_a_journal_that_somebody_removes(self, start: StartProgram, spool: Path) -> None:
        """Delivery lets go of a journal that is removed by hand, and continues with the others."""
        for _ in range(2):
            record(start, ENDS)
        removed, other = journals(spool)
        store = MemoryStore()
        worker = Worker(spool, lambda _uri, _cwd: store)
        assert not worker.idle()
        shutil.rmtree(removed)
        wait_until(lambda: not worker.round() and worker.idle(), "the other journal")
        worker.close()
        assert not other.exists()
        assert not removed.exists()
        assert len(store.runs) == 2


class TestSyncTo:
    """`trackdsl sync --to`."""

    @pytest.mark.slow
    def test_delivers_elsewhere(self, start: StartProgram, spool: Path, dead: str, sqlite_store: str) -> None:
        """Records for a wrong URI go to the given one, which is resolved in the working directory of the command."""
        record(start, TRACKDSL_TRACKING_URI=dead)
        (journal,) = journals(spool)
        blocked = ProgressFile(journal, write=True)
        blocked.write(Progress(blocked_since=1, error="no answer", failures=3))
        blocked.close()
        for command in ("status", "doctor"):
            assert "`trackdsl sync --to URI`" in run_command(command).stdout
        result = run_command("sync", "--to", "sqlite:///mlflow.db")
        assert result.returncode == 0, result.stderr
        assert f"1 journal goes to {sqlite_store} from now on." in result.stdout
        assert "hunter2" not in result.stdout + result.stderr
        assert {run.info.run_name for run in all_runs(sqlite_store)} == {"pipeline", "train"}
        assert journals(spool) == []
        assert "Nothing is waiting" in run_command("sync", "--to", "sqlite:///mlflow.db").stdout

    @pytest.mark.slow
    def test_only_what_was_meant_for_one_store(self, start: StartProgram, spool: Path, dead: str) -> None:
        """`--from` chooses by the recorded address, with or without credentials, or as `status` shows it."""
        other = f"http://127.0.0.1:{free_port()}"
        for uri in (dead, other):
            record(start, ENDS, TRACKDSL_TRACKING_URI=uri)
        first, second = journals(spool)
        new = f"http://127.0.0.1:{free_port()}"
        wrong = run_command("sync", "--to", new, "--from", "http://nowhere")
        assert (wrong.returncode, f"something is for http://***@{dead.partition('@')[2]}" in wrong.stderr) == (1, True)
        for form in (dead, dead.replace("me:hunter2@", ""), dead.replace("me:hunter2", "***")):
            result = run_command("sync", "--to", new, "--from", form, "--timeout", "1")
            assert (result.returncode, "1 journal goes to" in result.stdout) == (1, True)
            assert self.target(first) == new
            assert self.target(second) == other
            self.move(first, dead)

    def test_what_cannot_go_elsewhere(self, start: StartProgram, spool: Path, dead: str) -> None:
        """A living program keeps its store, and so does a journal whose runs exist there; both are named."""
        program = start(LIVING, TRACKDSL_TRACKING_URI=dead)
        assert program.say() == "recorded"
        record(start, ENDS, TRACKDSL_TRACKING_URI=dead)
        living, made = journals(spool)
        opened = next(event for event in _events(made) if type(event).__name__ == "Open")
        RunMap(journal_ledger(made)).add(opened.run, DeliveredRun("m1", "0"))
        result = run_command("sync", "--to", "sqlite:///new.db")
        assert result.returncode == 1
        assert f"(pid {program.pid}), for http://***@" in result.stderr
        assert "it still runs" in result.stderr
        assert "some of its runs exist in that store already" in result.stderr
        assert f"trackdsl drop {made.name}" in result.stderr
        assert self.target(living) == self.target(made) == dead
        assert not Path("new.db").exists()

    def test_relatives_go_together(self, start: StartProgram, spool: Path, dead: str) -> None:
        """The journal of a child process whose parent's journal stays, stays too, as its runs are children there."""
        program = start(
            """
            import multiprocessing, sys
            from trackdsl import experiment, stage

            @stage
            def part(): ...

            if __name__ == "__main__":
                with experiment("e"):
                    child = multiprocessing.get_context("fork").Process(target=part)
                    child.start()
                    child.join()
                    print("recorded", flush=True)
                    sys.stdin.readline()
            """,
            TRACKDSL_TRACKING_URI=dead,
        )
        assert program.say() == "recorded"
        result = run_command("sync", "--to", "sqlite:///new.db")
        assert (result.returncode, "its runs are connected with those of" in result.stderr) == (1, True)
        assert [self.target(journal) for journal in journals(spool)] == [dead, dead]

    @pytest.mark.slow
    def test_beside_the_delivery_process(self, start: StartProgram, spool: Path, dead: str, sqlite_store: str) -> None:
        """The process that waits for the wrong address takes up the right one, without being ended."""
        at_work(start, spool, dead)
        result = run_command("sync", "--to", sqlite_store)
        assert result.returncode == 0, result.stderr
        assert {run.info.run_name for run in all_runs(sqlite_store)} == {"churn", "train"}
        assert journals(spool) == []
        wait_until(lambda: not delivery_pids(spool), "the delivery process to end")

    @pytest.mark.usefixtures("each_kind_of_store")
    def test_the_process_that_delivers_a_journal_moves_it(self, start: StartProgram, spool: Path, dead: str) -> None:
        """The process that delivers a journal carries out a request about it, and no other process beside that one."""
        record(start, ENDS, TRACKDSL_TRACKING_URI=dead)
        (journal,) = journals(spool)
        at_work = FileLock(lock_of(spool, server_of(dead)))
        assert at_work.acquire()
        origin = read_origin(journal)
        assert origin is not None
        _requests.ask_to_move(journal, origin, "sqlite:////new.db")
        parent = Worker(spool, lambda _uri, _cwd: MemoryStore(), server=LOCAL)
        wake(spool)
        parent.round()
        assert _requests.is_pending(journal)
        assert self.target(journal) == dead
        at_work.release()
        wake(spool)
        parent.round()
        assert self.target(journal) == "sqlite:////new.db"
        parent.close()

    def test_a_crash_leaves_a_whole_target(self, start: StartProgram, spool: Path, dead: str) -> None:
        """Whatever is left of a request that was cut short, the journal has its old target or its new one."""
        record(start, ENDS, TRACKDSL_TRACKING_URI=dead)
        (journal,) = journals(spool)
        origin = read_origin(journal)
        assert origin is not None
        _requests.ask_to_move(journal, origin, "sqlite:////new.db")
        whole = (journal / "origin-requested").read_bytes()
        for length in range(0, len(whole), 40):
            (journal / "origin-requested").write_bytes(whole[:length])
            assert _requests.carry_out_all(spool, [journal], PATIENCE) == []
            assert self.target(journal) == dead
            assert not _requests.is_pending(journal)
        (journal / "origin-requested").write_bytes(whole)
        assert _requests.carry_out_all(spool, [journal], PATIENCE) == []
        assert self.target(journal) == "sqlite:////new.db"
        # A run that came to exist since it was asked for makes the request void.
        RunMap(journal_ledger(journal)).add(b"0" * 16, DeliveredRun("m1", "0"))
        _requests.ask_to_move(journal, origin, dead)
        assert _requests.carry_out_all(spool, [journal], PATIENCE) == []
        assert self.target(journal) == "sqlite:////new.db"

    @pytest.mark.slow
    def test_killed_in_the_middle(self, start: StartProgram, spool: Path, dead: str, sqlite_store: str) -> None:
        """A command that is killed while it waits leaves a request that the next `sync` carries out."""
        record(start, ENDS, TRACKDSL_TRACKING_URI=dead)
        (journal,) = journals(spool)
        lock = FileLock(spool / "delivery.lock")
        assert lock.acquire()
        command = subprocess.Popen([sys.executable, "-m", "trackdsl.cli", "sync", "--to", sqlite_store])
        wait_until(lambda: _requests.is_pending(journal), "the request")
        command.send_signal(signal.SIGKILL)
        command.wait()
        lock.release()
        assert run_command("sync").returncode == 0
        assert {run.info.run_name for run in all_runs(sqlite_store)} == {"churn", "train"}

    def test_wrong_options(self) -> None:
        """Options without a meaning are refused before anything is touched."""
        assert "did you mean http://h:5000?" in run_command("sync", "--to", "h:5000").stderr
        assert run_command("sync", "--from", "http://h").returncode == 2
        assert run_command("sync", "--to", "http://h", "--all-hosts").returncode == 2

    def target(self, journal: Path) -> str:
        origin = read_origin(journal)
        assert origin is not None
        return origin.uri

    def move(self, journal: Path, uri: str) -> None:
        origin = read_origin(journal)
        assert origin is not None
        write_origin(journal, msgspec.structs.replace(origin, uri=uri))


def _events(journal: Path) -> list[Any]:
    return list(read_all(journal))

"""Runs that cannot be delivered now: blocked, shown, delivered once later; the rest is delivered meanwhile."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import trackdsl
from tests.conftest import examples
from tests.drawn_faults import faults
from tests.drawn_processes import Machine, Process
from tests.drawn_programs import Delivery, Program, check_delivered, perform, programs
from tests.memory_store import MemoryStore, deliver_to, fail_once
from trackdsl import stage
from trackdsl._core import context as _context
from trackdsl._core import events
from trackdsl.delivery.dropped_runs import drop_run
from trackdsl.delivery.journals import _stretch_size
from trackdsl.delivery.process._worker import Worker
from trackdsl.delivery.store._errors import Denied, Refused, Unavailable
from trackdsl.journal import _origin, _target
from trackdsl.journal._spool import journals
from trackdsl.store_format.blocked_runs import read_blocked
from trackdsl.store_format.call_tag import call_of
from trackdsl.store_format.progress import read_progress


@pytest.fixture(autouse=True)
def no_pauses(no_pauses: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Like the fixture of all tests; also, `git` gives no answer unless the test provides it."""
    monkeypatch.setattr(_origin, "ask_git", lambda directory: None)


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    made = Machine(tmp_path / "spool", MemoryStore())
    yield made
    made.restart()


def rounds(machine: Machine, number: int = 12) -> None:
    for _ in range(number):
        machine.round()


def named(store: MemoryStore) -> dict[str, str]:
    return {run.name: run.status for run in store.runs.values()}


@pytest.mark.usefixtures("each_kind_of_store")
@settings(deadline=None, max_examples=examples(120))
@given(operations=programs(st.tuples(st.just("delete")), st.tuples(st.just("restore"))), at=faults(6))
def test_everything_arrives_once_after_the_restoration(operations: list[Any], at: dict[int, Any]) -> None:
    """Whenever the experiment is deleted and restored, and delivery fails or is killed, all is there once."""
    store = MemoryStore(at)
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(_stretch_size, "_STRETCH", 5)
        delivery = Delivery(Path(folder), store)
        trackdsl.configure(spool=folder)
        program = Program("p", True, {})
        try:
            for operation in operations:
                if operation[0] == "delete":
                    store.deleted = {"e-Default"}
                elif operation[0] == "restore":
                    store.deleted = set()
                else:
                    perform(program, delivery, [operation])
        finally:
            _target.close_all()
            _context.enter(None)
            for number in range(400):
                if number == 20:
                    store.deleted = set()
                delivery.round()
                if not list(journals(delivery.spool)):
                    break
            delivery.restart()
        assert not list((delivery.spool / "journals").glob("*"))
    check_delivered(store, program.expected)


def not_permitted(store: MemoryStore) -> None:
    def before(method: str, *arguments: Any) -> None:
        if (method, *arguments[:1]) == ("experiment", "gone"):
            raise Denied("403")

    store.before = before


def refused(store: MemoryStore) -> None:
    def before(method: str, *arguments: Any) -> None:
        if (method, *arguments[:1]) == ("create_run", "first"):
            raise Refused("not this run")

    store.before = before


def failing(error: Exception, method: str, index: int, text: Any) -> Callable[[MemoryStore], None]:
    def install(store: MemoryStore) -> None:
        def before(called: str, *arguments: Any) -> None:
            if called == method and text in str(arguments[index]):
                raise error

        store.before = before

    return install


def deleted(store: MemoryStore) -> None:
    store.deleted = {"e-gone"}


CAUSES = {
    "deleted": deleted,
    "not permitted": not_permitted,
    "refused": refused,
    "the server fails": failing(Unavailable("500", answered=True), "create_run", 0, "first"),
    "our code fails": failing(ZeroDivisionError("ours"), "create_run", 0, "first"),
    "our code fails over an event": failing(KeyError("ours"), "write", 1, "poison"),
}


@pytest.mark.usefixtures("each_kind_of_store")
@pytest.mark.parametrize("cause", CAUSES)
def test_one_run_holds_up_no_other(cause: str, machine: Machine, caplog: pytest.LogCaptureFixture) -> None:
    """One run, those below it and their later events are blocked, logged once; the rest is delivered."""
    store = machine.store
    CAUSES[cause](store)
    process = Process(machine.spool)

    first = process.prefix + (100).to_bytes(6, "big")
    process.say(events.Open(first, None, "gone", "first", "stage", "first", 0, 1, {"p": 1}, {}, None))
    child = process.open("child", first)
    process.say(events.Tags(first, {"poison": "1"}))
    process.metric(first, "m", 1.0)
    other = process.open("other")
    process.close(other)
    process.close(child)
    rounds(machine)
    assert named(store)["other"] == "FINISHED"
    progress = read_progress(process.directory)
    assert progress is not None
    assert progress.blocked >= 1
    assert progress.deferred
    assert first.hex() in [run.run for run in read_blocked(process.directory)]
    if cause == "our code fails over an event":  # The run itself is there, so what is below it need not wait.
        assert named(store)["child"] == "FINISHED"
    else:
        assert "child" not in named(store)
    later = process.open("later")
    process.metric(first, "m", 1.0)
    process.close(first)
    process.close(later)
    machine.restart()
    rounds(machine)
    assert named(store)["later"] == "FINISHED"
    warnings = [record for record in caplog.records if first.hex() in record.getMessage()]
    assert len(warnings) == 1
    process.die()
    rounds(machine)
    assert process.directory.exists()
    store.before = lambda *_: None
    store.deleted = set()
    rounds(machine)
    assert machine.empty
    held = store.named("first")
    assert (held.status, held.params, held.tags["poison"], len(held.points)) == ("FINISHED", {"p": "1"}, "1", 2)
    assert named(store) == dict.fromkeys(("first", "child", "other", "later"), "FINISHED")
    (run_id,) = (run_id for run_id, run in store.runs.items() if run.name == "first")
    assert store.named("child").tags["mlflow.parentRunId"] == run_id


@pytest.mark.usefixtures("each_kind_of_store")
def test_events_of_a_stretch_that_fails_are_held_once(machine: Machine) -> None:
    """Events of a run that is blocked are held once, though their stretch fails and is read again, and again."""
    store, process = machine.store, Process(machine.spool)
    store.deleted = {"e-gone"}
    run = process.prefix + (100).to_bytes(6, "big")
    process.say(events.Open(run, None, "gone", "gone", "stage", "gone", 0, 1, {}, {}, None))
    fine = process.open("fine")
    rounds(machine, 3)
    failing(Unavailable("away"), "write", 1, "word")(store)
    for step in range(5):
        process.metric(run, "m", 1.0)
        process.say(events.Tags(fine, {"word": str(step)}))
    rounds(machine, 3)
    store.before = lambda *_: None
    rounds(machine, 3)
    progress = read_progress(process.directory)
    assert progress is not None
    assert progress.deferred == 6
    store.deleted = set()
    process.die()
    rounds(machine)
    assert machine.empty
    assert len(store.named("gone").points) == 5
    assert store.named("fine").tags["word"] == "4"


@pytest.mark.usefixtures("each_kind_of_store")
def test_later_events_of_a_blocked_run_wait_behind_earlier_ones(machine: Machine) -> None:
    """A run's later events, recorded before the run is tried again, replace what was held."""
    store, process = machine.store, Process(machine.spool)
    run = process.open("run")
    machine.round()
    failing(ZeroDivisionError("ours"), "write", 1, "poison")(store)
    process.say(events.Tags(run, {"poison": "1", "word": "old"}))
    rounds(machine)
    assert len(read_blocked(process.directory)) == 1
    store.before = lambda *_: None
    process.say(events.Tags(run, {"word": "new"}))
    rounds(machine)
    process.die()
    rounds(machine)
    assert store.named("run").tags["word"] == "new"
    assert machine.empty


@pytest.mark.usefixtures("each_kind_of_store")
def test_an_end_that_is_held_is_an_end(machine: Machine) -> None:
    """A run that ended while it was blocked, before its program died, was not killed."""
    store, process = machine.store, Process(machine.spool)
    run = process.open("run")
    machine.round()
    failing(ZeroDivisionError("ours"), "write", 1, "poison")(store)
    process.say(events.Tags(run, {"poison": "1"}))
    rounds(machine)
    process.close(run)
    process.die()
    rounds(machine)
    store.before = lambda *_: None
    rounds(machine)
    assert machine.empty
    assert (store.named("run").status, "trackdsl.ended" in store.named("run").tags) == ("FINISHED", False)


@pytest.mark.usefixtures("each_kind_of_store")
def test_one_failure_sets_nothing_aside(machine: Machine, caplog: pytest.LogCaptureFixture) -> None:
    """A request that a server answers with an error once is sent again at once, and its run is delivered as usual."""
    store, process = machine.store, Process(machine.spool)
    run = process.open("run")
    machine.round()
    store.before = fail_once("write", error=lambda: Unavailable("500", answered=True))
    process.metric(run, "m", 1.0)
    rounds(machine, 2)
    assert len(store.named("run").points) == 1
    assert "blocked" not in caplog.text
    process.die()


@pytest.mark.usefixtures("each_kind_of_store")
def test_a_dropped_run_of_a_deleted_experiment(machine: Machine) -> None:
    """The end of a dropped run in a deleted experiment cannot be written, and nothing waits for it."""
    store, process = machine.store, Process(machine.spool)
    run = process.open("run")
    machine.round()
    store.deleted = {"e-e"}
    process.metric(run, "m", 1.0)
    rounds(machine)
    drop_run(machine.spool, run)
    machine.restart()
    process.close(run)
    process.die()
    rounds(machine)
    assert machine.empty
    assert store.named("run").status == "RUNNING"


@pytest.mark.usefixtures("each_kind_of_store")
@pytest.mark.parametrize("error", [Denied("403"), Unavailable("500", answered=True), ZeroDivisionError("ours")])
def test_a_store_that_answers_nothing_sets_nothing_aside(error: Exception, machine: Machine) -> None:
    """Where other requests fail too, the store is away: everything waits, and no run is blocked."""
    process = Process(machine.spool)
    process.open("run")

    def before(*_: Any) -> None:
        raise error

    machine.round()
    assert list(named(machine.store)) == ["run"]
    machine.store.before = before
    process.open("second")
    rounds(machine)
    progress = read_progress(process.directory)
    assert progress is not None
    assert (progress.blocked, bool(progress.blocked_since)) == (0, True)
    machine.store.before = lambda *_: None
    rounds(machine)
    assert list(named(machine.store)) == ["run", "second"]


@pytest.mark.usefixtures("each_kind_of_store")
def test_an_experiment_is_deleted_while_runs_are_open(machine: Machine) -> None:
    """What they record then is blocked, and ends them after the restoration, as does their program's death."""
    store, process = machine.store, Process(machine.spool)
    closed, killed, quiet = (process.open(name) for name in ("closed", "killed", "quiet"))
    machine.round()
    store.deleted = {"e-e"}
    for _ in range(3):
        process.metric(closed, "m", 1.0)
        process.metric(killed, "m", 1.0)
        machine.round()
    process.close(closed)
    rounds(machine, 3)
    process.die()
    rounds(machine)
    machine.restart()
    rounds(machine)
    assert {run.name: len(run.points) for run in store.runs.values()} == {"closed": 0, "killed": 0, "quiet": 0}
    assert len(read_blocked(process.directory)) == 3
    store.deleted = set()
    rounds(machine)
    assert named(store) == {"closed": "FINISHED", "killed": "KILLED", "quiet": "KILLED"}
    assert {run.name: len(run.points) for run in store.runs.values()} == {"closed": 3, "killed": 3, "quiet": 0}
    assert machine.empty
    assert quiet


@pytest.mark.slow
@pytest.mark.usefixtures("each_kind_of_store")
def test_a_thousand_runs_of_a_deleted_experiment_ask_once(machine: Machine) -> None:
    """Many runs that are blocked for one cause cost the store one request each time they are tried again."""
    store, process = machine.store, Process(machine.spool)
    store.deleted = {"e-e"}
    for number in range(1000):
        process.close(process.open(f"run{number}"))
    machine.round()
    before = store.calls
    machine.round()
    assert store.calls - before <= 2
    store.deleted = set()
    process.die()
    rounds(machine)
    assert len(store.runs) == 1000
    assert machine.empty


@pytest.mark.slow
@pytest.mark.usefixtures("each_kind_of_store")
@pytest.mark.parametrize("order", [0, 1])
def test_a_child_in_another_process(machine: Machine, order: int) -> None:
    """A forked child's run below one that is blocked waits for it, and does not hold up the child's other runs."""
    store = machine.store
    store.deleted = {"e-gone"}
    parent = Process(machine.spool)
    run = parent.prefix + (100).to_bytes(6, "big")
    prefix = (parent.prefix.hex(),)
    children = [Process(machine.spool, within=prefix, beside=prefix) for _ in range(2)]
    parent.say(events.Open(run, None, "gone", "parent", "stage", "parent", 0, 1, {}, {}, None))
    for number, child in enumerate(children):
        below = child.open(f"below{number}", run)
        child.open(f"grandchild{number}", below)
        child.metric(run, "m", 1.0)
        child.close(child.open(f"own{number}"))
        child.die()
    rounds(machine)
    assert named(store) == {"own0": "FINISHED", "own1": "FINISHED"}
    if order:
        machine.restart()
    parent.die()
    rounds(machine)
    store.deleted = set()
    rounds(machine, 30)
    assert machine.empty
    ids = {held.name: run_id for run_id, held in store.runs.items()}
    for number in range(2):
        assert store.named(f"below{number}").tags["mlflow.parentRunId"] == ids["parent"]
        assert store.named(f"grandchild{number}").tags["mlflow.parentRunId"] == ids[f"below{number}"]
    assert len(store.named("parent").points) == 2


@pytest.mark.usefixtures("each_kind_of_store")
@pytest.mark.parametrize("alive", [True, False])
def test_a_run_is_dropped(machine: Machine, alive: bool) -> None:
    """A dropped run and those below it never reach MLflow, nothing waits for them, and their files are removed."""
    store = machine.store
    store.deleted = {"e-gone"}
    process, worker = Process(machine.spool), None
    run = process.prefix + (100).to_bytes(6, "big")
    process.say(events.Open(run, None, "gone", "dropped", "stage", "dropped", 0, 1, {}, {}, None))
    child = process.open("child", run)
    snapshot = process.directory / "files" / "000001" / "f.txt"
    snapshot.parent.mkdir(parents=True)
    snapshot.write_text("f")
    process.say(events.File(child, "f.txt", "000001/f.txt", False))
    prefix = (process.prefix.hex(),)
    worker = Process(machine.spool, within=prefix, beside=prefix)
    worker.open("below", child)
    kept = process.open("kept")
    rounds(machine)
    assert drop_run(machine.spool, run) == [process.directory, worker.directory]
    assert drop_run(machine.spool, b"x" * 16) == []
    machine.restart()
    process.metric(child, "m", 1.0)
    process.open("later", child)
    process.close(kept)
    rounds(machine)
    assert not snapshot.exists()
    worker.die()
    if not alive:
        process.die()
    store.deleted = set()
    rounds(machine)
    assert list(named(store)) == ["kept"]
    progress = read_progress(process.directory)
    assert (progress is not None and progress.deferred == 0) if alive else machine.empty
    process.die()


@pytest.mark.usefixtures("each_kind_of_store")
def test_a_dropped_run_that_mlflow_has(machine: Machine) -> None:
    """If a dropped run is at MLflow already, the rest is discarded; it ends there with its program if possible."""
    store, process = machine.store, Process(machine.spool)
    run, blocked = process.open("run"), process.open("blocked")
    machine.round()
    failing(KeyError("ours"), "write", 1, "poison")(store)
    process.say(events.Tags(run, {"poison": "1"}))
    process.say(events.Tags(blocked, {"poison": "1"}))
    rounds(machine)
    drop_run(machine.spool, run)
    assert machine.worker is not None
    (machine.spool / "wake").touch()
    process.metric(run, "m", 1.0)
    process.close(run)
    rounds(machine)
    assert named(store) == {"run": "FINISHED", "blocked": "RUNNING"}
    drop_run(machine.spool, blocked)
    process.die()
    machine.restart()
    rounds(machine)
    assert machine.empty
    assert not store.named("run").points
    assert named(store) == {"run": "FINISHED", "blocked": "KILLED"}


@pytest.mark.usefixtures("each_kind_of_store")
def test_what_a_dropped_run_records_later_is_forgotten(machine: Machine) -> None:
    """Later events of a dropped run are discarded, also if MLflow has the run: only its end is written."""
    store, process = machine.store, Process(machine.spool)
    run = process.open("run")
    machine.round()
    failing(KeyError("ours"), "write", 1, "poison")(store)
    process.say(events.Tags(run, {"poison": "1"}))
    rounds(machine)
    drop_run(machine.spool, run)
    machine.restart()
    rounds(machine)
    progress = read_progress(process.directory)
    assert progress is not None
    assert progress.deferred == 0
    process.metric(run, "m", 1.0)
    process.say(events.Tags(run, {"later": "1"}))
    process.close(run)
    process.die()
    rounds(machine)
    assert machine.empty
    held = store.named("run")
    assert (held.status, held.points, "later" in held.tags) == ("FINISHED", set(), False)


@pytest.mark.usefixtures("each_kind_of_store")
@pytest.mark.parametrize("kind", ["file", "table"])
@pytest.mark.parametrize("error", [Unavailable("500", answered=True), ZeroDivisionError("ours")])
def test_an_artifact_that_always_fails(tmp_path: Path, kind: str, error: Exception) -> None:
    """An artifact that always fails is kept and tried again; other runs and artifacts arrive, and its journal stays."""
    store = MemoryStore()

    def before(method: str, *arguments: Any) -> None:
        if method == "write_artifact" and "bad" in arguments[1]:
            raise error

    store.before = before
    with stage("first") as run:
        if kind == "file":
            run.log_text("bad", "bad.txt")
        else:
            trackdsl.log_table({"a": [1]}, "bad.json")
        run.log_text("good", "good.txt")
    with stage("second"):
        pass
    _target.close_all()
    deliver_to(store, tmp_path / "spool", 12)
    assert named(store) == {"first": "FINISHED", "second": "FINISHED"}
    assert store.named("first").files.keys() == {"good.txt"}
    (journal,) = journals(tmp_path / "spool")
    progress = read_progress(journal)
    assert progress is not None
    assert "bad" in progress.error
    store.before = lambda *_: None
    deliver_to(store, tmp_path / "spool")
    assert len(store.named("first").files) == 2
    assert not list(journals(tmp_path / "spool"))


@pytest.mark.usefixtures("each_kind_of_store")
@pytest.mark.parametrize("kind", ["file", "table", "input", "git"])
def test_what_is_refused_for_a_deleted_experiment_is_not_lost(tmp_path: Path, kind: str) -> None:
    """Files that waited, tables, datasets and git's answer wait where the experiment is deleted meanwhile."""
    store, spool = MemoryStore(), tmp_path / "spool"
    with stage("s") as run:
        worker = Worker(spool, store.open)
        worker.round()
        (journal,) = journals(spool)

        def gone(method: str, *arguments: Any) -> None:
            if method in ("write_artifact", "write_input") and store.deleted:
                raise Refused("the run is deleted")
            if method == "write_artifact":
                raise Unavailable("away")

        store.before = gone
        if kind == "file":
            run.log_text("f", "f.txt")
        elif kind == "table":
            trackdsl.log_table({"a": [1]}, "f.json")
        elif kind == "git":
            (journal / "git").write_text("abc\nmain\n\nclean\n")
        if kind in ("file", "table"):
            worker.round()
        store.deleted = {"e-Default"}
        if kind == "input":
            trackdsl.log_input({"a": [1]}, "data")
        for _ in range(5):
            worker.round()
        store.deleted = set()
        store.before = lambda *_: None
        worker.close()
    _target.close_all()
    deliver_to(store, spool)
    held = store.named("s")
    assert {"file": held.files, "table": held.files, "input": held.inputs, "git": "git_dirty" in call_of(held.tags)}[
        kind
    ]
    assert not [tag for tag in held.tags if "refused" in tag or "omitted" in tag]
    assert not list(journals(spool))

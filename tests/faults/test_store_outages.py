"""Journals on their way to a store that fails, refuses and comes back: everything is there in the end, once."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import shutil
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, event, given, settings

import trackdsl
from tests.conftest import ChangeLimits, changed_limits, examples, wait_until
from tests.drawn_faults import faults
from tests.drawn_programs import Delivery, Expected, Program, forked, perform, programs
from tests.integration.test_journal import DELETIONS
from tests.memory_store import Crash, Held, MemoryStore, deliver_to, fail_once
from trackdsl import errors, experiment, stage
from trackdsl._core import context as _context
from trackdsl.delivery.journals import _stretch_size
from trackdsl.delivery.process import _durability
from trackdsl.delivery.process._worker import Worker
from trackdsl.delivery.program import _client, _waiting
from trackdsl.delivery.state._ledger import journal_ledger
from trackdsl.delivery.state._run_map import DeliveredRun, RunMap
from trackdsl.delivery.store._errors import Refused, Unavailable
from trackdsl.delivery.store._sink import GONE
from trackdsl.journal import _format, _origin, _spare_segments, _store_target, _target
from trackdsl.journal._segments import segments
from trackdsl.journal._spool import journals
from trackdsl.journal._writer import Writer
from trackdsl.store_format import losses as _losses
from trackdsl.store_format.known_runs import read_runs
from trackdsl.store_format.ledger import NAME, RUN, frame
from trackdsl.store_format.progress import read_progress


@pytest.fixture
def spool(tmp_path: Path) -> Path:
    return tmp_path / "spool"


@pytest.fixture
def no_pauses(no_pauses: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """As everywhere; besides, git never answers by itself."""
    monkeypatch.setattr(_origin, "ask_git", lambda directory: None)


@pytest.fixture
def biting() -> Iterator[list[bool]]:
    """For each drawn program, whether a run was there when a fault fell; in the end, this must be so for many."""
    found: list[bool] = []
    yield found
    assert sum(found) >= 0.4 * len(found), f"only {sum(found)} of {len(found)} programs had a run before a fault fell"


@pytest.mark.usefixtures("each_kind_of_store", "no_pauses")
@settings(deadline=None, max_examples=examples(150), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(operations=programs(), at=faults(8))
def test_everything_arrives_once(biting: list[bool], operations: list[Any], at: dict[int, Any]) -> None:
    """Whenever the store goes away or delivery is killed, before or after a call took effect, all is there once."""
    store = MemoryStore(at)
    with tempfile.TemporaryDirectory() as folder, changed_limits(first_segment=4096, largest_segment=4096):
        delivery = Delivery(Path(folder), store)
        trackdsl.configure(spool=folder)
        program = Program("p", True, {})
        try:
            perform(program, delivery, operations)
        finally:
            _target.close_all()  # The program dies with what is open.
            _context.enter(None)
            for _ in range(400):
                delivery.round()
                if not list(journals(delivery.spool)):
                    break
            delivery.restart()
        assert not list((delivery.spool / "journals").glob("*"))
    biting.append(any(store.fired))
    event(f"a run before a fault: {any(store.fired)}")
    check(store, program.expected)


def check(store: MemoryStore, expected: dict[str, Expected]) -> None:
    """The store holds what was recorded, once, and no tag reports a loss."""
    assert Counter(run.name for run in store.runs.values()) == Counter(expected.keys())
    ids = {run.name: run_id for run_id, run in store.runs.items()}
    for name, run in expected.items():
        held = store.named(name)
        assert held.params == run.params
        assert Counter((key, value, step) for key, value, _, step in held.points) == run.points
        assert held.files == run.files
        assert held.status == run.status
        assert {key: held.tags.get(key) for key in run.tags} == run.tags
        assert held.tags.get("mlflow.parentRunId") == (ids[run.parent] if run.parent else None)
        kinds = ("refused", "omitted", "lost", "damaged", "missing", "truncated", "parent")
        assert not [tag for tag in held.tags if tag.startswith(tuple(f"trackdsl.{kind}" for kind in kinds))]


@pytest.mark.usefixtures("each_kind_of_store", "no_pauses")
@pytest.mark.parametrize("when", [0, 1])
def test_the_answer_of_git_loses_nothing(spool: Path, when: int) -> None:
    """Where the store goes away while git's late answer is written, the answer and the stretch behind it arrive."""
    store = MemoryStore()
    with stage("first") as run, stage("second"):
        run.log_metric("a", 1)
        (journal,) = journals(spool)
        worker = Worker(spool, store.open)
        worker.round()
        assert len(store.runs) == 2
        (journal / "git").write_text("abc\nmain\n\nclean\n")
        run.log_metric("b", 1)
        store.faults = {store.calls + 1 + when: (Unavailable, False)}
        worker.round()
        assert not any(point[0] == "b" for point in store.named("first").points)
        run.log_metric("c", 1)
        worker.round()
        worker.round()
    worker.close()
    assert {point[0] for point in store.named("first").points} == {"a", "b", "c"}
    assert {run.tags["mlflow.source.git.commit"] for run in store.runs.values()} == {"abc"}


@pytest.mark.usefixtures("no_pauses")
def test_late_events_of_runs_that_have_ended(spool: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ended runs take no memory, and what is recorded for one of them later arrives once, across an outage too."""
    monkeypatch.setattr(MemoryStore, "own_ids", True)
    store = MemoryStore()
    worker = Worker(spool, store.open)
    with stage("root"):
        made = []
        for _ in range(20):
            with stage("step") as run:
                run.log_param("first", 1)
                run.log_metric("a", 1, step=1)
            made.append(run)
        worker.round()
        (stream,) = worker._streams
        assert [run.open for run in stream.runs._runs.values()] == [True]
        made[3].log_metric("a", 1, step=1)
        made[3].log_param("first", 2)
        store.faults = {store.calls + 2: (Unavailable, False)}
        for _ in range(3):
            worker.round()
        assert [run.open for run in stream.runs._runs.values()] == [True]
    worker.close()
    (held,) = (run for run in store.runs.values() if run.tags["trackdsl.id"] == made[3].id)
    assert [point[0] for point in held.points] == ["a", "a"]
    assert (held.params, held.tags["trackdsl.param.later.first"], held.status) == ({"first": "1"}, "2", "FINISHED")


def no_such_experiment(error: type[Exception]) -> Callable[..., None]:
    def before(method: str, *arguments: Any) -> None:
        if (method, *arguments) == ("experiment", "gone"):
            raise error("gone")

    return before


@pytest.mark.usefixtures("each_kind_of_store")
def test_a_journal_that_waits_holds_up_no_other(spool: Path) -> None:
    """A program whose experiment is deleted waits by itself: another one's runs are there at once."""
    for name in ("gone", "fine"):
        with experiment(name):
            pass
        _target.close_all()
    store = MemoryStore()
    store.before = no_such_experiment(Unavailable)
    worker = Worker(spool, store.open)
    for _ in range(3):
        worker.round()
    waiting = next(iter(journals(spool)))
    worker.close()
    assert [run.experiment for run in store.runs.values()] == ["e-fine"]
    progress = read_progress(waiting)
    assert progress is not None
    assert (progress.error, bool(progress.blocked_since)) == ("gone", True)


@pytest.mark.usefixtures("each_kind_of_store", "no_pauses")
def test_what_is_refused_blocks_nothing(spool: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A refused experiment is replaced, refused tags (git's too) are reported, a run's own name tag is its name."""
    store = MemoryStore()

    def before(method: str, *arguments: Any) -> None:
        no_such_experiment(Refused)(method, *arguments)
        if method == "write" and {"bad", "mlflow.source.git.commit"} & set(arguments[1].tags):
            raise Refused("not this tag")

    store.before = before
    worker = Worker(spool, store.open)
    with experiment("gone", tags={"mlflow.runName": "mine"}) as run:
        worker.round()
        (journal,) = journals(spool)
        (journal / "git").write_text("abc\nmain\n\nclean\n")
        run.set_tags({"bad": 1, "good": 2})
        run.log_metric("m", 1)
    for _ in range(2):
        worker.round()
    worker.close()
    held = store.named("mine")
    assert (held.experiment, held.tags["trackdsl.refused.experiment"], held.status) == ("e-Default", "gone", "FINISHED")
    assert (held.tags["good"], held.tags["trackdsl.refused.bad"]) == ("2", "not this tag")
    assert len(held.points) == 1
    assert "'mlflow.source.git.commit' of run" in caplog.text


@pytest.mark.usefixtures("each_kind_of_store", "no_pauses")
def test_children_do_not_wait_for_each_other(spool: Path) -> None:
    """Two forked children that write long journals on a run of their dead parent are both delivered."""

    def child() -> None:
        for step in range(2500):
            run.log_metric(f"m{os.getpid()}", 1, step=step)

    with stage("parent") as run:
        for _ in range(2):
            forked(child)
    _target.close_all()
    store = MemoryStore()
    deliver_to(store, spool)
    assert len(store.named("parent").points) == 2 * 2500
    assert store.named("parent").status == "FINISHED"
    assert not list(journals(spool))


@pytest.mark.usefixtures("each_kind_of_store", "no_pauses")
def test_orphans_are_reported(spool: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Where a parent's journal is lost, its children give up waiting for it and each other, and the log names it."""
    with stage("parent") as run:
        for _ in range(2):
            forked(lambda: [run.log_metric("m", 1, step=step) for step in range(2500)] and None)
        forked(lambda: stage("child").__enter__() and None)
    _target.close_all()
    shutil.rmtree(next(iter(journals(spool))))
    store = MemoryStore()
    with caplog.at_level(logging.WARNING, "trackdsl"):
        deliver_to(store, spool)
    assert caplog.text.count(f"events of the unknown run {run.id}") == 2
    assert not list(journals(spool))
    assert store.named("child").tags["trackdsl.parent.missing"] == run.id


@pytest.mark.usefixtures("each_kind_of_store", "no_pauses")
@pytest.mark.parametrize("fails", [1, 2])
def test_an_older_artifact_never_replaces_a_newer(spool: Path, fails: int) -> None:
    """Where the artifact store is away for the first of two files with one path, the second one is what stays."""
    with stage("s") as run:
        for text in ("old", "newer", "newest"):
            run.log_text(text, "checkpoint.txt")
    _target.close_all()
    store = MemoryStore()
    store.before = fail_once(*["write_artifact"] * fails, error=lambda: Unavailable("busy"))
    deliver_to(store, spool)
    assert store.named("s").files == {"checkpoint.txt": "newest"}
    assert not list(journals(spool))


@pytest.mark.usefixtures("each_kind_of_store", "no_pauses")
@pytest.mark.parametrize("stretch", [5000, 1])
def test_an_older_artifact_is_read_again(spool: Path, stretch: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the first of two files was stored and the second deferred in a stretch that failed, the second one stays.

    Also where the stretch is read again in parts.
    """
    with stage("s") as run:
        for text in ("old", "new"):
            run.log_text(text, "checkpoint.txt")
    _target.close_all()
    store = MemoryStore()
    stored: list[str] = []

    def before(method: str, *_: Any) -> None:
        stored.extend([method] * (method == "write_artifact"))
        if len(stored) == 2:
            stored.append("failed")
            raise Unavailable("busy")
        if stored == ["write_artifact", "write_artifact", "failed"]:
            stored.append("failed")
            raise Unavailable("away")

    store.before = before
    worker = Worker(spool, store.open)
    worker.round()
    assert stored[2:] == ["failed", "failed"]
    monkeypatch.setattr(_stretch_size, "_STRETCH", stretch)
    for _ in range(20):
        worker.round()
    worker.close()
    assert store.named("s").files == {"checkpoint.txt": "new"}
    assert not list(journals(spool))


@pytest.mark.usefixtures("each_kind_of_store", "no_pauses")
def test_killed_before_the_rest_of_a_new_run(spool: Path) -> None:
    """If delivery dies after creating a run, what it writes separately, such as an overlong tag, is written later."""
    with stage("s", tags={"long": "x" * 9000}):
        pass
    _target.close_all()
    store = MemoryStore()
    store.before = fail_once("write_text", error=Crash)
    with pytest.raises(Crash):
        deliver_to(store, spool)
    deliver_to(store, spool)
    assert list(store.named("s").files.values()) == ["x" * 9000]


@pytest.mark.usefixtures("each_kind_of_store", "no_pauses")
def test_the_id_is_ours_and_empty_tags_arrive(spool: Path) -> None:
    """A user's `trackdsl.id` does not keep delivery from finding the run again; an empty tag is stored."""
    with stage("s", tags={"empty": "", "trackdsl.id": "mine"}) as run:
        pass
    _target.close_all()
    store = MemoryStore({3: (Unavailable, True)})  # Opened, experiment, made: but nobody heard of it.
    deliver_to(store, spool)
    held = store.named("s")
    assert (held.tags["trackdsl.id"], held.tags["empty"], held.status) == (run.id, "", "FINISHED")


@pytest.fixture
def nobody_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Online, and no delivery process is started."""
    monkeypatch.setenv("TRACKDSL_MODE", "online")
    monkeypatch.setattr(_client, "_start_process", lambda spool: None)


@pytest.fixture
def outage(spool: Path) -> Iterator[tuple[MemoryStore, Worker]]:
    """A store that is away, and a worker, to be driven by the test."""
    store = MemoryStore()

    def away(*_: Any) -> None:
        raise Unavailable("away")

    store.before = away
    worker = Worker(spool, store.open)
    yield store, worker
    worker.close()


@pytest.mark.usefixtures("each_kind_of_store", "nobody_starts")
def test_flush_after_an_outage(outage: tuple[MemoryStore, Worker], spool: Path) -> None:
    """Once the store is back, `flush` waits for the delivery instead of believing an error that was noted before."""
    store, worker = outage
    done = threading.Event()
    with stage("s") as run:
        run.log_metric("m", 1)
        (journal,) = journals(spool)
        worker.round()
        progress = read_progress(journal)
        assert progress is not None
        assert progress.blocked_since

        def serve() -> None:
            while not done.wait(0.02):
                worker.round()

        store.before = lambda *_: None
        thread = threading.Thread(target=serve)
        thread.start()
        try:
            assert trackdsl.flush()
        finally:
            done.set()
            thread.join()
        assert len(store.named("s").points) == 1


@pytest.mark.usefixtures("each_kind_of_store", "nobody_starts")
def test_flush_while_delivery_tries_again(
    outage: tuple[MemoryStore, Worker], spool: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the first try after an outage is under way, `flush` does not take the old error for a new one."""
    store, worker = outage
    looks: list[Path] = []
    with stage("s"):
        worker.round()

        def look(directory: Path) -> Any:
            looks.append(directory)
            return read_progress(directory)

        def slow(method: str, *_: Any) -> None:
            if method == "create_run":
                already = len(looks)
                wait_until(lambda: len(looks) > already + 3 or not thread.is_alive(), "flush to look")

        store.before = slow
        monkeypatch.setattr(_waiting, "read_progress", look)
        flushed: list[bool] = []
        thread = threading.Thread(target=lambda: flushed.append(trackdsl.flush()))
        thread.start()
        wait_until(lambda: worker.round() or flushed, "the delivery")
        thread.join()
        assert flushed == [True]


@pytest.mark.usefixtures("each_kind_of_store", "nobody_starts")
def test_flush_does_not_wait_for_an_outage(outage: tuple[MemoryStore, Worker], spool: Path) -> None:
    """If the store stays unavailable, `flush` ends as soon as that is noted again, and returns False."""
    _, worker = outage
    done = threading.Event()
    with stage("s"):
        worker.round()

        def serve() -> None:
            while not done.wait(0.02):
                worker.round()

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            assert not trackdsl.flush()
        finally:
            done.set()
            thread.join()


@pytest.mark.usefixtures("each_kind_of_store", "nobody_starts")
@pytest.mark.parametrize("waits_for", ["experiment", "artifacts"])
def test_flush_tries_again_what_is_deferred(spool: Path, waits_for: str) -> None:
    """Runs that were blocked and files that were put off are tried once more before `flush` answers."""
    store = MemoryStore()
    away = waits_for == "artifacts"

    def before(method: str, *_: Any) -> None:
        if away and method == "write_artifact":
            raise Unavailable("busy")

    store.before = before
    store.deleted = {"e-gone"} if waits_for == "experiment" else set()
    worker = Worker(spool, store.open)
    done = threading.Event()
    with experiment("gone") as run:
        run.log_text("text", "f.txt")
        (journal,) = journals(spool)
        worker.round()
        progress = read_progress(journal)
        assert progress is not None
        assert progress.deferred

        def serve() -> None:
            while not done.wait(0.02):
                worker.round()

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            assert not trackdsl.flush()
            away, store.deleted = False, set()
            assert trackdsl.flush()
        finally:
            done.set()
            thread.join()
            worker.close()
        assert store.named("gone").files == {"f.txt": "text"}


@pytest.mark.usefixtures("nobody_starts")
def test_flush_without_a_spool(spool: Path) -> None:
    """Where the spool is deleted, nothing is known to be delivered."""
    with stage("s") as run:
        run.log_metric("m", 1)
        spool.rename(spool.with_name("gone"))
        assert not trackdsl.flush(0.05)


def test_a_torn_note_of_a_run_swallows_no_other(tmp_path: Path) -> None:
    """A note on a run that a power cut tore is passed over, and the next one is read."""
    RunMap(journal_ledger(tmp_path)).add(b"a" * 16, DeliveredRun("r1", "0"))
    with open(tmp_path / NAME, "ab") as file:
        file.write(frame([RUN.change(b"b" * 16, ("r2", "0", "o", True))])[:-1])
    RunMap(journal_ledger(tmp_path)).add(b"c" * 16, DeliveredRun("r3", "0"))
    assert [run.run_id for _, run in read_runs(tmp_path)] == ["r1", "r3"]


def test_every_segment_is_brought_to_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If a program fills several segments between two syncs, all are synced."""
    synced: set[str] = set()
    monkeypatch.setattr(_durability, "_sync", lambda path: synced.add(path.name))
    writer = Writer.create(tmp_path / "journal")
    durability = _durability.Durability(tmp_path)
    durability.sync([writer.directory])
    while len(segments(writer.directory)) < 4:
        writer.append(b"x" * 10_000)
    synced.clear()
    durability.sync([writer.directory])
    assert {f"{number:06d}.seg" for number in segments(writer.directory)} <= synced
    synced.clear()
    durability.sync([writer.directory])
    assert {name for name in synced if name.endswith(".seg")} == {"000004.seg"}
    writer.close()


@pytest.mark.usefixtures("each_kind_of_store")
def test_a_slow_store_delays_no_sync(spool: Path) -> None:
    """Journals are synced while the store keeps the worker waiting."""
    synced = threading.Event()
    store = MemoryStore()
    waits: list[bool] = []
    worker = Worker(spool, store.open)
    before = _durability._sync

    def slow(method: str, *_: Any) -> None:
        if method == "create_run":
            synced.clear()
            waits.append(synced.wait(20))

    store.before = slow
    with stage("s"), pytest.MonkeyPatch.context() as patch:
        patch.setattr(_durability, "_sync", lambda path: (before(path), synced.set()))
        worker.round()
        worker.close()
    assert waits == [True]


@pytest.mark.usefixtures("each_kind_of_store", "no_pauses")
def test_a_request_that_is_carried_out_late(spool: Path) -> None:
    """A run that was given up, not found, created again, and then created by the first request too, is there once."""
    store = MemoryStore()
    asked: list[Any] = []

    def before(method: str, *arguments: Any) -> None:
        if method == "create_run" and not asked:
            asked[:] = arguments
            raise Unavailable("timed out", late=True)
        if method == "end_run":
            store.runs["late"] = Held("e-Default", asked[0], dict(asked[1]))

    store.before = before
    with stage("s") as run:
        run.log_metric("m", 1)
    _target.close_all()
    deliver_to(store, spool)
    assert (store.named("s").status, len(store.named("s").points)) == ("FINISHED", 1)
    assert not list(journals(spool))


@pytest.mark.usefixtures("each_kind_of_store", "no_pauses")
def test_the_answer_of_git_survives_a_restart(spool: Path) -> None:
    """Where delivery is restarted before git has answered, the runs it had made get the answer too."""
    store = MemoryStore()
    with stage("s"):
        worker = Worker(spool, store.open)
        worker.round()
        worker.close()
        (journal,) = journals(spool)
        (journal / "git").write_text("abc\nmain\n\nclean\n")
    _target.close_all()
    deliver_to(store, spool)
    assert store.named("s").tags["mlflow.source.git.commit"] == "abc"


@pytest.mark.usefixtures("each_kind_of_store", "no_pauses")
@pytest.mark.parametrize("kind", [kind for kind in DELETIONS if kind != "a copy instead of it"])
@pytest.mark.parametrize("restarted", [False, True])
def test_a_deleted_journal_leaves_every_run_once(spool: Path, kind: str, restarted: bool) -> None:
    """A journal is deleted in the middle of delivery: resumed runs are there once, and end as they should."""
    store = MemoryStore()
    worker = Worker(spool, store.open)
    with experiment("e", run_name="outer") as outer:
        with stage("before"):
            pass
        with stage("inner") as inner:
            inner.log_metric("a", 1)
            worker.round()
            inner.log_metric("b", 1)
            assert outer.target.writer is not None
            DELETIONS[kind](outer.target.writer.directory)
            for _ in range(3):
                worker.round()
            if restarted:
                worker.close()
                worker = Worker(spool, store.open)
            outer.target.check()
            for _ in range(3):
                worker.round()
            inner.log_metric("c", 1)
            wait_until(lambda: [worker.round()] and store.named("inner").status == "RUNNING", "the run to be resumed")
        with stage("after"):
            pass
    for _ in range(3):
        worker.round()
    worker.close()
    _target.close_all()
    deliver_to(store, spool)
    assert {run.name: run.status for run in store.runs.values()} == dict.fromkeys(
        ("outer", "before", "inner", "after"), "FINISHED"
    )
    assert len(store.runs) == 4
    keys = {point[0] for point in store.named("inner").points}
    assert {"a", "c"} <= keys
    for name in ("outer", "inner"):
        assert "when the journal was deleted" in store.named(name).tags["trackdsl.lost_events"]
        assert "trackdsl.ended" not in store.named(name).tags
    parents = {run.name: run.tags.get("mlflow.parentRunId") for run in store.runs.values()}
    (outer_id,) = (run_id for run_id, run in store.runs.items() if run.name == "outer")
    assert parents == {"outer": None, "before": outer_id, "inner": outer_id, "after": outer_id}


@pytest.mark.usefixtures("each_kind_of_store", "no_pauses")
def test_a_run_whose_end_was_in_a_deleted_journal_is_ended(spool: Path) -> None:
    """A run that ended before its program noticed the deletion does not stay RUNNING for ever."""
    store = MemoryStore()
    worker = Worker(spool, store.open)
    with stage("outer") as outer:
        with stage("lost"):
            worker.round()
            assert outer.target.writer is not None
            journal = outer.target.writer.directory
            journal.rename(journal.with_name(f".{journal.name}"))
            worker.close()
            worker = Worker(spool, store.open)
            shutil.rmtree(journal.with_name(f".{journal.name}"))
        outer.target.check()
        worker.round()
    worker.round()
    worker.close()
    assert store.named("outer").status == "FINISHED"


@pytest.mark.usefixtures("each_kind_of_store", "no_pauses")
@pytest.mark.parametrize("last", ["inner", "outer"])
@pytest.mark.parametrize("what", ["spool", "journal"])
def test_a_run_that_nobody_else_remembers_is_ended(spool: Path, last: str, what: str) -> None:
    """Runs that end after their journal or the whole spool was deleted, and before that is noticed, are ended."""
    store = MemoryStore()
    worker = Worker(spool, store.open)
    with experiment("e", run_name="outer") as outer:
        with stage("inner"):
            worker.round()
            assert {run.status for run in store.runs.values()} == {"RUNNING"}
            assert outer.target.writer is not None
            shutil.rmtree(spool if what == "spool" else outer.target.writer.directory)
            worker.close()
        if last == "inner":
            outer.target.check()
    _target.check_all()
    _target.close_all()
    deliver_to(store, spool)
    assert {run.name: run.status for run in store.runs.values()} == {"outer": "FINISHED", "inner": "FINISHED"}
    assert len(store.runs) == 2
    assert "when the journal was deleted" in store.named("inner").tags["trackdsl.lost_events"]
    (outer_id,) = (run_id for run_id, held in store.runs.items() if held.name == "outer")
    assert store.named("inner").tags["mlflow.parentRunId"] == outer_id
    assert "trackdsl.ended" not in store.named("inner").tags


@pytest.mark.usefixtures("each_kind_of_store", "no_pauses")
def test_runs_that_were_delivered_do_not_come_back(spool: Path) -> None:
    """Where the spool is deleted after all was seen to be in it, no new one is made for runs that had ended."""
    store = MemoryStore()
    with stage("s") as run:
        pass
    deliver_to(store, spool)
    run.target.check()
    shutil.rmtree(spool)
    _target.check_all()
    assert not spool.exists()
    assert store.named("s").status == "FINISHED"


@pytest.mark.usefixtures("each_kind_of_store", "no_pauses")
def test_what_was_delivered_and_removed_is_no_gap_without_the_note(
    spool: Path, change_limits: ChangeLimits, caplog: pytest.LogCaptureFixture
) -> None:
    """Where the note of how far delivery has come is lost, the segments that it removed do not count as missing."""
    change_limits(first_segment=4096, largest_segment=4096)
    store = MemoryStore()
    with stage("s") as run:
        for step in range(3000):
            run.log_metric("m", 1, step=step)
        worker = Worker(spool, store.open)
        for _ in range(3):
            worker.round()
        worker.close()
        (journal,) = journals(spool)
        assert segments(journal)[0] > 1
        (journal / "progress").write_bytes(bytes(_format.PROGRESS_SIZE))
        run.log_metric("m", 1, step=3000)
    _target.close_all()
    deliver_to(store, spool)
    held = store.named("s")
    assert (len(held.points), held.status) == (3001, "FINISHED")
    assert not any("missing" in tag for tag in held.tags)
    assert "is missing" not in caplog.text


@pytest.mark.usefixtures("each_kind_of_store", "no_pauses")
def test_a_gap_is_reported_once_whenever_delivery_dies(spool: Path, change_limits: ChangeLimits) -> None:
    """A missing segment is counted once and tagged on the run, at whatever call to the store delivery is killed."""
    change_limits(first_segment=4096, largest_segment=4096)
    for call in range(1, 12):
        with stage("s") as run:
            for step in range(400):
                run.log_metric("m", 1, step=step)
        _target.close_all()
        (journal,) = journals(spool)
        (journal / "000003.seg").unlink()
        store = MemoryStore({call: (Crash, call % 2 == 0)})
        with contextlib.suppress(Crash):
            deliver_to(store, spool)
        deliver_to(store, spool)
        held = store.named("s")
        assert (held.tags["trackdsl.missing_segments"], held.status) == ("segment 3", "FINISHED")
        assert 0 < len(held.points) < 400
        assert _losses.read(spool)[journal.name].missing == ("segment 3",)


@contextlib.contextmanager
def served(worker: Worker) -> Iterator[None]:
    """Deliver from a thread."""
    done = threading.Event()

    def serve() -> None:
        while not done.wait(0.01):
            worker.round()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
        worker.close()


@pytest.mark.usefixtures("nobody_starts", "no_pauses")
class TestFlushAfterLoss:
    """`flush` is False once where something is lost, says what in one warning, and is True again afterwards."""

    def check(self, caplog: pytest.LogCaptureFixture, expected: str) -> None:
        assert not trackdsl.flush()
        (said,) = [record.message for record in caplog.records if "is lost:" in record.message]
        assert expected in said
        with stage("again"):
            pass
        assert trackdsl.flush()

    @pytest.mark.usefixtures("each_kind_of_store")
    def test_a_full_disk(self, spool: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
        """Events that the journal had no room for."""

        def full(*_: Any) -> Any:
            raise OSError(errno.ENOSPC, "No space left on device")

        with served(Worker(spool, MemoryStore().open)), stage("s") as run:
            with monkeypatch.context() as patch:
                patch.setattr(_spare_segments, "allocate", full)
                while not run.lost:
                    run.log_metric("m", 1)
            run.target.writer._retry_at = 0  # type: ignore[union-attr]
            self.check(caplog, "1 event could not be recorded")

    @pytest.mark.usefixtures("each_kind_of_store")
    def test_no_journal(self, spool: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
        """Events that were recorded while no journal could be made at all."""
        with monkeypatch.context() as patch:
            patch.setattr(_store_target, "find_spool", no_spool)
            with stage("s") as run:
                run.log_metric("m", 1)
            assert not trackdsl.flush()
            assert trackdsl.flush()  # Nothing was recorded since.
        caplog.clear()
        errors.forget_reported()
        with monkeypatch.context() as patch, stage("s") as run:
            run.target._retry_at = 0
            patch.setattr(_store_target, "find_spool", no_spool)
            run.log_metric("m", 1)
        run.target._retry_at = 0
        with served(Worker(spool, MemoryStore().open)):
            self.check(caplog, "events could not be recorded")

    @pytest.mark.usefixtures("each_kind_of_store")
    def test_a_deleted_run(self, spool: Path, caplog: pytest.LogCaptureFixture) -> None:
        """What was recorded for a run that was deleted at the store, which refuses it."""
        store = MemoryStore()
        with served(Worker(spool, store.open)):
            with stage("s") as run:
                assert trackdsl.flush()
                (run_id,) = store.runs
                store.before = refuse_all_of(store, run_id)
                run.log_metric("m", 1)
                assert not trackdsl.flush()
            assert not trackdsl.flush()  # Its end was refused too.
            caplog.clear()
            assert trackdsl.flush()

    @pytest.mark.usefixtures("each_kind_of_store")
    def test_a_damaged_record(self, spool: Path, caplog: pytest.LogCaptureFixture) -> None:
        """A record that was damaged before it was delivered."""
        with stage("s") as run:
            run.log_metric("m", 1)
            run.log_metric("m", 2)
            (journal,) = journals(spool)
            with open(journal / "000001.seg", "r+b") as file:
                content = file.read()
                file.seek(content.rindex(b"\xa1m"))
                file.write(b"\xa1x")
            run.log_metric("m", 3)
            with served(Worker(spool, MemoryStore().open)):
                self.check(caplog, "1 damaged record was skipped")

    @pytest.mark.usefixtures("each_kind_of_store")
    def test_a_deleted_journal(self, spool: Path, caplog: pytest.LogCaptureFixture) -> None:
        """What was not delivered when the journal was deleted."""
        with stage("s") as run:
            run.log_metric("m", 1)
            (journal,) = journals(spool)
            journal.rename(spool / "away")
            with served(Worker(spool, MemoryStore().open)):
                self.check(caplog, journal.name)


def no_spool() -> Path:
    raise OSError(errno.EROFS, "Read-only file system")


def refuse_all_of(store: MemoryStore, run_id: str) -> Callable[..., None]:
    """Let a store behave as MLflow does towards a run that was deleted."""

    def before(method: str, *arguments: Any) -> None:
        if run_id in arguments[:1] and method in ("write", "end_run"):
            store.runs[run_id].status = GONE
            raise Refused("the run is deleted")

    return before


@pytest.mark.usefixtures("each_kind_of_store", "no_pauses")
@pytest.mark.parametrize("done", [False, True])
def test_what_was_refused_is_reported_whenever_delivery_dies(spool: Path, done: bool) -> None:
    """A file that the store refuses is named in a tag of its run, at whatever call delivery is killed."""

    def refuse(method: str, *arguments: Any) -> None:
        if method == "write_artifact" and arguments[1] == "bad.txt":
            raise Refused("no")

    calls = 1
    while True:
        with stage("s") as run:
            run.log_text("x", "bad.txt")
            run.log_text("y", "good.txt")
            run.log_metric("m", 1)
        _target.close_all()
        store = MemoryStore({calls: (Crash, done)})
        store.before = refuse
        with contextlib.suppress(Crash):
            deliver_to(store, spool)
        deliver_to(store, spool)
        held = store.named("s")
        assert (held.tags.get("trackdsl.omitted.bad.txt"), held.files) == (
            "MLflow refused it: no",
            {"good.txt": "y"},
        ), calls
        if store.calls < calls:
            return
        calls += 1

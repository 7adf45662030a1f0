"""Journals on their way to a store that fails, refuses and comes back: everything is there in the end, once."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, event, given, settings

import trackdsl
from tests.conftest import examples
from tests.delivery_settings import changed_limits
from tests.drawn_faults import faults
from tests.drawn_programs import Delivery, Program, check_delivered, forked, perform, programs
from tests.memory_store import Crash, Held, MemoryStore, deliver_to, fail_once
from trackdsl import experiment, stage
from trackdsl._core import context as _context
from trackdsl.delivery.journals import _stretch_size
from trackdsl.delivery.process._worker import Worker
from trackdsl.delivery.store._errors import Refused, Unavailable
from trackdsl.journal import _target
from trackdsl.journal._spool import journals
from trackdsl.store_format.progress import read_progress


@pytest.fixture
def biting() -> Iterator[list[bool]]:
    """For each drawn program, whether a run was there when a fault fell; in the end, this must be so for many."""
    found: list[bool] = []
    yield found
    assert sum(found) >= 0.4 * len(found), f"only {sum(found)} of {len(found)} programs had a run before a fault fell"


@pytest.mark.usefixtures("each_kind_of_store", "git_never_answers")
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
    check_delivered(store, program.expected)


@pytest.mark.usefixtures("each_kind_of_store", "git_never_answers")
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


@pytest.mark.usefixtures("git_never_answers")
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


@pytest.mark.usefixtures("each_kind_of_store", "git_never_answers")
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


@pytest.mark.usefixtures("each_kind_of_store", "git_never_answers")
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


@pytest.mark.usefixtures("each_kind_of_store", "git_never_answers")
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


@pytest.mark.usefixtures("each_kind_of_store", "git_never_answers")
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


@pytest.mark.usefixtures("each_kind_of_store", "git_never_answers")
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


@pytest.mark.usefixtures("each_kind_of_store", "git_never_answers")
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


@pytest.mark.usefixtures("each_kind_of_store", "git_never_answers")
def test_the_id_is_ours_and_empty_tags_arrive(spool: Path) -> None:
    """A user's `trackdsl.id` does not keep delivery from finding the run again; an empty tag is stored."""
    with stage("s", tags={"empty": "", "trackdsl.id": "mine"}) as run:
        pass
    _target.close_all()
    store = MemoryStore({3: (Unavailable, True)})  # Opened, experiment, made: but nobody heard of it.
    deliver_to(store, spool)
    held = store.named("s")
    assert (held.tags["trackdsl.id"], held.tags["empty"], held.status) == (run.id, "", "FINISHED")


@pytest.mark.usefixtures("each_kind_of_store", "git_never_answers")
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


@pytest.mark.usefixtures("each_kind_of_store", "git_never_answers")
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


@pytest.mark.usefixtures("each_kind_of_store", "git_never_answers")
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

"""What delivery makes of resumed runs, in a store in memory: through every kill, outage and refusal."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests import drawn_processes
from tests.conftest import wait_until
from tests.delivery_settings import ChangeTiming
from tests.drawn_processes import Machine, Process
from tests.memory_store import Crash, Held, MemoryStore
from trackdsl._core import events
from trackdsl.delivery.runs import _continued
from trackdsl.delivery.store._errors import Refused, Unavailable

MakeMachine = Callable[[str, MemoryStore], Machine]


def rounds(*machines: Machine, number: int = 20) -> None:
    for _ in range(number):
        for machine in machines:
            machine.round()


def only(store: MemoryStore) -> Held:
    (run,) = store.runs.values()
    return run


def resumptions(run: Held) -> list[dict[str, Any]]:
    return _continued.resumed(run.tags)


@pytest.mark.usefixtures("each_kind_of_store", "no_pauses")
@pytest.mark.parametrize("named", ["ours", "MLflow's"])
def test_killed_run_is_resumed(machines: MakeMachine, named: str) -> None:
    """A run whose program was killed is RUNNING again while another one resumes it, and FINISHED in the end."""
    store = MemoryStore()
    machine = machines("one", store)
    first = Process(machine.spool)
    run = first.open("train", lr=0.1)
    first.metric(run, "loss", 2.0, 0)
    first.die()
    rounds(machine)
    assert (only(store).status, "trackdsl.ended" in only(store).tags) == ("KILLED", True)

    second = Process(machine.spool)
    again = second.resume(run if named == "ours" else next(iter(store.runs)), lr=0.1, epochs=3)
    second.metric(again, "loss", 1.0, 1)
    rounds(machine)
    held = only(store)
    assert (held.status, "trackdsl.ended" in held.tags) == ("RUNNING", False)
    second.close(again)
    second.die()
    rounds(machine)
    assert held.status == "FINISHED"
    assert held.params == {"lr": "0.1", "epochs": "3"}
    assert not any(key.startswith("trackdsl.param.later") for key in held.tags)
    assert sorted((key, value, step) for key, value, _, step in held.points) == [("loss", 1.0, 1), ("loss", 2.0, 0)]
    assert held.tags["trackdsl.id"] == run.hex()
    assert "trackdsl.experiment" not in held.tags
    (entry,) = resumptions(held)
    assert (entry["before"], entry["id"]) == ("KILLED", again.hex())
    assert machine.empty


@pytest.mark.usefixtures("each_kind_of_store")
@pytest.mark.parametrize("away", [False, True])
def test_a_killed_run_ends_at_the_last_sign_of_life(
    machines: MakeMachine, away: bool, change_timing: ChangeTiming
) -> None:
    """A killed run ends when its program was last seen alive, not at its last event; also where the store is away."""
    change_timing(git_answer=0.0, first_retry=0.2, longest_retry=0.2)
    store = MemoryStore({1: (Unavailable, False)} if away else {})
    machine = machines("one", store)
    process = Process(machine.spool)
    process.open("train")
    machine.round()
    last_look = time.time_ns()
    machine.round()
    process.die()
    dead = time.time_ns()
    wait_until(lambda: not machine.round() and machine.empty, "the death to be found")
    assert last_look // 1_000_000 <= only(store).end <= dead // 1_000_000


@pytest.mark.usefixtures("each_kind_of_store", "no_pauses")
def test_killed_again(machines: MakeMachine) -> None:
    """A resumed run that was killed once more is KILLED, and can be resumed again: each time is noted."""
    store = MemoryStore()
    machine = machines("one", store)
    process = Process(machine.spool)
    run = process.open("train")
    for _ in range(3):
        process.die()
        rounds(machine)
        assert only(store).status == "KILLED"
        process = Process(machine.spool)
        again = process.resume(run)
        rounds(machine)
        assert only(store).status == "RUNNING"
    process.close(again)
    process.die()
    rounds(machine)
    assert only(store).status == "FINISHED"
    assert [entry["number"] for entry in resumptions(only(store))] == [1, 2, 3]


@pytest.mark.usefixtures("each_kind_of_store", "no_pauses")
def test_other_value_of_a_parameter(machines: MakeMachine) -> None:
    """A parameter with another value than before does not count: the first one is kept, and a tag has the later."""
    store = MemoryStore()
    machine = machines("one", store)
    first, second = Process(machine.spool), Process(machine.spool)
    run = first.open("train", lr=0.1)
    first.close(run)
    second.close(second.resume(run, lr=0.2))
    rounds(machine)
    assert only(store).params == {"lr": "0.1"}
    assert only(store).tags["trackdsl.param.later.lr"] == "0.2"


@pytest.mark.usefixtures("each_kind_of_store", "no_pauses")
def test_tags_of_the_earlier_end_go(machines: MakeMachine) -> None:
    """The exception that a run failed with is no more among its tags once it is resumed, but among its earlier ends."""
    store = MemoryStore()
    machine = machines("one", store)
    first, second = Process(machine.spool), Process(machine.spool)
    run = first.open("train")
    first.say(events.Close(run, "FAILED", 1, events.Failure("ValueError", "bad", "Traceback …")))
    rounds(machine)
    assert only(store).tags["trackdsl.exception.type"] == "ValueError"
    second.close(second.resume(run))
    rounds(machine)
    assert only(store).status == "FINISHED"
    assert not any(key.startswith("trackdsl.exception") for key in only(store).tags)
    (entry,) = resumptions(only(store))
    assert (entry["before"], entry["error"]) == ("FAILED", "ValueError: bad")


@pytest.mark.usefixtures("each_kind_of_store", "no_pauses")
def test_children_of_a_continued_run(machines: MakeMachine) -> None:
    """What is opened in a resumed run is its child, also where a worker on another machine opens it."""
    store = MemoryStore()
    here, there = machines("one", store), machines("two", store)
    first, second = Process(here.spool), Process(here.spool)
    run = first.open("train")
    first.close(run)
    rounds(here)
    (run_id,) = store.runs
    again = second.resume(run_id)
    second.close(second.open("epoch", again))
    worker = Process(there.spool, (second.prefix.hex(),))
    handle = worker.prefix + bytes(6)
    worker.say(events.Adopt(handle, run.hex(), ""))
    worker.metric(handle, "m", 1.0)
    worker.close(worker.open("shard", handle))
    rounds(here, there)
    assert {store.named(name).tags["mlflow.parentRunId"] for name in ("epoch", "shard")} == {run_id}
    assert len(store.runs[run_id].points) == 1
    assert store.runs[run_id].status == "RUNNING"


@pytest.mark.usefixtures("each_kind_of_store", "no_pauses")
def test_plain_run_gets_our_id(machines: MakeMachine) -> None:
    """A run that plain MLflow began gets our tags when it is resumed here, and keeps its own and its experiment."""
    store = MemoryStore()
    machine = machines("one", store)
    store.runs["abc"] = Held("e-theirs", "plain", {"mlflow.user": "someone"}, status="KILLED")
    process = Process(machine.spool)
    again = process.resume("abc")
    process.close(again)
    rounds(machine)
    held = store.runs["abc"]
    assert (held.status, held.tags["mlflow.user"], held.tags["trackdsl.id"]) == ("FINISHED", "someone", again.hex())
    assert (held.experiment, held.tags["trackdsl.experiment"]) == ("e-theirs", "e")


@pytest.mark.usefixtures("each_kind_of_store", "no_pauses")
@pytest.mark.parametrize("kind", ["LOCAL", "PROJECT"])
def test_run_that_was_made_for_it(machines: MakeMachine, caplog: pytest.LogCaptureFixture, kind: str) -> None:
    """A run that `mlflow run` made for the program is not reported as another's; any other run is."""
    store = MemoryStore()
    machine = machines("one", store)
    store.runs["abc"] = Held("e-theirs", "plain", {"mlflow.source.type": kind})
    process = Process(machine.spool)
    process.close(process.resume("abc"))
    rounds(machine)
    assert store.runs["abc"].status == "FINISHED"
    messages = [record.message for record in caplog.records if "abc" in record.message]
    assert [any(part in line for line in messages) for part in ("still RUNNING", "own MLflow experiment 'theirs'")] == (
        [kind == "LOCAL"] * 2
    )


@pytest.mark.usefixtures("each_kind_of_store", "no_pauses")
def test_deleted_run_waits(machines: MakeMachine, caplog: pytest.LogCaptureFixture) -> None:
    """What resumes a deleted run is blocked, with both ids and what to do, and delivered once it is restored."""
    store = MemoryStore()
    machine = machines("one", store)
    store.runs["abc"] = Held("e-e", "plain", {"trackdsl.id": "77" * 16}, status="FINISHED", deleted=True)
    process = Process(machine.spool)
    again = process.resume("abc", lr=1)
    process.metric(again, "m", 1.0)
    process.close(again, "FAILED")
    process.close(process.open("another"))
    rounds(machine)
    (message,) = [record.message for record in caplog.records if "blocked" in record.message]
    assert all(part in message for part in ("abc", "77" * 16, again.hex(), "mlflow runs restore", "trackdsl drop"))
    assert store.named("another").status == "FINISHED"
    store.runs["abc"].deleted = False
    rounds(machine)
    assert (store.runs["abc"].status, store.runs["abc"].params) == ("FAILED", {"lr": "1"})
    assert len(store.runs["abc"].points) == 1


@pytest.mark.usefixtures("each_kind_of_store", "no_pauses")
def test_run_that_is_not_there_yet(machines: MakeMachine, caplog: pytest.LogCaptureFixture) -> None:
    """What resumes a run that another machine has not delivered is blocked, with its children, until it is."""
    store = MemoryStore()
    here, there = machines("one", store), machines("two", store)
    first, second = Process(there.spool), Process(here.spool)
    run = first.open("train", lr=0.1)
    first.metric(run, "loss", 2.0, 0)
    first.die()
    again = second.resume(run, lr=0.1)
    second.metric(again, "loss", 1.0, 1)
    second.close(second.open("epoch", again))
    second.close(again)
    second.die()
    rounds(here)
    assert not store.runs
    (message,) = [r.message for r in caplog.records if "blocked" in r.message and "no run" in r.message]
    assert run.hex() in message
    assert again.hex() in message
    rounds(there)
    rounds(here)
    train = store.named("train")
    assert (train.status, len(train.points)) == ("FINISHED", 2)
    assert store.named("epoch").tags["mlflow.parentRunId"] in store.runs
    assert here.empty
    assert there.empty


@pytest.mark.usefixtures("each_kind_of_store", "no_pauses")
def test_late_end_of_an_earlier_program(machines: MakeMachine) -> None:
    """A machine that was cut off brings the values that it had, but ends no run that was resumed elsewhere since."""
    store = MemoryStore()
    here, there = machines("one", store), machines("two", store)
    first, second, third = Process(there.spool), Process(here.spool), Process(here.spool)
    run, other = first.open("train"), first.open("other")
    rounds(there)
    first.metric(run, "loss", 2.0, 0)
    first.close(run, "FAILED")
    again = second.resume(run)
    second.resume(other)
    rounds(here)
    first.die()
    rounds(there)
    assert there.empty
    assert (store.named("train").status, len(store.named("train").points)) == ("RUNNING", 1)
    assert store.named("other").status == "RUNNING"
    second.close(again)
    third.die()
    rounds(here)
    assert store.named("train").status == "FINISHED"


@pytest.mark.usefixtures("each_kind_of_store", "no_pauses")
def test_two_at_once(machines: MakeMachine, caplog: pytest.LogCaptureFixture) -> None:
    """Two programs that resume a run at the same time lose no point, are named, and the later end counts."""
    store = MemoryStore()
    machine = machines("one", store)
    first = Process(machine.spool)
    run = first.open("train")
    rounds(machine)
    second = Process(machine.spool)
    again = second.resume(run)
    rounds(machine)
    assert resumptions(only(store))[0]["before"] == "RUNNING"
    assert any("still RUNNING" in record.message for record in caplog.records)
    for _ in range(3):
        for process, id_ in ((first, run), (second, again)):
            process.metric(id_, "m", 1.0)
            rounds(machine, number=2)
    assert len(only(store).points) == 6
    second.close(again)
    rounds(machine)
    assert only(store).status == "FINISHED"
    first.close(run, "FAILED")
    rounds(machine)
    assert only(store).status == "FAILED"


@pytest.mark.usefixtures("each_kind_of_store", "no_pauses")
@pytest.mark.parametrize("kind", [Crash, Unavailable])
@pytest.mark.parametrize("done", [False, True])
@pytest.mark.parametrize("each", [4, pytest.param(1, marks=pytest.mark.slow)], ids=["some", "every"])
def test_killed_at_every_call(tmp_path: Path, kind: type[BaseException], done: bool, each: int) -> None:
    """Wherever delivery is killed or cut off, a run is resumed once, with every point once, and ends as it did."""
    number = 0
    while True:
        number += each
        store = MemoryStore({number: (kind, done)})
        machine = Machine(tmp_path / f"{number}", store)
        first, second, third = (Process(machine.spool) for _ in range(3))
        run = first.open("train", lr=0.1)
        first.metric(run, "loss", 3.0, 0)
        first.die()
        again = second.resume(run, lr=0.1)
        second.metric(again, "loss", 2.0, 1)
        second.say(events.Close(again, "FAILED", 2, events.Failure("ValueError", "bad", "Traceback …")))
        second.die()
        once_more = third.resume(run)
        third.metric(once_more, "loss", 1.0, 2)
        third.close(once_more)
        third.die()
        for _ in range(40):
            machine.round()
            if machine.empty:
                break
        machine.restart()
        held = only(store)
        assert (held.status, held.params, len(held.points)) == ("FINISHED", {"lr": "0.1"}, 3), number
        assert [entry["id"] for entry in resumptions(held)] == [again.hex(), once_more.hex()], number
        assert "trackdsl.exception.type" not in held.tags, number
        assert "trackdsl.ended" not in held.tags, number
        assert machine.empty, number
        if store.calls < number:
            break
    assert number > 20


@pytest.mark.usefixtures("each_kind_of_store", "no_pauses")
def test_order_within_a_millisecond(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two programs resume a run within a millisecond: the later one ends it, whichever is delivered first."""
    now = itertools.count(time.time_ns() // 1_000_000 * 1_000_000)
    monkeypatch.setattr(drawn_processes, "time", SimpleNamespace(time_ns=lambda: next(now)))
    for order in itertools.permutations((0, 1)):
        store = MemoryStore()
        store.runs["abc"] = Held("e-e", "plain", {}, status="FINISHED")
        machines = [Machine(tmp_path / f"{order}{number}", store) for number in range(2)]
        earlier, later = (Process(machine.spool) for machine in machines)
        ids = []
        for process, status in ((earlier, "FAILED"), (later, "FINISHED")):
            ids.append(process.resume("abc"))
            process.close(ids[-1], status)
            process.die()
        for number in order:
            rounds(machines[number])
            assert machines[number].empty
            machines[number].restart()
        held = store.runs["abc"]
        assert [entry["id"] for entry in resumptions(held)] == [id_.hex() for id_ in ids], order
        assert held.status == "FINISHED", order


@pytest.mark.usefixtures("each_kind_of_store", "no_pauses")
def test_refusal_while_it_is_taken_up(machines: MakeMachine) -> None:
    """A store that refuses to resume a run has it blocked, and the rest is delivered."""
    store = MemoryStore()
    machine = machines("one", store)
    store.runs["abc"] = Held("e-e", "plain", {}, status="FINISHED")
    refuse = True

    def before(method: str, *_: Any) -> None:
        if method == "reopen_run" and refuse:
            raise Refused("no")

    store.before = before
    process = Process(machine.spool)
    process.close(process.resume("abc"), "FAILED")
    process.close(process.open("another"))
    rounds(machine)
    assert (store.runs["abc"].status, store.named("another").status) == ("FINISHED", "FINISHED")
    refuse = False
    rounds(machine)
    assert store.runs["abc"].status == "FAILED"

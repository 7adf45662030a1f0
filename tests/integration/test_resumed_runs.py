"""Resumed runs: by id, by handle, by `MLFLOW_RUN_ID`, no matter who began them, through every kill and outage."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import mlflow
import pytest

import trackdsl
from tests import drawn_processes
from tests.conftest import ChangeTiming, StartProgram, all_runs, deliver, points, sync, wait_until
from tests.drawn_processes import Machine, Process
from tests.memory_store import Crash, Held, MemoryStore
from trackdsl import experiment, stage, start_logging, stop_logging
from trackdsl._core import events
from trackdsl.delivery.runs import _continued
from trackdsl.delivery.store._errors import Refused, Unavailable
from trackdsl.store_format.call_tag import call_of
from trackdsl.testing import capture_runs

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


# --- what delivery makes of it, in a store in memory


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
    (message,) = [record.message for record in caplog.records if "set aside" in record.message]
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
    (message,) = [r.message for r in caplog.records if "set aside" in r.message and "no run" in r.message]
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


# --- from programs, at real stores


def run_named(name: str, uri: str | None = None) -> Any:
    (found,) = [run for run in all_runs(uri) if run.info.run_name == name]
    return found


@pytest.mark.parametrize(
    "way", ["experiment", "stage", "session", "decorator", "handle", "MLflow's", "best", "row", "MLFLOW_RUN_ID"]
)
def test_every_way_to_resume_a_run(sqlite_store: str, way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every way to name a run resumes it, at SQLite: one run, its points in a row, its name and experiment kept."""
    with experiment("churn", run_name="first") as first:
        first.log_params({"lr": 0.1})
        first.log_metric("loss", 2.0, 0)
    deliver()
    (before,) = all_runs()
    _resume_by(way, before.info.run_id, first, monkeypatch)
    assert "MLFLOW_RUN_ID" not in os.environ
    deliver()
    after = run_named("first")
    assert after.info.run_id == before.info.run_id
    assert after.info.experiment_id == before.info.experiment_id
    assert after.info.status == "FINISHED"
    assert after.info.end_time >= before.info.end_time
    assert points(after, "loss") == [(0, 2.0), (1, 1.0)]
    assert (after.data.params["lr"], after.data.params["epochs"]) == ("0.1", "5")
    (child,) = [run for run in all_runs() if run.info.run_name == "epoch"]
    assert child.data.tags["mlflow.parentRunId"] == before.info.run_id


def _resume_by(way: str, run_id: str, first: trackdsl.Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def train() -> None:
        trackdsl.log_params({"epochs": 5, "lr": 0.1})
        trackdsl.log_metric("loss", 1.0, 1)
        with stage("epoch"):
            pass

    match way:
        case "experiment":
            with experiment("churn", run_id=run_id):
                train()
        case "stage":
            with stage("again", run_id=first.id):
                train()
        case "session":
            start_logging("again", config={"run_id": run_id})
            train()
            stop_logging()
        case "decorator":
            experiment("churn", run_id=run_id)(train)()
        case "MLflow's" | "best" | "row":
            found = {
                "MLflow's": lambda: mlflow.MlflowClient().get_run(run_id),
                "best": lambda: trackdsl.best("churn", "loss"),
                "row": lambda: trackdsl.runs("churn").iloc[0],
            }
            with experiment(run_id=found[way]()):
                train()
        case "handle":
            with experiment(run_id=first) as again:
                assert again.id == first.id
                train()
        case _:
            monkeypatch.setenv("MLFLOW_RUN_ID", run_id)
            with experiment("churn"):
                train()


@pytest.mark.parametrize("named", ["ours", "MLflow's"])
def test_handle_of_a_resumed_run(sqlite_store: str, named: str) -> None:
    """Its handle and its id lead to the whole run wherever a run is asked for, also in a later program."""
    with experiment("churn", run_name="first") as first:
        trackdsl.log_metric("loss", 2.0, 0)
    deliver()
    (before,) = all_runs()
    with experiment(run_id=first.id if named == "ours" else before.info.run_id, system_metrics=5.0) as again:
        trackdsl.log_metric("loss", 1.0, 1)
        again.log_dict({"a": 1}, "a.json")
        assert again.target.writer is not None
        sampled = (again.target.writer.directory / "sampled").read_text()
    assert sampled.split()[:2] == ["o", again.key.hex()]  # The id that it has in this journal.
    deliver()
    assert trackdsl.load_artifact(again.id, "a.json") == {"a": 1}
    for run in (again, again.id):
        assert trackdsl.history(run, "loss")["value"].tolist() == [2.0, 1.0]
        assert "first" in str(trackdsl.tree(run))
        with experiment(run_id=run):
            pass
    deliver()
    (after,) = all_runs()
    assert (after.info.run_id, after.info.status) == (before.info.run_id, "FINISHED")


def test_it_is_running_meanwhile(sqlite_store: str) -> None:
    """A run that FAILED is RUNNING while it is resumed, then FINISHED at a later time, and has no exception left."""
    with pytest.raises(ValueError, match="bad"), experiment(run_name="train"):
        raise ValueError("bad")
    deliver()
    failed = run_named("train")
    assert failed.info.status == "FAILED"
    with experiment(run_id=failed.info.run_id):
        deliver()  # It ends the journal, so the run counts as that of a program that died.
        assert run_named("train").info.status == "KILLED"
    with experiment(run_id=failed.info.run_id):
        pass
    deliver()
    finished = run_named("train")
    assert finished.info.status == "FINISHED"
    assert finished.info.end_time > failed.info.end_time
    assert not any(key.startswith(("trackdsl.exception", "trackdsl.ended")) for key in finished.data.tags)


_KILLED = """
    import os, signal, sys
    from trackdsl import experiment, log_metric
    with experiment("spot", run_name="train") as run:
        for step in range(3):
            log_metric("loss", 10.0 - step, step)
        print(run.id, flush=True)
        sys.stdin.readline()
"""
_REQUEUED = """
    import sys
    from trackdsl import experiment, log_metric, log_params, steps
    with experiment("spot") as run:
        log_params({"epochs": 6})
        for step in range(3, 6):
            log_metric("loss", 10.0 - step, step)
        print("recorded", flush=True)
        if len(sys.argv) > 1:
            sys.stdin.readline()
"""


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["sqlite", "file", "server"])
def test_requeued_job(start: StartProgram, request: pytest.FixtureRequest, tmp_path: Path, kind: str) -> None:
    """A job that is killed and requeued with `MLFLOW_RUN_ID`, twice, is one run with all its points, FINISHED."""
    environment = {"TRACKDSL_MODE": "online"}
    uri = (tmp_path / "mlruns").as_uri()
    if kind != "file":
        uri = (
            request.getfixturevalue("sqlite_store")
            if kind == "sqlite"
            else request.getfixturevalue("shared_server").uri
        )
    environment |= {"MLFLOW_TRACKING_URI": uri, "MLFLOW_ALLOW_FILE_STORE": "true"}
    if kind == "file":
        os.environ["MLFLOW_ALLOW_FILE_STORE"] = "true"  # `private` takes it away again.
    first = start(_KILLED, **environment)
    id_ = first.say()
    run_id = wait_until(lambda: [r.info.run_id for r in all_runs(uri) if r.data.tags.get("trackdsl.id") == id_], "it")[
        0
    ]
    first.kill()
    second = start(_REQUEUED, "wait", MLFLOW_RUN_ID=run_id, **environment)
    assert second.say() == "recorded"
    client = mlflow.MlflowClient(uri)
    wait_until(lambda: client.get_run(run_id).info.status == "RUNNING", "the run to be resumed")
    second.kill()
    wait_until(lambda: client.get_run(run_id).info.status == "KILLED", "the death to be found")
    third = start(_REQUEUED, MLFLOW_RUN_ID=run_id, **environment)
    assert third.finish()[0] == 0
    found = client.get_run(run_id)
    assert (found.info.status, found.data.params) == ("FINISHED", {"epochs": "6"})
    assert sorted(point.step for point in client.get_metric_history(run_id, "loss")) == [0, 1, 2, 3, 3, 4, 4, 5, 5]


@pytest.mark.slow
def test_run_of_an_mlflow_project(start: StartProgram, sqlite_store: str, tmp_path: Path) -> None:
    """The run that `mlflow run` has made is the one that the program records to, and MLflow's parameters stay."""
    project = tmp_path / "project"
    project.mkdir()
    (project / "MLproject").write_text(
        "name: p\nentry_points:\n  main:\n    parameters: {lr: {type: float, default: 0.1}}\n"
        "    command: 'python train.py {lr}'\n"
    )
    (project / "train.py").write_text(
        "import sys\nfrom trackdsl import experiment, log_metric\n"
        "@experiment\ndef train(lr: float):\n    log_metric('loss', 1.0)\ntrain(float(sys.argv[1]))\n"
        "@experiment\ndef after(): pass\nafter()\n"
    )
    program = start(
        f"import mlflow\nmlflow.set_tracking_uri({sqlite_store!r})\n"
        f"print(mlflow.projects.run({str(project)!r}, env_manager='local').run_id)",
        TRACKDSL_MODE="online",
    )
    code, out, err = program.finish()
    assert code == 0, err
    run_id = out.split()[-1]
    found = mlflow.MlflowClient(sqlite_store).get_run(run_id)
    assert (found.info.status, found.data.params, found.data.metrics) == ("FINISHED", {"lr": "0.1"}, {"loss": 1.0})
    assert len([run for run in all_runs() if run.info.run_name == "after"]) == 1
    assert len(all_runs()) == 2


@pytest.mark.slow
def test_missing_run_is_reported_at_the_end(start: StartProgram, sqlite_store: str) -> None:
    """A program that is to resume a missing run runs on, and ends with a line that names both ids."""
    program = start(
        """
        from trackdsl import experiment
        with experiment(run_id="0123456789abcdef0123456789abcdef") as run:
            print(run.key.hex())
            run.log_metric("m", 1)
        """,
        TRACKDSL_MODE="online",
    )
    code, out, err = program.finish()
    assert code == 0
    assert "0123456789abcdef0123456789abcdef" in err
    assert out.strip() in err
    assert not all_runs()


def test_run_that_is_open_here(sqlite_store: str, caplog: pytest.LogCaptureFixture) -> None:
    """Resuming a run that is open in the same program joins it: said once, and it ends where it was begun."""
    with experiment(run_name="train") as run:
        for _ in range(2):
            with stage("again", run_id=run.id, lr=0.1) as again:
                assert again is run
                trackdsl.log_metric("m", 1.0)
        with pytest.raises(ValueError, match="bad"), stage(run_id=run):
            raise ValueError("bad")
        trackdsl.log_metric("m", 2.0)
    deliver()
    (found,) = all_runs()
    assert (found.info.status, found.data.params) == ("FINISHED", {"lr": "0.1"})
    assert len(points(found, "m")) == 3
    assert len([record for record in caplog.records if "open in this program already" in record.message]) == 1


def test_open_run_of_plain_mlflow(sqlite_store: str) -> None:
    """Resuming a run that plain MLflow has open joins it, and MLflow ends it."""
    mlflow.set_tracking_uri(sqlite_store)
    with mlflow.start_run() as active:
        with stage("again", run_id=active.info.run_id):
            trackdsl.log_metric("m", 1.0)
        assert mlflow.active_run() is not None
    deliver()
    (found,) = all_runs()
    assert (found.info.status, found.data.metrics) == ("FINISHED", {"m": 1.0})


@pytest.mark.slow
def test_workers_of_a_continued_run(start: StartProgram, sqlite_store: str) -> None:
    """Forked children and workers of a resumed run write to it, and the stages in them are its children."""
    with experiment(run_name="train") as run:
        pass
    deliver()
    program = start(
        """
        import multiprocessing, sys
        from concurrent.futures import ProcessPoolExecutor
        from trackdsl import experiment, log_metric, stage

        def work(number):
            log_metric("m", number)
            with stage("shard"):
                pass

        if __name__ == "__main__":
            with experiment(run_id=sys.argv[1]):
                fork = multiprocessing.get_context("fork")
                child = fork.Process(target=work, args=(1,))
                child.start(); child.join()
                with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
                    list(pool.map(work, [2, 3]))
        """,
        run.id,
        TRACKDSL_MODE="online",
    )
    code, _, err = program.finish()
    assert code == 0, err
    sync(TRACKDSL_MODE="online")
    found = run_named("train")
    assert sorted(value for _, value in points(found, "m")) == [1.0, 2.0, 3.0]
    shards = [run for run in all_runs() if run.info.run_name == "shard"]
    assert [run.data.tags["mlflow.parentRunId"] for run in shards] == [found.info.run_id] * 3
    assert found.info.status == "FINISHED"


@pytest.mark.parametrize(
    "make",
    [
        lambda: experiment(run_id=5),
        lambda: stage("s", run_id="no id/at all"),
        lambda: stage("s", run_id=""),
        lambda: stage("s", nested=False, run_id="abc"),
        lambda: start_logging("s", config={"run_id": 1.5}),
    ],
)
def test_misuse(make: Callable[[], object]) -> None:
    """What names no run is refused at once, with what to give instead."""
    with pytest.raises(trackdsl.TrackdslError, match="run"):
        make()


def test_captured() -> None:
    """`capture_runs` shows a resumed run as one run."""
    with capture_runs() as captured:
        with experiment(run_name="train") as run:
            run.log_param("lr", 0.1)
        with experiment(run_id=run, tags={"a": "b"}):
            trackdsl.log_params({"lr": 0.2, "epochs": 3})
    (found,) = captured.runs
    assert (found.status, found.tags["a"], found.params["epochs"]) == ("FINISHED", "b", 3)


def test_last_run_is_resumed(sqlite_store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The handle of a program's newest root resumes it, as often as one likes; a handle of no run does nothing."""
    with experiment(run_name="train"), stage("epoch"):
        pass
    for _ in range(2):
        with experiment(run_id=trackdsl.last()), stage("epoch"):
            trackdsl.log_metric("m", 1.0)
    deliver()
    (root,) = [run for run in all_runs() if run.info.run_name == "train"]
    epochs = [run for run in all_runs() if run.info.run_name == "epoch"]
    assert [call_of(run.data.tags)["index"] for run in epochs] == [0, 1, 2]
    assert {run.data.tags["mlflow.parentRunId"] for run in epochs} == {root.info.run_id}
    monkeypatch.setenv("TRACKDSL_MODE", "disabled")
    trackdsl.configure()
    with experiment(run_id=trackdsl.last()) as run:
        run.log_metric("m", 1.0)


@pytest.mark.parametrize("kind", ["sqlite", "file", pytest.param("server", marks=pytest.mark.slow)])
def test_session_with_a_run_that_is_gone(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """A session begins with no run that is deleted, or not there: an error names its ids and what to do."""
    monkeypatch.setenv("TRACKDSL_MODE", "online")
    monkeypatch.setenv("TRACKDSL_DELIVERY", "thread")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    uri = (tmp_path / "mlruns").as_uri()
    if kind != "file":
        uri = (
            request.getfixturevalue("sqlite_store")
            if kind == "sqlite"
            else request.getfixturevalue("shared_server").uri
        )
    client = mlflow.MlflowClient(uri)
    run = client.create_run("0", tags={"trackdsl.id": "77" * 16})
    client.set_terminated(run.info.run_id)

    def begin(run_id: str) -> None:
        start_logging("again", config={"run_id": run_id, "tracking_uri": uri})

    begin(run.info.run_id)
    stop_logging()
    assert trackdsl.flush(60)
    client.delete_run(run.info.run_id)
    with pytest.raises(trackdsl.RunNotFound, match=f"{run.info.run_id}.*{'77' * 16}.*mlflow runs restore"):
        begin(run.info.run_id)
    with pytest.raises(trackdsl.RunNotFound, match="no run 0123456789abcdef0123456789abcdef"):
        begin("0123456789abcdef0123456789abcdef")
    assert trackdsl.current_run() is None


def test_another_run_inside_a_run(sqlite_store: str) -> None:
    """A run that is resumed inside another one is itself, by its handle too, and keeps the parent that it had."""
    with experiment(run_name="first") as first:
        pass
    with experiment(run_name="outer"):
        with stage("again", run_id=first):
            trackdsl.log_metric("m", 1.0)
        trackdsl.log_metric("n", 1.0)
    deliver()
    assert (run_named("first").data.metrics, run_named("outer").data.metrics) == ({"m": 1.0}, {"n": 1.0})
    assert "mlflow.parentRunId" not in run_named("first").data.tags


_RANK = """
    import os, sys
    from trackdsl import experiment, log_metric
    with experiment("e", run_id=sys.argv[1] if len(sys.argv) > 1 else None, ranks=os.environ["RANKS"]):
        log_metric("rank", int(os.environ["RANK"]))
"""
_LAUNCH = {"WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": "29511", "TORCHELASTIC_RUN_ID": "x"}


@pytest.mark.slow
@pytest.mark.parametrize("ranks", ["children", "separate"])
def test_ranks_of_a_run_that_is_named(start: StartProgram, sqlite_store: str, ranks: str) -> None:
    """Ranks that are all to resume one run are its children; where each has its own, it is that of the first."""
    with experiment(run_name="train") as run:
        pass
    deliver()
    (before,) = all_runs()
    # As the argument of all of them in the first case, as a variable that all inherit in the second.
    named = {"MLFLOW_RUN_ID": before.info.run_id} if ranks == "separate" else {}
    arguments = [run.id] if ranks == "children" else []
    for program in [
        start(_RANK, *arguments, RANK=str(rank), RANKS=ranks, **named, **_LAUNCH) for rank in (0, 1)
    ]:  # fmt: skip
        code, _, err = program.finish()
        assert code == 0, err
    deliver()
    train = run_named("train")
    others = [each for each in all_runs() if each.info.run_id != train.info.run_id]
    assert {each.info.status for each in [train, *others]} == {"FINISHED"}
    if ranks == "children":
        assert train.data.metrics == {}
        assert sorted(each.data.metrics["rank"] for each in others) == [0.0, 1.0]
        assert {each.data.tags["mlflow.parentRunId"] for each in others} == {train.info.run_id}
    else:
        (other,) = others
        assert (train.data.metrics, other.data.metrics) == ({"rank": 0.0}, {"rank": 1.0})
        assert "mlflow.parentRunId" not in other.data.tags


@pytest.mark.slow
def test_separate_ranks_that_name_their_runs(start: StartProgram, sqlite_store: str) -> None:
    """Separate ranks of which each names a run of its own resume those."""
    ids = []
    for rank in range(2):
        with experiment(run_name=f"train-{rank}") as run:
            ids.append(run.id)
    deliver()
    for rank, program in enumerate(
        start(_RANK, ids[rank], RANK=str(rank), RANKS="separate", **_LAUNCH) for rank in (0, 1)
    ):
        code, _, err = program.finish()
        assert code == 0, (rank, err)
    deliver()
    assert {run.info.run_name: run.data.metrics for run in all_runs()} == {
        "train-0": {"rank": 0.0}, "train-1": {"rank": 1.0},
    }  # fmt: skip

"""Machines that deliver the ranks of one launch come to one root run, whichever order, end or death it takes."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.conftest import examples
from tests.drawn_faults import faults
from tests.drawn_processes import Machine, Process
from tests.integration.test_runs_of_several_processes import rounds
from tests.memory_store import Held, MemoryStore, fail_once, refuse_nul, roots
from trackdsl._core import events
from trackdsl.delivery.store._errors import Refused


def begin(
    process: Process,
    root: bytes,
    rank: int,
    size: int = 2,
    continued_id: str = "",
    tags: dict[str, str] | None = None,
    **params: Any,
) -> bytes:
    """Begin the run of a rank as `open_run` does."""
    id_ = process.prefix + rank.to_bytes(6, "big")
    rank_event = events.Rank("train", rank, size, rank, "n", "torch a", 1, continued_id)
    name, path = f"rank-{rank}", f"train/rank-{rank}"
    process.say(events.Open(id_, root, "e", name, "experiment", path, 0, 1, params, tags or {}, None, rank_event))
    return id_


def one_root(store: MemoryStore, *ranks: int) -> Held:
    """The single root run in the store; every rank is its child exactly once."""
    ((id_, root),) = roots(store)
    found = [run for run in store.runs.values() if run.tags.get("mlflow.parentRunId") == id_]
    assert sorted(run.tags["trackdsl.rank"] for run in found) == sorted(map(str, ranks))
    return root


@pytest.mark.usefixtures("each_kind_of_store", "no_pauses")
@pytest.mark.parametrize("moment", ["create_run", "tagged", "end_run"])
def test_two_machines_at_once(tmp_path: Path, moment: str) -> None:
    """Two machines that make or end the root at the same moment come to one, whose status is true of both ranks."""
    store = MemoryStore()
    machines = [Machine(tmp_path / name, store) for name in "ab"]
    processes = [Process(machine.spool) for machine in machines]
    for rank, process in enumerate(processes):
        process.close(begin(process, b"r" * 16, rank, lr=rank), ["FINISHED", "FAILED"][rank])
        process.die()
    met = []

    def meet(method: str, *_: Any) -> None:
        if method == moment and not met:
            met.append(method)
            for _ in range(5):
                machines[1].round()

    store.before = meet
    for _ in range(5):
        machines[0].round()
    assert met
    root = one_root(store, 0, 1)
    assert root.status == "FAILED"
    assert root.params == {"lr": "0"}
    for machine in machines:
        machine.restart()


@pytest.mark.usefixtures("each_kind_of_store", "no_pauses")
@settings(deadline=None, max_examples=examples(25), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    operations=st.lists(
        st.tuples(st.sampled_from(["begin", "FINISHED", "FAILED", "die", "deliver"]), st.integers(0, 2)), max_size=20
    ),
    at=faults(4),
)
def test_any_order_on_three_machines(
    tmp_path_factory: pytest.TempPathFactory, operations: list[tuple[str, int]], at: dict[int, Any]
) -> None:
    """Whichever rank begins, ends, dies or is delivered first, and whenever delivery dies: one root, true to all."""
    store = MemoryStore(at)
    folder = tmp_path_factory.mktemp("ranks")
    machines = [Machine(folder / str(rank), store) for rank in range(3)]
    processes = [Process(machine.spool) for machine in machines]
    begun: dict[int, bytes] = {}
    ended: dict[int, str] = {}
    for what, rank in operations:
        process = processes[rank]
        if what == "deliver":
            machines[rank].round()
        elif what == "die":
            ended.setdefault(rank, "KILLED")
            process.die()
        elif rank not in ended and what == "begin":
            begun[rank] = begun.get(rank) or begin(process, b"r" * 16, rank, 3, lr=0.1)
        elif rank not in ended and rank in begun:
            ended[rank] = what
            process.close(begun[rank], what)
    for rank in range(3):
        ended.setdefault(rank, "KILLED")
        processes[rank].die()
    rounds(*machines, number=60)
    for machine in machines:
        machine.restart()
    if not begun:
        assert not store.runs
        return
    ends = {ended[rank] for rank in begun}
    root = one_root(store, *begun)
    assert root.status == min(ends, key=["FAILED", "KILLED", "FINISHED"].index)
    assert root.params == ({"lr": "0.1"} if 0 in begun or len(begun) > 1 else {})


@pytest.mark.usefixtures("each_kind_of_store", "no_pauses")
def test_the_next_launch_at_the_same_address(tmp_path: Path) -> None:
    """Where a launcher shares nothing but an address, the second run of a rank belongs to the next root."""
    store = MemoryStore()
    machine = Machine(tmp_path / "a", store)
    for _ in range(3):
        for rank in range(2):
            process = Process(machine.spool)
            process.close(begin(process, b"r" * 16, rank))
            process.die()
        for _ in range(5):
            machine.round()
    found = dict(roots(store))
    assert len(found) == 3
    children = Counter(run.tags["mlflow.parentRunId"] for run in store.runs.values() if "trackdsl.rank" in run.tags)
    assert children == dict.fromkeys(found, 2)
    machine.restart()


@pytest.mark.usefixtures("each_kind_of_store", "no_pauses")
def test_a_rank_that_comes_late_opens_the_root_again(tmp_path: Path) -> None:
    """A root that has ended with the ranks so far is RUNNING while one that begins later is."""
    store = MemoryStore()
    machine = Machine(tmp_path / "a", store)
    processes = [Process(machine.spool) for _ in range(2)]
    seen = []
    for rank, process in enumerate(processes):
        id_ = begin(process, b"r" * 16, rank)
        for _ in range(3):
            machine.round()
        seen.append(one_root(store, *range(rank + 1)).status)
        process.close(id_)
        process.die()
        for _ in range(3):
            machine.round()
        seen.append(one_root(store, *range(rank + 1)).status)
    assert seen == ["RUNNING", "FINISHED"] * 2
    machine.restart()


@pytest.mark.usefixtures("each_kind_of_store", "no_pauses")
def test_a_launch_resumes_a_run(tmp_path: Path) -> None:
    """A run that a launch resumes is as the ranks of that launch are, however the earlier ones have ended."""
    store = MemoryStore()
    machine = Machine(tmp_path / "a", store)
    resumed = store.create_run("e-e", "train", 0, {})
    store.end_run(resumed, "FAILED", 1)
    seen = []
    for launch, ends in enumerate([("FAILED", "KILLED"), ("FINISHED", "FINISHED")]):
        processes = [Process(machine.spool) for _ in ends]
        begun = [
            begin(process, bytes([launch] * 16), rank, continued_id=resumed, lr=0.1)
            for rank, process in enumerate(processes)
        ]
        rounds(machine, number=5)
        seen.append(store.runs[resumed].status)
        for process, id_, end in zip(processes, begun, ends, strict=True):
            process.close(id_, end)
            process.die()
        rounds(machine, number=5)
        seen.append(store.runs[resumed].status)
    assert seen == ["RUNNING", "FAILED", "RUNNING", "FINISHED"]
    assert "trackdsl.ended" not in store.runs[resumed].tags
    assert store.runs[resumed].params == {"lr": "0.1"}
    one_root(store, 0, 1, 0, 1)
    machine.restart()


@pytest.mark.usefixtures("each_kind_of_store", "no_pauses")
@pytest.mark.parametrize("keys", [("nul", "both", "long", "of rank"), ("long",)])
def test_tags_that_the_store_does_not_take_as_they_are(tmp_path: Path, keys: tuple[str, ...]) -> None:
    """A root whose tags have a NUL or too many characters has them as any other run: readable, and whole in files."""
    store = MemoryStore()
    store.before = refuse_nul
    machines = [Machine(tmp_path / name, store) for name in "ab"]
    every = {"nul": "a\0b", "both": "c\0" * 5000, "long": "d" * 9000, "of rank": "0\0"}
    whole = {key: every[key] for key in keys}
    for rank, machine in enumerate(machines):
        process = Process(machine.spool)
        own = {key: text.replace("0", str(rank)) for key, text in whole.items()}
        process.close(begin(process, b"r" * 16, rank, tags=own))
        process.die()
        rounds(machine, number=8)
        assert machine.empty
        machine.restart()
        root = one_root(store, *range(rank + 1))
        assert root.files == {f"trackdsl/tags/{key}.txt": text for key, text in whole.items()}
    assert root.status == "FINISHED"
    encoded = {"nul": "a\\x00b", "of rank": "0\\x00"}
    assert {key: root.tags[key] for key in encoded if key in keys} == {
        key: text for key, text in encoded.items() if key in keys
    }
    assert max(map(len, root.tags.values())) == 8000
    assert not [key for key in root.tags if key.startswith("trackdsl.refused.")]


@pytest.mark.usefixtures("each_kind_of_store", "no_pauses")
def test_what_the_other_root_had_is_kept(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """If two roots were made, the one that is kept gets all parameters of the other, and says which were refused."""
    store = MemoryStore()
    names = {"trackdsl.id": (b"r" * 16).hex(), "trackdsl.path": "train"}
    for run_id in ("r-1", "r-2"):
        store.runs[run_id] = Held("e-e", "train", dict(names), {"lr": run_id})
    values = {f"p{number}": "1" for number in range(150)}
    store.runs["r-2"].params |= {**values, "odd": "2"}

    def before(method: str, *arguments: Any) -> None:
        if method == "write" and ("odd" in arguments[1].params or len(arguments[1].params) > 100):
            raise Refused("not this one" if "odd" in arguments[1].params else "more than 100")

    store.before = before
    machine = Machine(tmp_path / "a", store)
    process = Process(machine.spool)
    process.close(begin(process, b"r" * 16, 1))
    process.die()
    rounds(machine, number=8)
    machine.restart()
    root = one_root(store, 1)
    assert root.params == {"lr": "r-1", **values}
    assert root.tags["trackdsl.param.later.lr"] == "r-2"
    assert root.tags["trackdsl.refused.odd"] == "not this one"
    assert "MLflow refused 'odd' of run r-1" in caplog.text


@pytest.mark.usefixtures("each_kind_of_store", "no_pauses")
def test_a_refused_parameter_costs_the_root_no_other(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The root gets the outcome and the parameters that all ranks share; those that the store refuses are reported."""
    store = MemoryStore()

    def before(method: str, *arguments: Any) -> None:
        if method == "write" and "odd" in arguments[1].params and arguments[0] in dict(roots(store)):
            raise Refused("not this one")

    store.before = before
    machine = Machine(tmp_path / "a", store)
    for rank in (1, 2):
        process = Process(machine.spool)
        process.close(begin(process, b"r" * 16, rank, 3, lr=0.1, odd=1), "FAILED")
        process.die()
        rounds(machine, number=8)
    machine.restart()
    root = one_root(store, 1, 2)
    assert (root.params, root.status) == ({"lr": "0.1"}, "FAILED")
    assert root.tags["trackdsl.ended"] == "ranks 1, 2: FAILED"
    assert root.tags["trackdsl.refused.odd"] == "not this one"
    assert "MLflow refused 'odd'" in caplog.text


@pytest.mark.usefixtures("each_kind_of_store", "no_pauses")
def test_a_child_whose_experiment_is_deleted_moves_later(tmp_path: Path) -> None:
    """The other root stays until its children can be moved."""
    store = MemoryStore()
    for run_id in ("r-1", "r-2"):
        store.runs[run_id] = Held("e-e", "train", {"trackdsl.id": (b"r" * 16).hex(), "trackdsl.path": "train"})
        store.runs[f"{run_id}-child"] = Held("e-e", "rank-0", {"mlflow.parentRunId": run_id, "trackdsl.rank": "0"})
    store.runs["r-2-child"].tags["trackdsl.rank"] = "2"
    before = fail_once("link", error=lambda: Refused("the experiment is deleted"))

    def deleted_at_link(method: str, *arguments: Any) -> None:
        if method == "link" and not met:
            met.append(method)
            store.deleted = {"e-e"}
        before(method, *arguments)

    met: list[str] = []
    store.before = deleted_at_link
    machine = Machine(tmp_path / "a", store)
    process = Process(machine.spool)
    process.close(begin(process, b"r" * 16, 1))
    process.die()
    rounds(machine, number=3)
    assert {"r-1", "r-2"} < set(store.runs)
    store.deleted = set()
    rounds(machine, number=8)
    machine.restart()
    one_root(store, 0, 1, 2)

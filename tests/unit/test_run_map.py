"""The runs of a journal: those that have ended take little memory, and are still known in full."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.conftest import examples
from trackdsl.delivery.state import _ended_runs
from trackdsl.delivery.state._ended_runs import EndedRuns
from trackdsl.delivery.state._ledger import Ledger
from trackdsl.delivery.state._run_map import DeliveredRun, RunMap
from trackdsl.store_format.ledger import NAME

#: Of this process and another one, with ids at MLflow that are ours or not; one has a count that no program reaches.
IDS = [b"p" * 10 + count.to_bytes(6, "big") for count in (0, 1, 2, 300, 1 << 40)] + [b"q" * 16, b"old"]
DO = st.tuples(
    st.sampled_from(["add", "close", "end", "end", "adopt", "resume", "shrink", "shrink", "restart", "fail"]),
    st.sampled_from(IDS),
    st.sampled_from(["0", "1"]),
    st.booleans(),
)

#: MLflow's id, experiment, whether it is open, ours, resumed.
Known = tuple[str, str, bool, bool, bool]


def known(run: DeliveredRun | None) -> Known | None:
    return None if run is None else (run.run_id, run.experiment_id, run.open, run.ours, run.continued)


class Model:
    """A map of runs and what it should hold."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.map = RunMap(Ledger(path))
        self.runs: dict[bytes, Known] = {}

    def do(self, what: str, id_: bytes, experiment: str, ours: bool) -> None:
        run_id = id_.hex() if ours else f"mlflow's {id_.hex()}"
        match what:
            case "add":
                self.map.add(id_, DeliveredRun(run_id, experiment))
                self.runs[id_] = (run_id, experiment, True, True, False)
            case "end":
                self.do("add", id_, experiment, ours)
                self.do("close", id_, experiment, ours)
            case "adopt":
                self.map.adopt(id_, DeliveredRun(run_id, experiment))
                self.runs[id_] = (run_id, experiment, False, False, False)
            case "resume":
                self.map.resume(id_, DeliveredRun(run_id, experiment, ours=False, continued=True))
                self.runs[id_] = (run_id, experiment, True, False, True)
            case "close" if self.map.get(id_) is not None:
                self.map.close(id_)
                self.runs[id_] = (*self.runs[id_][:2], False, *self.runs[id_][3:])
            case "shrink":
                self.map.shrink()
            case "restart":
                self.map._ledger._longest = 0  # It is written again, from what the map holds.
                self.map._ledger.tidy()
                self.map = RunMap(Ledger(self.path))

    def fail(self, id_: bytes, experiment: str, ours: bool) -> None:
        """Perform two changes that are undone."""
        before = dict(self.runs)
        try:
            with self.map.collecting():
                self.do("end", id_, experiment, ours)
                raise ZeroDivisionError
        except ZeroDivisionError:
            self.runs = before

    def check(self, ids: list[bytes]) -> None:
        assert {id_: known(self.map.get(id_)) for id_ in ids} == {id_: self.runs.get(id_) for id_ in ids}
        assert len(self.map) == len(self.runs)
        assert set(self.map.ours()) == {id_ for id_, run in self.runs.items() if run[3]}
        assert set(self.map.still_open()) == {id_ for id_, run in self.runs.items() if run[2]}


@settings(max_examples=examples(300))
@given(st.lists(st.tuples(DO, st.lists(st.sampled_from(IDS), max_size=2)), max_size=20))
def test_all_runs_stay_known(steps: list[tuple[tuple[Any, ...], list[bytes]]]) -> None:
    """Whatever is noted, undone, shrunk or read back, each run is as it was noted last."""
    with tempfile.TemporaryDirectory() as folder:
        model = Model(Path(folder) / NAME)
        for (what, *arguments), asked in steps:
            if what == "fail":
                model.fail(*arguments)
            else:
                model.do(what, *arguments)
            model.check(asked)
        model.check(IDS)


def test_ended_runs_take_no_objects(tmp_path: Path) -> None:
    """Ended runs leave no objects in memory, open ones do, and an ended run that is asked for is complete."""
    runs = RunMap(Ledger(tmp_path / NAME))
    ids = [b"p" * 10 + count.to_bytes(6, "big") for count in range(1000)]
    for id_ in ids:
        runs.add(id_, DeliveredRun(id_.hex(), "7"))
    for id_ in ids[1:]:
        runs.close(id_)
    runs.shrink()
    assert list(runs._runs) == ids[:1]
    assert known(runs.get(ids[500])) == (ids[500].hex(), "7", False, True, False)
    assert runs.get(ids[500]) is runs.get(ids[500]), "delivery compares runs while it writes to them"


def test_more_experiments_than_a_byte_counts() -> None:
    """A run of the 257th experiment is not kept in a byte, and says so."""
    ended = EndedRuns()
    ids = [b"p" * 10 + count.to_bytes(6, "big") for count in range(_ended_runs._MOST_EXPERIMENTS + 1)]
    assert [ended.add(id_, str(number)) for number, id_ in enumerate(ids)] == [True] * (len(ids) - 1) + [False]
    assert [ended.get(id_) for id_ in ids[-3:]] == ["253", "254", None]
    assert dict(ended) == {id_: str(number) for number, id_ in enumerate(ids[:-1])}

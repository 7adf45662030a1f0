"""Values without an end: cyclic and shared lists, graphs, endless mappings, long texts. They are described in part."""

from __future__ import annotations

import collections.abc
import dataclasses
import itertools
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.unit.one_run import PLANT, flattened, metrics_of, recorded, returned
from trackdsl import stage, track_returns
from trackdsl._recording.flatten import MAX_LEAVES, Flat
from trackdsl.handlers._content import content_of
from trackdsl.handlers._line import MAX_LINE
from trackdsl.handlers._plain import is_plain


@dataclasses.dataclass
class Node:
    n: int
    near: list[Node] = dataclasses.field(default_factory=list)


def grid(size: int) -> Node:
    nodes = {(i, j): Node(i * size + j) for i in range(size) for j in range(size)}
    for (i, j), node in nodes.items():
        around = [(i, j + 1), (i + 1, j), (i, j - 1), (i - 1, j)]
        node.near += [nodes[at] for at in around if at in nodes]
    return nodes[0, 0]


def shared_lists() -> list[Any]:
    value: list[Any] = []
    for _ in range(40):
        value = [value, value]
    return value


def shared_lists_around_a_structure() -> list[Any]:
    value: list[Any] = [{"a": 1}]
    for _ in range(40):
        value = [value, value]
    return value


def shared_dicts() -> dict[str, Any]:
    value: dict[str, Any] = {}
    for _ in range(30):
        value = {"x": value, "y": value}
    return value


def cyclic_list() -> list[Any]:
    value: list[Any] = []
    value += [value, value]
    return value


class Endless(collections.abc.Mapping):  # type: ignore[type-arg]
    def __getitem__(self, key: Any) -> int:
        return 1

    def __iter__(self) -> Iterator[Any]:
        return itertools.count()

    def __len__(self) -> int:
        return 1


ENDLESS: dict[str, Callable[[], Any]] = {
    "shared lists": shared_lists,
    "shared lists around a structure": shared_lists_around_a_structure,
    "shared dicts": shared_dicts,
    "cyclic list": cyclic_list,
    "grid": lambda: grid(6),
    "mapping": Endless,
}
#: More calls than these are a walk that does not end.
_MANY = 5_000_000


def counted(doing: Callable[[], Any]) -> int:
    """How many Python functions an action calls; it is stopped after far too many."""
    calls = 0

    def count(frame: Any, event: str, argument: Any) -> None:
        nonlocal calls
        calls += event == "call"
        if calls > _MANY:
            sys.setprofile(None)
            pytest.fail("it does not end")

    sys.setprofile(count)
    try:
        doing()
    finally:
        sys.setprofile(None)
    return calls


@pytest.mark.slow
@pytest.mark.parametrize("name", ENDLESS)
def test_what_is_endless_is_described_in_part(name: str) -> None:
    """Shared and cyclic lists, graphs of objects, endless mappings: a bounded number of steps describes them."""
    value = ENDLESS[name]()
    flat = Flat()
    assert counted(lambda: flat.add("x", value)) < 500_000
    assert 1 <= len(flat.values) <= MAX_LEAVES + 1
    assert all(len(str(found)) <= MAX_LINE for found in flat.values.values())
    assert counted(lambda: content_of(value)) < _MANY
    assert counted(lambda: is_plain(value)) < _MANY


@pytest.mark.slow
@pytest.mark.parametrize("name", ENDLESS)
def test_what_is_endless_is_returned(name: str) -> None:
    """Endless values are described in part as return values too, and the numbers beside them are recorded."""
    value = ENDLESS[name]()

    @stage
    @track_returns
    def f() -> Any:
        return {"acc": 0.5, "rest": value}

    runs = []
    counted(lambda: runs.append(recorded(f)))
    assert metrics_of(runs[0])["acc"] == 0.5


def test_repeated_parts_are_cut_and_reported() -> None:
    """Where what is returned holds the same mapping over and over, a tag says that it was described in part."""
    run = returned({"acc": 0.5, **{key: shared_dicts() | {"n": 1} for key in "ab"}})
    assert metrics_of(run)["acc"] == 0.5
    assert "trackdsl.truncated.f" in run.tags


def test_parts_that_are_shared_a_few_times_are_described_each_time() -> None:
    """Shared parts are not a fault: each occurrence is recorded whole, as parameters, metrics and JSON."""
    part = {"a": 1, "b": [1, {"c": 2}]}
    value = {str(i): part for i in range(20)}
    assert len(flattened(value).values) == 60
    assert content_of(value) == value
    assert is_plain(value)
    assert len(metrics_of(returned({str(i): {"a": 1.0, "b": 2} for i in range(20)}))) == 40


def test_a_line_is_no_longer_than_a_parameter_may_be() -> None:
    """A list of long texts is cut where MLflow would refuse it, and kept whole; secrets are masked before the cut."""
    secret = "https://user:" + PLANT + "@host/" + "x" * 50
    texts = ["a" * 1000] * 5 + [secret] + ["b" * 100_000] * 60
    flat = flattened(texts)
    line = flat.values["x"]
    assert isinstance(line, str)
    assert len(line) <= MAX_LINE
    assert line.endswith("… [list of 66]")
    assert PLANT not in line
    assert flat.whole == {"x": texts}


def test_a_picture_of_nested_lists_is_data() -> None:
    """Lists in lists of many numbers are described by their beginning, in few steps, and not written out."""
    picture = [[[[1.5, 2.5, 3.5] for _ in range(96)] for _ in range(96)] for _ in range(16)]
    flat = Flat()
    assert counted(lambda: flat.add("x", picture)) < 50_000
    assert len(str(flat.values["x"])) <= MAX_LINE
    assert not flat.whole


def test_a_structure_behind_many_lists_is_kept_whole() -> None:
    """Where the lists of one value are too many to be looked into, the whole is kept as a file."""
    lists = [[[float(i)] * 90 for i in range(90)] for _ in range(12)]
    flat = flattened({str(i): part for i, part in enumerate(lists)} | {"z": [[{"a": 1}]]})
    assert set(flat.whole) == {"x"}

"""The text of parameters: different values have different texts, the same in every process, and can be searched."""

from __future__ import annotations

import array
import collections
import datetime
import decimal
import enum
import json
import pathlib
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.test_secrets import recorded
from trackdsl import stage
from trackdsl.handlers._line import MAX_LINE
from trackdsl.testing import capture_runs


class Color(enum.Enum):
    RED = "red"
    BLUE = 2


class Mode(str, enum.Enum):  # noqa: UP042 - the older way to write it
    FAST = "fast"


class Level(enum.IntEnum):
    LOW = 1


class Rate(float, enum.Enum):
    HALF = 0.5


class Access(enum.Flag):
    READ = 1
    WRITE = 2


class Bits(enum.IntFlag):
    A = 1
    B = 2


MEMBERS: list[tuple[enum.Enum, Any]] = [
    (Color.RED, "Color.RED"), (Color.BLUE, "Color.BLUE"), (Mode.FAST, "fast"), (Level.LOW, 1), (Rate.HALF, 0.5),
    (Access.READ, "Access.READ"), (Bits.A | Bits.B, 3), (enum.StrEnum("Word", "ONE").ONE, "one"),
]  # fmt: skip


def text_of(value: Any) -> Any:
    """The text that a value is recorded as."""
    (text,) = recorded(value).params.values()
    return text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ([], "[]"), ([""], '[""]'), ([1], "[1]"), (["1"], '["1"]'), (["a", "b, c"], '["a", "b, c"]'),
        (["a, b", "c"], '["a, b", "c"]'), ([True, None, 0.5, "x"], '[true, null, 0.5, "x"]'), ((1, 2), "[1, 2]"),
        ([[1, "x"], []], '[[1, "x"], []]'), (['say "hi"\n'], '["say \\"hi\\"\\n"]'), (["grün"], '["grün"]'),
        ([float("nan"), float("inf")], "[NaN, Infinity]"), ({3, 10, 2}, "[2, 3, 10]"), ({1, "1"}, '["1", 1]'),
        ({("b", 2), ("a", 1)}, '[["a", 1], ["b", 2]]'), (frozenset("ba"), '["a", "b"]'), (set(), "[]"),
        ([pathlib.PurePosixPath("a, b"), decimal.Decimal("1.50")], '["a, b", "1.50"]'),
        ([datetime.date(2026, 1, 2)], '["2026-01-02"]'), (collections.deque([1, "1"]), '[1, "1"]'),
        ({"a": 1}.keys(), '["a"]'), (array.array("i", [1, 2]), "[1, 2]"),
        ([object(), json.dumps], "[object, json.dumps]"),
        (np.array([0.9, 0.999]), "[0.9, 0.999]"), (np.array([0.9, 0.999], "f4"), "[0.9, 0.999]"),
        (np.array(["a", "b, c"]), '["a", "b, c"]'), (np.array([], int), "[]"),
        ([np.array([1, 2]), np.int64(3)], "[[1, 2], 3]"),
        (np.array([[1, 2], [3, 4]]), "ndarray int64 (2, 2) [[1, 2], [3, 4]]"),
        (np.array(["2026-01-02"], "M8[D]"), '["2026-01-02"]'),
        (re.compile("a|b"), "re.compile('a|b')"),
        ([member for member, _ in MEMBERS[:5]],
         '["Color.RED", "Color.BLUE", "fast", 1, 0.5]'),
    ],
)  # fmt: skip
def test_lists_are_json(value: Any, text: str) -> None:
    """Lists, tuples, sets and small arrays are JSON, nested ones too; other values in them are their summary."""
    assert text_of(value) == text


plain = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5)
lists = st.recursive(st.lists(plain, max_size=4), lambda inner: st.lists(inner | plain, max_size=4), max_leaves=12)


@given(value=lists)
def test_a_list_of_plain_values_is_read_back_by_json(value: list[Any]) -> None:
    """`json.loads` gives back a list of plain values, with numbers of the same type, whatever text is in it."""
    assert repr(json.loads(text_of(value))) == repr(value)


@pytest.mark.parametrize(
    "values",
    [
        [[], [""], [None], ["None"], [[]], {}, ["[]"]],
        [[1], ["1"], [1.0], [True], ["true"], [[1]], [(1,), 1]],
        [list(range(1000)), [*range(999), 0], [0, *range(999)], [str(i) for i in range(1000)], list(range(1001))],
        [[[i, 0] for i in range(1000)], [[i, i == 500] for i in range(1000)]],
        [["x" * 7000], ["x" * 7000 + "y"], ["x" * 6999 + "y"]],
        [[0.5] * 20_000, [*[0.5] * 19_999, 1.5], [1.5, *[0.5] * 19_999]],
        [["x" * 900] * 1000, [*["x" * 900] * 500, "y", *["x" * 900] * 499], ["y" * 900] * 1000],
        [["a", 10**40] * 200, ["a", 10**40 + 1] * 200, [*[1] * 300, [2]], [*[1] * 300, [3]], [*[1] * 150, None] * 2],
        [[datetime.date(2026, 1, 1)] * 200, [datetime.date(2026, 1, 2)] * 200, ["2026-01-01"] * 200],
        [[("a", i) for i in range(5000)], [("a", i + 1) for i in range(5000)], [["a", [i]] for i in range(5000)]],
        [set(range(500)), {*range(499), 1000}, frozenset(map(str, range(500)))],
        [{-1, *range(5000)}, {-2, *range(5000)}, {*range(5000), None}, {*range(5000), float("nan")}],
        [set(map(str, range(5000))), set(map(str, range(1, 5001))), set(map(str, range(5001)))],
        [np.zeros(50), np.eye(1, 50)[0], np.zeros(50, "f4"), np.zeros((5, 10)), np.zeros((2, 2)), np.eye(2)],
        [np.zeros((1000, 1000)), np.ones((1000, 1000)), np.arange(1e6).reshape(1000, 1000)],
        [np.array(["a", None] * 20, object), np.array(["b", None] * 20, object)],
        [[np.arange(50.0)], [np.arange(50.0) + 1]],
        [list(Access), list(Color), [Level.LOW], [Bits.A, "1"]],
    ],
)
def test_values_that_differ_read_differently(values: list[Any]) -> None:
    """Values that differ have different texts, however long they are."""
    texts = [str(text_of(value)) for value in values]
    assert len(set(texts)) == len(values)
    assert all(len(text) <= MAX_LINE for text in texts)


ARRAYS: list[Callable[[], np.ndarray[Any, Any]]] = [
    lambda: np.arange(1e6).reshape(1000, 1000), lambda: np.zeros(50, [("a", "i1"), ("b", "f8")]),
    lambda: np.zeros(50, np.longdouble),
]  # fmt: skip
LARGE: list[Callable[[], Any]] = [
    *ARRAYS, lambda: list(range(1000)), lambda: [["a", i] for i in range(500)], lambda: set(map(str, range(500))),
    lambda: {"b", 1, None, ("x", 2.5)}, lambda: ["lone \udc80", 10**40] * 100,
]  # fmt: skip


@pytest.mark.parametrize("make", LARGE)
def test_a_digest_is_of_the_content(make: Callable[[], Any]) -> None:
    """Equal values have the same text, whichever object it is."""
    assert text_of(make()) == text_of(make())


@pytest.mark.parametrize("make", ARRAYS)
def test_a_digest_is_the_same_for_every_layout(make: Callable[[], np.ndarray[Any, Any]]) -> None:
    """An equal array has the same text, however it lies in memory."""
    value = make()
    padded = np.empty((*value.shape, 2), value.dtype)[..., 0]
    padded[...] = value
    assert text_of(padded) == text_of(value)


def test_a_large_array_is_not_read_whole(tmp_path: pathlib.Path) -> None:
    """The shape of a memory-mapped array is recorded; the digest of a large one reads a few thousand values."""
    np.save(tmp_path / "x.npy", np.zeros((100, 100)))
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    assert [text_of(mapped), text_of(np.asarray(mapped)), text_of(mapped[:50])] == [
        "memmap float64 (100, 100)", "ndarray float64 (100, 100)", "memmap float64 (50, 100)",
    ]  # fmt: skip
    endless = np.lib.stride_tricks.as_strided(np.zeros(1), (10**9, 10**6), (0, 0))
    assert text_of(endless).startswith("ndarray float64 (1000000000, 1000000), digest ")


@pytest.mark.parametrize(("member", "text"), MEMBERS, ids=str)
def test_members_of_enumerations(member: enum.Enum, text: Any) -> None:
    """An enumeration's member is its value if that is text or a number, else `Class.NAME`, wherever it is recorded."""
    with capture_runs() as captured:
        with stage("f", x=member) as run:
            run.log_params({"nested": {"a": member}, "listed": [member]})
            run.log_params({"keyed": {member: 1}})
            run.log_metrics({member: 1.0})  # type: ignore[dict-item]
            run.log_metric(member, 2.0)  # type: ignore[arg-type]
            run.set_tags({"tag": member})
            run.log_dict({member: member}, "x.json")
            run.log_table({member: [1]}, "table.json")  # type: ignore[dict-item]
        found = captured.one("f")
        assert json.loads(found.artifacts["x.json"].read_text()) == {str(text): text}
        assert [json.loads(path.read_text())["columns"] for path in found.tables["table.json"]] == [[str(text)]]
    assert found.params["x"] == found.params["nested.a"] == text
    assert json.loads(found.params["listed"]) == [text]
    assert found.params[f"keyed.{text}"] == 1
    assert list(found.metrics) == [str(text)]
    assert found.tags["tag"] == str(text)

"""Values that raise when they are asked, change meanwhile, or only look like numbers."""

from __future__ import annotations

import collections.abc
import dataclasses
import itertools
import pathlib
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any, ClassVar
from unittest import mock

import numpy as np
import pytest

from tests.unit.one_run import flattened, metrics_of, returned
from trackdsl import stage
from trackdsl._recording.numbers import is_number
from trackdsl.handlers._types import is_mock
from trackdsl.testing import capture_runs


class RaisingShape:
    @property
    def shape(self) -> Any:
        raise RuntimeError("shape")


class RaisingMapping(collections.abc.Mapping):  # type: ignore[type-arg]
    def __getitem__(self, key: Any) -> Any:
        raise RuntimeError("item")

    def __iter__(self) -> Iterator[Any]:
        return iter("ab")

    def __len__(self) -> int:
        return 2


class RaisingClass:
    @property
    def __class__(self) -> Any:  # type: ignore[override]
        raise RuntimeError("class")


class RaisingAttributes:
    def __getattr__(self, name: str) -> Any:
        raise RuntimeError("attribute")


class RaisingKey:
    def __str__(self) -> str:
        raise RuntimeError("key")


BAD: dict[str, Callable[[], Any]] = {
    "shape": RaisingShape,
    "mapping": RaisingMapping,
    "class": RaisingClass,
    "attributes": RaisingAttributes,
    "long path": lambda: pathlib.Path("x" * 5000),
    "key": lambda: {RaisingKey(): 1},
}


@pytest.mark.parametrize("name", BAD)
def test_one_bad_part_does_not_lose_the_others(name: str) -> None:
    """Whatever one part of a return value does, the numbers beside it are recorded, in dicts and in tuples."""
    bad = BAD[name]()
    assert {"acc": 0.9, "z": 1.0}.items() <= metrics_of(returned({"acc": 0.9, "x": bad, "z": 1.0})).items()
    assert {"f.0": 0.9, "f.2": 1.0}.items() <= metrics_of(returned((0.9, bad, 1.0))).items()


def test_a_part_that_cannot_be_kept_is_reported() -> None:
    """A part that is neither a number nor a file leaves a tag with its name."""
    tags = returned({"acc": 0.9, "x": RaisingClass()}).tags
    assert any(name.startswith("trackdsl.omitted.x") for name in tags)


class Lazy:
    touched: ClassVar[list[str]] = []

    @property
    def shape(self) -> Any:
        self.touched.append("shape")
        return ()

    def __getattr__(self, name: str) -> Any:
        self.touched.append(name)
        raise AttributeError(name)


def test_properties_of_unknown_types_are_not_called() -> None:
    """Properties of unknown types, such as lazy data sets, are not called, in arguments and return values."""
    flattened(Lazy())
    flattened([Lazy(), {"a": Lazy()}])
    assert not is_number(Lazy())
    assert Lazy.touched == []


@pytest.mark.parametrize("value", [np.float32(2), np.int64(2), np.bool_(True), np.array(2.0)])
def test_scalars_of_libraries_are_numbers(value: Any) -> None:
    """Scalars are recognized by the types of arrays that they offer."""
    assert is_number(value)
    assert not is_number(np.zeros(2))
    assert not is_number(np.datetime64("2026-01-01"))


def test_scalar_tensors_are_numbers() -> None:
    """PyTorch's tensors of no dimension are numbers, others are not."""
    torch = pytest.importorskip("torch")
    assert is_number(torch.tensor(2.0, requires_grad=True))
    assert not is_number(torch.zeros(2))


def test_mocks_are_no_numbers() -> None:
    """A mock, which converts to 1.0, is recorded as an object and not as a number."""
    assert metrics_of(returned({"acc": 0.9, "m": mock.MagicMock()})) == {"acc": 0.9}
    assert not is_number(mock.MagicMock())
    assert not is_number(mock.Mock(spec=float))
    assert is_mock(type(mock.MagicMock()))
    assert not is_mock(type(Lazy()))


def test_a_dict_that_changes_meanwhile() -> None:
    """If another thread changes a dict while it is read, the rest of it is recorded."""
    shared: dict[str, int] = {f"k{i}": i for i in range(500)}
    stop = threading.Event()

    def change() -> None:
        for count in itertools.count():
            shared[f"n{count % 50}"] = count
            shared.pop(f"n{(count + 25) % 50}", None)
            if stop.is_set():
                return

    interval = sys.getswitchinterval()
    thread = threading.Thread(target=change)
    sys.setswitchinterval(1e-6)
    thread.start()
    try:
        flats = [flattened(shared) for _ in range(300)]
    finally:
        stop.set()
        thread.join()
        sys.setswitchinterval(interval)
    assert all({f"x.k{i}" for i in range(500)} <= flat.values.keys() and not flat.omitted for flat in flats)


def test_a_value_that_raises_is_described_with_the_reason() -> None:
    """Where only the class of an argument can be described, the reason is kept beside it."""
    flat = flattened({"a": 1, "m": RaisingMapping()})
    assert flat.values == {"x.a": 1, "x.m": f"{__name__}.RaisingMapping"}
    assert "item" in flat.omitted["x.m"]
    assert flat


def test_a_field_that_was_never_set() -> None:
    """A field that was never set is described as unreadable, with the reason, and harms no other."""

    @dataclasses.dataclass
    class Half:
        a: int
        b: int = dataclasses.field(init=False)

    assert flattened(Half(1)).values == {"x.a": 1, "x.b": "<unreadable: AttributeError>"}
    run = returned(Half(1))
    assert metrics_of(run) == {"a": 1.0}
    assert list(run.artifacts) == ["f.json"]


def test_a_mock_is_no_metric() -> None:
    """A mock that replaces a number in a test is reported as an omission, not recorded as 1.0."""
    with capture_runs() as captured, stage("f") as run:
        run.log_metric("m", mock.MagicMock())
    assert captured.one("f").metrics == {}
    assert "mock" in captured.one("f").tags["trackdsl.omitted.m"]

"""What every handler promises, as a class of tests; and values of several kinds."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import enum
import gc
import json
import os
import pathlib
import pickle
import sys
import warnings
import weakref
from collections.abc import Callable
from typing import Any, NamedTuple

import cloudpickle
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from tests.conftest import examples
from trackdsl.handlers import handler_for, handler_of

QUICK = settings(max_examples=examples(25), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


class Bomb:
    """Leaves a folder behind where its pickle is loaded."""

    def __init__(self, path: pathlib.Path) -> None:
        self.path = str(path)

    def __reduce__(self) -> Any:
        return os.mkdir, (self.path,)


class HandlerContract:
    """What every handler promises. A user's handler passes it with a subclass that gives some values.

    Attributes:
        needs: libraries without which its tests are skipped.
        one_way: what is read is something else than what was written.
        one_line: the summary is short, and one line; text is given whole.
        notices: a file that is cut off cannot be read.
        formats: the suffixes that the first value can be written with, beside the handler's own.
        as_json: those of these that are read back as a text, which is JSON.
    """

    needs: tuple[str, ...] = ()
    one_way = False
    one_line = True
    notices = True
    formats: tuple[str, ...] = ()
    as_json: tuple[str, ...] = ()

    def values(self) -> list[Any]:
        """New values at each call; among them an empty one if the type has one."""
        raise NotImplementedError

    def same(self, one: Any, other: Any) -> bool:
        """Whether a value has come back, in the sense of its library."""
        return type(one) is type(other) and bool(one == other)

    def holds(self, path: pathlib.Path, found: Any, value: Any) -> bool:
        """Whether a file of another format, from which this was read, has the value, or shows it."""
        return bool(json.loads(found) == value) if path.suffix in self.as_json else self.same(value, found)

    def content(self, value: Any) -> Any:
        """Everything about a value that must not change."""
        return cloudpickle.dumps(value)

    @pytest.fixture(autouse=True)
    def _has_its_libraries(self) -> None:
        for name in self.needs:
            pytest.importorskip(name)
        handler_for.__globals__["_cache"].clear()

    def test_it_comes_back(self, tmp_path: pathlib.Path) -> None:
        """The handler reads what it has written of each value that it accepts."""
        for index, value in enumerate(self.values()):
            handler = handler_of(value)
            assert handler is handler_for(type(value)), f"{value!r} is not accepted"
            path = tmp_path / f"{index}{handler.suffix}"
            handler.write(value, path)
            found = handler.read(path)
            assert self.one_way or self.same(value, found), (value, found)

    def test_its_other_formats(self, tmp_path: pathlib.Path) -> None:
        """The first value can be written with each suffix that the handler names, and is read back, or its text is."""
        value = self.values()[0]
        handler = handler_of(value)
        assert set(self.formats) <= set(handler.suffixes)
        for suffix in self.formats:
            path = tmp_path / f"x{suffix}"
            handler.write(value, path)
            assert self.holds(path, handler.read(path), value), suffix

    def test_the_value_is_left_alone(self, tmp_path: pathlib.Path) -> None:
        """Neither describing, writing nor hashing a value changes it."""
        for index, value in enumerate(self.values()):
            before = self.content(value)
            handler = handler_of(value)
            handler.summary(value)
            handler.children(value)
            handler.dataset(value)
            handler.write(value, tmp_path / f"{index}{handler.suffix}")
            assert self.content(value) == before

    def test_the_value_is_let_go(self, tmp_path: pathlib.Path) -> None:
        """No handler keeps a reference to a value."""
        gc.freeze()  # What was there before need not be looked through.
        values = self.values()
        before = [sys.getrefcount(value) for value in values]
        for index, value in enumerate(values):
            handler = handler_of(value)
            handler.summary(value)
            handler.children(value)
            handler.dataset(value)
            handler.write(value, tmp_path / f"{index}{handler.suffix}")
        del value
        gc.collect()
        watched = [_watch(value) for value in values]
        after = [sys.getrefcount(value) for value in values]
        values.clear()
        gc.collect()
        for one, other, gone in zip(before, after, watched, strict=True):
            # Singletons such as None have thousands of references, whose number fluctuates.
            assert one == other or one > 1000 or gone() is None

    def test_its_summary_is_a_line(self) -> None:
        """A summary is a number, or one short line."""
        for value in self.values():
            summary = handler_of(value).summary(value)
            assert summary is None or type(summary) in (bool, int, float, str)
            if self.one_line and isinstance(summary, str):
                assert len(summary) < 500
                assert len(summary.splitlines()) <= 1

    def test_its_suffixes(self) -> None:
        """Each suffix begins with a dot, and none is listed twice."""
        handler = handler_of(self.values()[0])
        suffixes = [handler.suffix, *handler.suffixes]
        assert all(suffix[0] == "." and len(suffix) > 1 for suffix in suffixes)
        assert len(set(suffixes)) == len(suffixes)

    def test_a_hostile_file_runs_nothing(self, tmp_path: pathlib.Path) -> None:
        """A pickle under the suffix of a handler that executes nothing is not loaded."""
        handler = handler_of(self.values()[0])
        for suffix in (handler.suffix, *handler.suffixes):
            path = tmp_path / f"x{suffix}"
            path.write_bytes(pickle.dumps(Bomb(tmp_path / "exploded")))
            if handler.executes:
                continue
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                with contextlib.suppress(Exception):
                    handler.read(path)
            assert not (tmp_path / "exploded").exists(), suffix

    def test_a_file_that_is_cut_off(self, tmp_path: pathlib.Path) -> None:
        """Reading half a file raises an ordinary exception, where the format can detect it."""
        value = self.values()[0]
        handler = handler_of(value)
        path = tmp_path / f"x{handler.suffix}"
        handler.write(value, path)
        os.truncate(path, path.stat().st_size // 2)
        if self.notices:
            with pytest.raises(Exception):  # noqa: B017, PT011 - which one is the library's affair
                handler.read(path)
        else:
            handler.read(path)


def _watch(value: Any) -> Callable[[], Any]:
    """A weak reference to a value; a value that cannot be referenced weakly counts as alive."""
    try:
        return weakref.ref(value)
    except TypeError:
        return lambda: True


class Color(enum.Enum):
    RED = 1


@dataclasses.dataclass
class Optimizer:
    lr: float = 0.1


class Shape(NamedTuple):
    width: int


class Plain:
    def __init__(self) -> None:
        self.a = [1]


def frames() -> list[Any]:
    """Frames of every kind that Parquet gives back."""
    import numpy as np
    import pandas as pd

    times = pd.date_range("2020", periods=3, tz="Europe/Berlin", unit="us")
    pairs = pd.MultiIndex.from_product([[1, 2], ["x", "y"]], names=["n", None])
    full = pd.DataFrame(
        {
            "f": [1.5, np.nan, -0.0], "i": [1, 2, 3], "u": np.array([0, 1, 255], "u1"), "b": [True, False, True],
            "s": ["ü", None, ""], "t": times, "d": pd.to_timedelta([1, None, 3], unit="s"),
            "c": pd.Categorical(["x", None, "y"], ["z", "y", "x"], ordered=True),
            "n": pd.Categorical([2, 1, 2], [3, 2, 1]),
            "I": pd.array([1, None, 3], "Int64"), "B": pd.array([True, None, False], "boolean"),
            "p": pd.period_range("2020", periods=3, freq="M"), "v": pd.interval_range(0, 3),
            "none": pd.Series([None] * 3, dtype=object), "bytes": [b"\x00", None, b""],
            "seconds": pd.to_datetime(["2020"] * 3).astype("datetime64[s]"), "days": [datetime.date(2020, 1, 1)] * 3,
        }
    )  # fmt: skip
    plain = pd.DataFrame(np.arange(6.0).reshape(3, 2), columns=["a", "b"])
    return [
        plain, full, full.set_index("t"), full.set_index("s"), full.iloc[:0], full.iloc[::-1],
        pd.DataFrame({"x": range(4)}, index=pairs), pd.DataFrame(np.zeros((2, 3))),
        pd.DataFrame({"x": [1]}, index=pd.RangeIndex(5, 15, 10, name="r")),
        pd.DataFrame([[1, 2]], columns=pd.MultiIndex.from_tuples([("a", "x"), ("a", "y")])),
        pd.DataFrame(np.zeros((1, 2000)), columns=[f"c\n{i}" * 9 for i in range(2000)]), plain.iloc[:, ::-1],
    ]  # fmt: skip


def back(value: Any, folder: pathlib.Path) -> Any:
    """A value, written and read."""
    handler = handler_of(value)
    path = folder / f"{len(list(folder.iterdir()))}{handler.suffix}"
    handler.write(value, path)
    return handler.read(path)


def any_frame() -> Any:
    pdst = pytest.importorskip("hypothesis.extra.pandas")
    numbers = pdst.column("f", dtype=float), pdst.column("i", dtype="int32"), pdst.column("b", dtype=bool)
    texts = pdst.column(
        "s", elements=st.none() | st.text(st.characters(codec="utf-8", exclude_characters="\0")), dtype=object
    )
    return pdst.data_frames([*numbers, texts, pdst.column("t", dtype="datetime64[ns]")])

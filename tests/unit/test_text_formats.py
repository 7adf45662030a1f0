"""Frames and arrays as text: CSV and JSON that are read back give an equal value, or a tag says how it differs."""

from __future__ import annotations

import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import torch

from trackdsl import load_artifact, stage, track_returns
from trackdsl.handlers import handler_for
from trackdsl.testing import capture_runs

DAYS = pd.date_range("2024", periods=3, freq="D", name="day")
ROWS = pd.DataFrame({"a": [1, 2, 3]})
FRAMES: dict[str, pd.DataFrame] = {
    "labels": ROWS.set_axis(["x", "y", "z"]),
    "named index": ROWS.set_axis(pd.Index([3, 1, 2], name="k")),
    "range": ROWS.set_axis(pd.RangeIndex(5, 35, 10, name="r")),
    "levels": ROWS.set_axis(pd.MultiIndex.from_arrays([[1, 1, 2], ["x", "y", "x"]], names=["n", None])),
    "frequency": ROWS.set_axis(DAYS),
    "hours": ROWS.set_axis(pd.date_range("2024", periods=3, freq="2h", tz="Europe/Berlin")),
    "leading zeros": pd.DataFrame({"zip": ["007", "010"], "x": ["1", "2"]}),
    "days": pd.DataFrame({"t": pd.to_datetime(["2024-01-02", None])}),
    "moments": pd.DataFrame({"t": pd.to_datetime(["2024-01-02 03:04:05.123456", "2024-07-01"], format="ISO8601")}),
    "time zone": pd.DataFrame({"t": pd.to_datetime(["2024-01-02", "2024-07-01"]).tz_localize("Europe/Berlin")}),
    "durations": pd.DataFrame({"d": pd.to_timedelta([1, None], unit="s")}),
    "periods": pd.DataFrame({"p": pd.period_range("2024", periods=2, freq="M")}),
    "categories": pd.DataFrame(
        {"c": pd.Categorical(["x", None], ["z", "x"], ordered=True), "n": pd.Categorical([2, 1], [3, 2, 1])}
    ),
    "small numbers": pd.DataFrame({"i": np.array([1, 2], "i1"), "f": np.array([0.1, 0.2], "f4")}),
    "nullable": pd.DataFrame({"i": pd.array([1, None], "Int64"), "b": pd.array([True, None], "boolean")}),
    "text of numbers": pd.DataFrame({"s": pd.array(["1", None], "string")}),
    "empty texts": pd.DataFrame({"s": ["a", "", "NA"]}),
    "empty and missing texts": pd.DataFrame({"s": ["a", None, ""]}),
    "dates": pd.DataFrame({"d": [datetime.date(2024, 1, 2), None]}),
    "decimals": pd.DataFrame({"d": [Decimal("1.50"), Decimal("2")]}),
    "whole objects": pd.DataFrame({"d": pd.Series([1, None], dtype=object)}),
    "text as objects": pd.DataFrame({"s": pd.Series(["007", None, ""], dtype=object)}),
    "nothing": pd.DataFrame(),
    "rows alone": pd.DataFrame(index=range(3)),
    "names of numbers": pd.DataFrame(np.zeros((2, 3))),
    "names of years": pd.DataFrame([[1, 2]], columns=[2023, 2024]),
    "names twice": pd.DataFrame([[1, 2]], columns=["a", "a"]),
    "name of the columns": pd.DataFrame([[1, 2]], columns=pd.Index(["a", "b"], name="q")),
    "no rows": pd.DataFrame({"a": pd.Series([], dtype="f8"), "s": pd.Series([], dtype="str")}),
    "digits": pd.DataFrame({"x": [0.1 + 0.2, 1e-300, 1 / 3]}),
    "signs": pd.DataFrame({"a\nb": ["x\ny\rz", 'q"uo,te'], "t\t": ["\t", " "]}),
}  # fmt: skip
OTHERS: dict[str, pd.Series | pd.Index] = {
    "unnamed": pd.Series([1, 2]),
    "named": pd.Series([1.5, None], name="x"),
    "named by a number": pd.Series([1], name=3),
    "named by nothing": pd.Series(["007"], name=""),
    "labels of a series": pd.Series(["a"], ["k"]),
    "frequency of a series": pd.Series([1, 2, 3], DAYS),
    "index of days": DAYS,
    "index of labels": pd.Index(["007"], name="k"),
}
SUFFIXES = (".csv", ".tsv", ".json", ".parquet")


def equal(found: Any, value: Any) -> None:
    """Check that a value has come back, with its names, types and frequency."""
    if isinstance(value, pd.DataFrame):
        pd.testing.assert_frame_equal(found, value, check_exact=True)
    elif isinstance(value, pd.Series):
        pd.testing.assert_series_equal(found, value, check_exact=True)
    else:
        pd.testing.assert_index_equal(found, value)
        assert getattr(found, "freq", None) == getattr(value, "freq", None)


def kept(value: Any, suffix: str) -> tuple[Any, set[str], dict[str, str]]:
    """What comes back of a value that a function returns, the files that were kept, and the omissions."""
    with capture_runs() as captured, stage("s") as run:
        track_returns("x", artifacts={"x": f"x{suffix}"})(lambda: value)()
        found = load_artifact(run, f"x{suffix}")
        run_ = captured.one("s")
        return found, set(run_.artifacts), {k: v for k, v in run_.tags.items() if "omitted" in k}


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("kind", [*FRAMES, *OTHERS])
def test_what_pandas_writes_comes_back(kind: str, suffix: str) -> None:
    """Index, names, types, number-like texts and frequencies come back equal from each format, without a report."""
    value = FRAMES.get(kind, OTHERS.get(kind))
    if suffix == ".parquet" and kind in ("names twice", "whole objects", "text as objects", "nothing", "rows alone"):
        pytest.skip("Parquet has no such frame")
    found, files, omissions = kept(value, suffix)
    equal(found, value)
    assert files <= {f"x{suffix}", f"x{suffix}.dtypes.json"}
    assert omissions == {}


@pytest.mark.parametrize("suffix", [".csv", ".json"])
def test_a_file_that_says_all_is_alone(suffix: str) -> None:
    """Numbers and plain texts without an index have no file of types beside them."""
    frame = pd.DataFrame({"a": [1, 2], "b": ["x", "y"], "c": [0.1, None], "d": [True, False]})
    found, files, omissions = kept(frame, suffix)
    equal(found, frame)
    assert (files, omissions) == ({f"x{suffix}"}, {})


UNKEPT: dict[str, Any] = {
    "objects": pd.DataFrame({"a": [b"x", b"y"]}),
    "levels of columns": pd.DataFrame([[1, 2]], columns=pd.MultiIndex.from_tuples([("a", "x"), ("a", "y")])),
    "intervals": pd.DataFrame({"p": pd.interval_range(0, 2)}),
    "fields": np.array([(1, 2.5)], dtype=[("a", int), ("b", float)]),
    "durations of NumPy": np.array([1], "m8[s]"),
}


@pytest.mark.parametrize("kind", UNKEPT)
def test_what_text_cannot_hold_is_reported(kind: str, caplog: pytest.LogCaptureFixture) -> None:
    """What CSV cannot hold is written and readable; a tag and one log line say that it reads back differently."""
    value = UNKEPT[kind]
    found, files, omissions = kept(value, ".csv")
    assert np.size(found) > 0
    assert files == {"x.csv"}
    assert "read back, it differs" in omissions["trackdsl.omitted.x.csv"]
    assert len(caplog.records) == 1


ARRAYS: dict[str, Any] = {
    "plain": np.arange(3.0), "one": np.array([1.5]), "row": np.array([[1, 2]], "i1"), "column": np.array([[1], [2]]),
    "truth": np.array([True, False]), "digits": np.array(["007", "1"]), "complex": np.array([1 + 2j]),
    "days": np.array(["2024-01-02", "NaT"], "M8[D]"), "float32": np.array([0.1], "f4"), "order": np.zeros(2, ">i4"),
    "missing": np.array([np.nan, np.inf]), "empty": np.zeros((0, 3)),
}  # fmt: skip


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".txt", ".json"])
@pytest.mark.parametrize("kind", ARRAYS)
def test_arrays_as_text_come_back(kind: str, suffix: str) -> None:
    """Arrays and tensors as text come back with their type and shape."""
    value = ARRAYS[kind]
    found, _, omissions = kept(value, suffix)
    assert (found.dtype, found.shape, omissions) == (value.dtype, value.shape, {})
    assert np.array_equal(found, value, equal_nan=value.dtype.kind in "fcM")
    if value.dtype.kind == "f":
        tensor = torch.from_numpy(value).half()
        again, _, _ = kept(tensor, suffix)
        assert (again.dtype, again.shape) == (tensor.dtype, tensor.shape)


def polars_frames() -> dict[str, Any]:
    moment = datetime.datetime(2024, 1, 2, 3, 4, 5, 6)
    return {
        "categories": pl.Series(["x", None], dtype=pl.Categorical),
        "enum": pl.Series(["x"], dtype=pl.Enum(["y", "x"])),
        "moments": pl.Series([moment]),
        "zone": pl.Series([moment]).dt.replace_time_zone("Europe/Berlin"),
        "days": pl.Series([moment.date(), None]),
        "times": pl.Series([moment.time()]),
        "small": pl.Series([1], dtype=pl.Int8),
        "decimals": pl.Series([Decimal("1.5"), None]),
        "truth": pl.Series([True, None]),
        "digits": pl.Series(["007", ""]),
    }


@pytest.mark.parametrize("suffix", [".csv", ".json"])
@pytest.mark.parametrize("kind", polars_frames())
def test_what_polars_writes_comes_back(kind: str, suffix: str) -> None:
    """Frames and series of polars come back equal."""
    frame = polars_frames()[kind].alias("a").to_frame()
    found, _, omissions = kept(frame, suffix)
    assert found.schema == frame.schema
    assert found.equals(frame)
    assert kept(frame["a"], suffix)[0].equals(frame["a"])
    assert omissions == {}


def test_an_empty_frame_of_polars_comes_back() -> None:
    """A polars frame without columns comes back equal."""
    found, _, omissions = kept(pl.DataFrame(), ".csv")
    assert found.equals(pl.DataFrame())
    assert omissions == {}


def test_a_panic_of_a_library_stays_away_from_the_program(caplog: pytest.LogCaptureFixture) -> None:
    """If polars cannot write JSON, an error that is not an `Exception`, the value is kept in another form."""
    frame = pl.DataFrame({"a": [b"x"]})
    with capture_runs() as captured, stage("s") as run:
        track_returns("x", artifacts={"x": "x.json"})(lambda: frame)()
        found = load_artifact(run, "x.json.pkl", trusted=True)
    assert found.equals(frame)
    assert "PanicException" in captured.one("s").tags["trackdsl.omitted.x.json"]
    assert caplog.records


def test_what_arrow_writes_comes_back() -> None:
    """Arrow tables as CSV come back equal."""
    table = pa.table(
        {"a": pa.array([1, None], pa.int8()), "s": ["007", ""], "c": pa.array(["x", None]).dictionary_encode(),
         "t": pa.array([1, 2], pa.timestamp("us"))}
    )  # fmt: skip
    found, _, omissions = kept(table, ".csv")
    assert found.schema == table.schema
    assert found.equals(table)
    assert omissions == {}


def test_a_handler_reads_files_without_types(tmp_path: Path) -> None:
    """Files of older versions, and those that no handler wrote, are read as before."""
    (tmp_path / "a.csv").write_text("zip\n007\n")
    assert handler_for(pd.DataFrame).read(tmp_path / "a.csv")["zip"].tolist() == [7]
    (tmp_path / "a.json").write_text('{"columns": ["a"], "index": ["x"], "data": [[1]]}')
    assert handler_for(pd.DataFrame).read(tmp_path / "a.json").index.tolist() == ["x"]

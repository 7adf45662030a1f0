"""What `log_metric` and `log_metrics` take: numbers of every kind, structures, and series by step."""

from __future__ import annotations

import array
import collections
import decimal
import fractions
import math
from collections.abc import Callable
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import torch

import trackdsl
from trackdsl import log_metric, log_metrics, stage, steps
from trackdsl.testing import RecordedRun, capture_runs


def recorded(log: Callable[[], None]) -> RecordedRun:
    """The run on which `log` records."""
    with capture_runs() as captured, stage("f"):
        log()
    return captured.one("f")


def series_of(run: RecordedRun) -> dict[str, list[tuple[int, float]]]:
    return {name: [(point.step, point.value) for point in found] for name, found in run.metrics.items()}


def omitted(run: RecordedRun) -> dict[str, str]:
    start = "trackdsl.omitted."
    return {name.removeprefix(start): why for name, why in run.tags.items() if name.startswith(start)}


SINGLE: dict[str, tuple[Any, float]] = {
    "array of one": (np.array([3.0]), 3),
    "array of one by one": (np.array([[3]]), 3),
    "series of one": (pd.Series([3.0]), 3),
    "series of one with a label": (pd.Series({"a": 3.0}), 3),
    "index of one": (pd.Index([3]), 3),
    "polars series of one": (pl.Series([3.0]), 3),
    "tensor of one": (torch.tensor([3.0], requires_grad=True), 3),
    "list of one": ([3.0], 3),
    "array of truth": (np.array([True]), 1),
    "text": ("0.5", 0.5),
    "text with an exponent": (" 1e-3\n", 0.001),
    "numpy text": (np.str_("0.5"), 0.5),
    "decimal": (decimal.Decimal("2.5"), 2.5),
    "fraction": (fractions.Fraction(1, 4), 0.25),
    "bool": (True, 1),
    "numpy bool": (np.bool_(False), 0),
    "pandas float": (pd.array([1.5])[0], 1.5),
    "half": (np.float16(0.5), 0.5),
    "brain float": (torch.tensor([0.5], dtype=torch.bfloat16), 0.5),
    "array of text": (np.array(["0.5"]), 0.5),
    "masked array": (np.ma.array([3.0], mask=[False]), 3),
    "array of no dimension": (np.array(decimal.Decimal("1.5"), dtype=object), 1.5),
}


@pytest.mark.parametrize("kind", SINGLE)
def test_what_is_one_number(kind: str) -> None:
    """Numbers in an array, a series, a tensor or a text are the number, in both functions and at the given step."""
    value, number = SINGLE[kind]

    def log() -> None:
        log_metric("one", value, step=7)
        log_metrics({"all": value, "deep": {"er": value}}, step=7)

    run = recorded(log)
    assert series_of(run) == {name: [(7, number)] for name in ("one", "all", "deep/er")}
    assert omitted(run) == {}


NONE: dict[str, Any] = {
    "None": None,
    "NA": pd.NA,
    "NaT": pd.NaT,
    "text": "best",
    "empty text": "",
    "bytes": b"1",
    "complex": np.array([1 + 2j]),
    "moment": pd.Timestamp("2026-01-01"),
    "numpy moment": np.array(["2026-01-01"], dtype="datetime64[s]"),
    "matrix": np.eye(2),
    "texts": ["a", "b"],
    "mixed": [0.5, object()],
    "nothing": [],
    "only missing": [None, pd.NA],
    "generator": (number for number in (1, 2)),
    "set": {1.0, 2.0},
    "huge": 10**400,
    "too long": np.zeros(200_000),
    "too long a series": pd.Series(np.zeros(200_000)),
    "masked": np.ma.masked,
    "masked item": np.ma.array([1.0], mask=[True]),
    "complex tensor": torch.tensor(1j),
}


@pytest.mark.parametrize("kind", NONE)
def test_what_is_no_number(kind: str, caplog: pytest.LogCaptureFixture) -> None:
    """What is not a number is left out with a tag and a log line, and the others of the call are recorded."""
    value = NONE[kind]

    def log() -> None:
        log_metric("one", value)
        log_metrics({"part": value, "good": 1, "deep": {"er": value, "fine": 2}})

    run = recorded(log)
    assert series_of(run) == {"good": [(0, 1)], "deep/fine": [(0, 2)]}
    assert set(omitted(run)) == {"one", "part", "deep/er"}
    assert all(" is not a number: " in why for why in omitted(run).values())
    assert caplog.records


LOSS = [(0, 0.3), (1, 0.2)]
LATER = [(5, 0.3), (6, 0.2)]
FRAME = {"step": [5, 6], "loss": [0.3, 0.2]}
RECORDS = [{"step": 5, "loss": 0.3}, {"step": 6, "loss": 0.2, "note": "x"}]

SERIES: dict[str, tuple[Any, dict[str, list[tuple[int, float]]]]] = {
    "list": ({"loss": [0.3, 0.2]}, {"loss": LOSS}),
    "tuple": ({"loss": (0.3, 0.2)}, {"loss": LOSS}),
    "deque": ({"loss": collections.deque([0.3, 0.2])}, {"loss": LOSS}),
    "range": ({"loss": range(3, 5)}, {"loss": [(0, 3), (1, 4)]}),
    "array": ({"loss": np.array([0.3, 0.2])}, {"loss": LOSS}),
    "tensor": ({"loss": torch.tensor([0.5, 0.25], requires_grad=True)}, {"loss": [(0, 0.5), (1, 0.25)]}),
    "pandas series": ({"loss": pd.Series([0.3, 0.2])}, {"loss": LOSS}),
    "polars series": ({"loss": pl.Series([0.3, 0.2])}, {"loss": LOSS}),
    "arrow array": ({"loss": pa.chunked_array([[0.3, 0.2]])}, {"loss": LOSS}),
    "numbers of numpy": ({"loss": [np.float64(0.3), np.float64(0.2)]}, {"loss": LOSS}),
    "texts": ({"loss": ["0.3", "0.2"]}, {"loss": LOSS}),
    "with holes": ({"loss": [0.3, None, 0.2]}, {"loss": [(0, 0.3), (2, 0.2)]}),
    "beside a number": ({"loss": [0.3, 0.2], "acc": 0.9}, {"acc": [(0, 0.9)], "loss": LOSS}),
    "of other lengths": ({"loss": [0.3, 0.2], "acc": [1]}, {"loss": LOSS, "acc": [(0, 1)]}),
    "of two levels": (
        {"train": {"rmse": [0.3, 0.2]}, "val": {"rmse": [0.3, 0.2]}}, {"train/rmse": LOSS, "val/rmse": LOSS},
    ),
    "steps among the lists": (FRAME, {"loss": LATER}),
    "epochs in capitals": ({"Epoch": [5.0, 6.0], "loss": [0.3, 0.2]}, {"loss": LATER}),
    "steps further in": ({"a": {"b": FRAME}}, {"a/b/loss": LATER}),
    "steps that are none": (
        {"step": [0.5, 1.5], "loss": [0.3, 0.2]}, {"step": [(0, 0.5), (1, 1.5)], "loss": LOSS},
    ),
    "epochs of some": (
        {"epoch": [1, 2], "loss": [0.3, 0.2], "val": {"loss": [0.4, 0.3]}, "best": 0.2, "late": [1]},
        {"loss": [(1, 0.3), (2, 0.2)], "val/loss": [(1, 0.4), (2, 0.3)], "best": [(0, 0.2)], "late": [(0, 1)]},
    ),
    "steps that are missing": (
        pd.DataFrame({"step": [1, math.nan], "loss": [0.3, 0.2]}), {"step": [(0, 1)], "loss": LOSS},
    ),
    "steps of a logger": ({"trainer/global_step": [5, 6], "loss": [0.3, 0.2]}, {"loss": LATER}),
    "a metric that is called step": ({"step": 3, "loss": 0.5}, {"step": [(0, 3)], "loss": [(0, 0.5)]}),
    "indexed series": (pd.Series([0.3, 0.2], index=[5, 6], name="loss"), {"loss": LATER}),
    "indexed series in a dict": ({"loss": pd.Series([0.3, 0.2], index=[5, 6])}, {"loss": LATER}),
    "plain series": (pd.Series([0.3, 0.2], name="loss"), {"loss": LOSS}),
    "series without a name": (pl.Series([0.3, 0.2]), {"value": LOSS}),
    "column of a frame": ({"train": pd.DataFrame({"loss": [0.3, 0.2]})["loss"]}, {"train": LOSS}),
    "column of a polars frame": ({"train": pl.Series("loss", [0.3, 0.2])}, {"train": LOSS}),
    "frame of one cell": ({"val": pl.DataFrame({"acc": [0.5]})}, {"val/acc": [(0, 0.5)]}),
    "arrays of one": ({"loss": [np.array([0.3]), torch.tensor([0.5])]}, {"loss": [(0, 0.3), (1, 0.5)]}),
    "array of the standard library": ({"loss": array.array("d", [0.3, 0.2])}, {"loss": LOSS}),
    "values of a dict": ({"loss": {"a": 0.3, "b": 0.2}.values()}, {"loss": LOSS}),
    "masked values": ({"loss": np.ma.array([0.3, 9.0], mask=[False, True])}, {"loss": [(0, 0.3)]}),
    "labelled series": (pd.Series({"acc": 0.5, "f1": 0.25}), {"acc": [(0, 0.5)], "f1": [(0, 0.25)]}),
    "labelled series in a dict": ({"val": pd.Series({"a": 1, "b": 2})}, {"val/a": [(0, 1)], "val/b": [(0, 2)]}),
    "frame": (pd.DataFrame(FRAME), {"loss": LATER}),
    "frame by epoch, then step": (
        pd.DataFrame({"epoch": [0, 0], **FRAME}), {"epoch": [(5, 0), (6, 0)], "loss": LATER},
    ),
    "frame with an index": (pd.DataFrame(FRAME).set_index("step"), {"loss": LATER}),
    "frame without steps": (pd.DataFrame({"loss": [0.3, 0.2]}), {"loss": LOSS}),
    "frame of one row": (pd.DataFrame({"loss": [0.5], "acc": [1]}), {"loss": [(0, 0.5)], "acc": [(0, 1)]}),
    "frame with labels": (
        pd.DataFrame({"f1": [0.5, 1]}, index=["cat", "dog"]), {"cat/f1": [(0, 0.5)], "dog/f1": [(0, 1)]},
    ),
    "frame with holes": (
        pd.DataFrame({"step": [5, 6, 7], "loss": [0.3, 0.2, math.nan], "val": [math.nan, math.nan, 1]}),
        {"loss": LATER, "val": [(7, 1)]},
    ),
    "labels of two levels": (
        pd.Series([0.5, 1.0], pd.MultiIndex.from_tuples([("a", 1), ("b", 2)])), {"a/1": [(0, 0.5)], "b/2": [(0, 1)]},
    ),
    "labels of truth": (pd.Series([0.5, 1.0], [True, False]), {"True": [(0, 0.5)], "False": [(0, 1)]}),
    "steps of two levels": (
        pd.DataFrame({"epoch": [0, 0], **FRAME}).set_index(["epoch", "step"]), {"loss": LATER},
    ),
    "frame in a dict": ({"log": pd.DataFrame(FRAME)}, {"log/loss": LATER}),
    "polars frame": (pl.DataFrame(FRAME), {"loss": LATER}),
    "arrow table": (pa.table(FRAME), {"loss": LATER}),
    "several points of one step": (
        pd.DataFrame({"epoch": [1, 1], "loss": [0.3, 0.2]}), {"loss": [(1, 0.3), (1, 0.2)]},
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", SERIES)
def test_series_are_points_by_step(kind: str) -> None:
    """Lists, series, frames, and dicts of such: each value at its step, which may be part of the data."""
    value, expected = SERIES[kind]
    run = recorded(lambda: log_metrics(value))
    assert series_of(run) == expected
    assert omitted(run) == {}


def test_records_are_points_by_step() -> None:
    """A list of records, as `transformers` keeps its log, gives points; other values in it are left out with a tag."""
    run = recorded(lambda: log_metrics(RECORDS))
    assert series_of(run) == {"loss": LATER}
    assert set(omitted(run)) == {"note"}


def test_where_a_series_begins() -> None:
    """A series begins at the step of the call, given or that of the loop; steps in the data come first."""

    def log() -> None:
        for _ in steps(range(10, 11)):
            log_metrics({"loop": [1, 2]})
            log_metrics({"given": [1, 2]}, step=3)
            log_metric("single", [1, 2], step=3)
            log_metrics({"own": pd.Series([1, 2], index=[100, 200])}, step=3)

    assert series_of(recorded(log)) == {
        "loop": [(10, 1), (11, 2)], "given": [(3, 1), (4, 2)], "single": [(3, 1), (4, 2)],
        "own": [(100, 1), (200, 2)],
    }  # fmt: skip


def test_nan_in_a_list_is_a_point() -> None:
    """A loss that is NaN is a point with NaN; in a frame it is a cell without a value."""
    run = recorded(lambda: log_metrics({"loss": [0.5, math.nan]}))
    assert [math.isnan(point.value) for point in run.metrics["loss"]] == [False, True]


def test_a_structure_of_itself_ends() -> None:
    """A dict that holds itself is recorded once."""
    value: dict[str, Any] = {"a": 1}
    value["self"] = value
    assert series_of(recorded(lambda: log_metrics(value))) == {"a": [(0, 1)]}


@pytest.mark.parametrize(
    "metrics", [3, [1, 2], "loss", None, object(), np.eye(2)], ids=lambda value: type(value).__name__
)
def test_metrics_without_names(metrics: Any) -> None:
    """Metrics without names are not recorded, and a tag says so; nothing is raised."""
    run = recorded(lambda: log_metrics(metrics))
    assert run.metrics == {}
    assert set(omitted(run)) == {"log_metrics"}


def test_mlflow_has_no_keyword_that_we_refuse() -> None:
    """We have every argument of MLflow's functions, except those that name another run or model."""
    import inspect

    elsewhere = {"run_id", "model_id", "dataset", "model"}
    for name in ("log_metric", "log_metrics", "log_param", "log_params", "set_tag", "set_tags", "log_artifact",
                 "log_artifacts", "log_dict", "log_text", "log_figure", "log_table", "log_image"):  # fmt: skip
        theirs = set(inspect.signature(getattr(mlflow, name)).parameters) - elsewhere
        for ours in (getattr(trackdsl, name), getattr(trackdsl.Run, name)):
            assert theirs <= set(inspect.signature(ours).parameters), name


def test_a_metric_has_one_name_and_a_value() -> None:
    """Two names, no name or no value raise an error at once."""
    with capture_runs(), stage("f") as run:
        for wrong in ({"name": "a", "key": "b", "value": 1}, {"value": 1}, {"name": "a"}, {}, {"name": {}, "value": 1}):
            with pytest.raises(TypeError):
                run.log_metric(**wrong)
            with pytest.raises(TypeError):
                log_metric(**wrong)


@pytest.mark.parametrize("value", [0.5, np.array([0.5]), [0.5, 0.25]], ids=lambda value: type(value).__name__)
def test_a_metric_the_other_way_round(value: Any) -> None:
    """`log_metric(0.5, "loss")` and `log_metrics(7, {...})`, with their arguments exchanged, are recorded as meant."""

    def log() -> None:
        log_metric(value, "loss")  # type: ignore[call-overload]
        log_metrics(7, {"acc": 1})  # type: ignore[arg-type]

    expected = [(at, number) for at, number in enumerate(np.ravel(value).tolist())]
    assert series_of(recorded(log)) == {"loss": expected, "acc": [(7, 1)]}

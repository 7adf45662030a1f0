"""Returned values by the names given to `track_returns`: what they select, and what happens where they do not fit."""

from __future__ import annotations

import collections
import json
import logging
import types
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pytest
import torch

import trackdsl
from trackdsl import stage, track_returns
from trackdsl.testing import RecordedRun, capture_runs


class Kept(NamedTuple):
    """What a run has of a returned value."""

    run: RecordedRun
    metrics: dict[str, float]
    files: dict[str, Any]
    omitted: dict[str, str]


def returned(value: Any, *names: str, **options: Any) -> Kept:
    """What is recorded of `value`, which a function `f` returned; the caller gets the same object."""
    with capture_runs() as captured:

        @stage
        @track_returns(*names, **options)
        def f():  # type: ignore[no-untyped-def]
            return value

        assert f() is value
        return kept(captured.one("f"))


def kept(run: RecordedRun) -> Kept:
    start = "trackdsl.omitted."
    files = {
        path: json.loads(file.read_text()) if path.endswith(".json") else file.read_bytes()
        for path, file in run.artifacts.items()
    }
    assert run.status == "FINISHED"
    return Kept(
        run,
        {name: found[-1].value for name, found in run.metrics.items()},
        files,
        {name.removeprefix(start): why for name, why in run.tags.items() if name.startswith(start)},
    )


CONFIG = {"acc": 0.9, "config": {"name": "x", "lr": 0.1}}


@pytest.mark.parametrize("artifacts", [{"config": "config.json"}, ["config"], "config"], ids=repr)
def test_a_structure_that_is_named_is_one_file(artifacts: Any) -> None:
    """A named structure is kept whole, under its path or its name, and none of it is a metric."""
    found = returned(CONFIG, artifacts=artifacts)
    assert found.metrics == {"acc": 0.9}
    assert found.files == {"config.json": CONFIG["config"]}
    assert found.omitted == {}


def test_the_name_of_the_function_or_of_an_index_names_the_whole() -> None:
    """`artifacts={"f": ...}` keeps all that `f` returned in one file; `f.1` is its second value in any case."""
    found = returned(CONFIG, artifacts={"f": "all.json"})
    assert (found.metrics, found.files, found.omitted) == ({}, {"all.json": CONFIG}, {})
    found = returned((0.5, CONFIG), artifacts={"f.1": "second.json"})
    assert (found.metrics, found.files, found.omitted) == ({"f.0": 0.5}, {"second.json": CONFIG}, {})
    found = returned({"f": {"a": 1}, "b": 2}, artifacts={"f": "f.json"})
    assert (found.metrics, found.files, found.omitted) == ({"b": 2}, {"f.json": {"a": 1}}, {})


def test_names_that_a_mapping_does_not_have() -> None:
    """If a mapping lacks a name, the reason suggests the most similar of its names."""
    found = returned({"val": {"accuracy": 0.5}, "n": 1}, "val/acuracy", "n")
    assert set(found.omitted) == {"val/acuracy"}
    assert "did you mean `val/accuracy`?" in found.omitted["val/acuracy"]


def test_named_files_further_in_and_of_numbers() -> None:
    """A path names what is further in; a named number is a file, and a metric too if named as one."""
    value = {"a": {"b": {"c": 1, "d": "x"}, "e": 2}, "loss": 0.5, "acc": 0.25}
    found = returned(value, artifacts={"a/b": "deep/b.yaml", "loss": "loss.txt"})
    assert found.metrics == {"a/e": 2, "acc": 0.25}
    assert found.files == {"deep/b.yaml": b"c: 1\nd: x\n", "loss.txt": b"0.5"}
    found = returned(value, metrics=["loss"], artifacts={"loss": "loss.txt"})
    assert (found.metrics, found.files) == ({"loss": 0.5}, {"loss.txt": b"0.5"})


def test_a_metric_by_the_name_of_its_structure() -> None:
    """`metrics=["val"]` selects the numbers in `val`, and nothing else."""
    found = returned({"val": {"loss": 0.5, "note": "x"}, "train": {"loss": 1}}, metrics=["val"])
    assert found.metrics == {"val/loss": 0.5}
    assert found.omitted == {}


def test_what_is_named_a_metric_and_is_a_text_or_a_list() -> None:
    """A named metric may be a text with a number, or a list as a series; anything else is reported."""
    found = returned({"a": "0.5", "b": [1, 2], "c": "x"}, metrics=["a", "b", "c"])
    assert found.metrics == {"a": 0.5, "b": 2}
    assert [point.step for point in found.run.metrics["b"]] == [0, 1]
    assert "is not a number" in found.omitted["c"]


@pytest.mark.parametrize("option", ["metrics", "artifacts"])
def test_a_name_that_never_occurs(option: str, caplog: pytest.LogCaptureFixture) -> None:
    """A tag and a log line report a name that never occurs, suggest a similar one, and list those that there were."""
    found = returned(CONFIG, **{option: ["acc", "confg"]})  # type: ignore[arg-type]
    assert set(found.omitted) == {"confg"}
    assert f"{option}=" in found.omitted["confg"]
    assert "did you mean `config`?" in found.omitted["confg"]
    assert "acc" in found.omitted["confg"]
    assert "did you mean `config`?" in caplog.text


@pytest.mark.parametrize(
    ("value", "metrics", "missing"),
    [
        ([0.9, 0.1], {"acc": 0.9, "loss": 0.1}, set()),
        ((0.9, 0.1), {"acc": 0.9, "loss": 0.1}, set()),
        (np.array([0.9, 0.1]), {"acc": 0.9, "loss": 0.1}, set()),
        (torch.tensor([0.5, 0.25]), {"acc": 0.5, "loss": 0.25}, set()),
        (pd.Series([0.9, 0.1]), {"acc": 0.9, "loss": 0.1}, set()),
        (collections.namedtuple("Pair", "x y")(0.9, 0.1), {"acc": 0.9, "loss": 0.1}, set()),
        (collections.namedtuple("Pair", "loss acc")(0.1, 0.9), {"acc": 0.9, "loss": 0.1}, set()),
        ({"loss": 0.1, "acc": 0.9, "f1": 1}, {"acc": 0.9, "loss": 0.1, "f1": 1}, set()),
        ({"loss": 0.1}, {"loss": 0.1}, {"acc"}),
        ([0.9], {"acc": 0.9}, {"loss"}),
        ((0.9,), {"acc": 0.9}, {"loss"}),
        (0.9, {"acc": 0.9}, {"loss"}),
        ((), {}, {"acc", "loss"}),
        ([], {}, {"acc", "loss"}),
        ([0.9, 0.1, 3], {"acc": 0.9, "loss": 0.1, "f.2": 3}, set()),
        ((0.9, 0.1, 3), {"acc": 0.9, "loss": 0.1, "f.2": 3}, set()),
        ((0.9, None), {"acc": 0.9}, set()),
        (None, {}, set()),
    ],
)  # fmt: skip
def test_more_or_fewer_values_than_names(
    value: Any, metrics: dict[str, float], missing: set[str], caplog: pytest.LogCaptureFixture
) -> None:
    """With more or fewer values than names nothing is raised: values are recorded in order or by key."""
    found = returned(value, "acc", "loss")
    assert found.metrics == pytest.approx(metrics)
    assert set(found.omitted) == missing
    assert bool(caplog.records) == bool(missing)


def test_values_that_are_handed_on_one_by_one() -> None:
    """A returned generator is not used up, and a long list is not a pair: both are reported."""
    numbers = (number for number in (1, 2))
    found = returned(numbers, "acc", "loss")
    assert set(found.omitted) == {"acc.pkl", "loss"}
    assert list(numbers) == [1, 2]
    found = returned([0.5] * 1000, "acc", "loss")
    assert (found.metrics, set(found.files), set(found.omitted)) == ({}, {"acc.json"}, {"loss"})


def test_what_fails_once_the_function_has_run_stays_inside() -> None:
    """Faults after the function has run never reach its caller: sections, coroutines, surplus names, bad values."""

    class Odd(dict):  # type: ignore[type-arg]
        def copy(self) -> Any:
            raise trackdsl.OptionError("of the user's own", option="x")

        def __reduce__(self) -> Any:
            raise trackdsl.OptionError("of the user's own", option="x")

    odd = Odd(a=1)
    with capture_runs() as captured, stage("f"):
        assert track_returns("a", "b", "c")(lambda: (odd, 1))() == (odd, 1)

        @stage(nested=False)
        @track_returns("a", "b")
        def section():  # type: ignore[no-untyped-def]
            return [1]

        assert section() == [1]
    run = captured.one("f")
    assert run.status == "FINISHED"
    assert run.metric("b") == 1
    assert run.metric("section/a") == 1
    assert {"trackdsl.omitted.c", "trackdsl.omitted.b"} <= set(run.tags)


def test_an_annotation_that_is_understood_too_late() -> None:
    """More names than values of an annotation that is only defined later raise nothing."""
    with capture_runs() as captured:

        @stage
        @track_returns("a", "b")
        def f() -> LATER:  # noqa: F821 - defined below
            return (0.5,)

        globals()["LATER"] = tuple[float]
        assert f() == (0.5,)
    found = kept(captured.one("f"))
    assert (found.metrics, set(found.omitted)) == ({"a": 0.5}, {"b"})


def test_names_of_what_a_generator_yields(caplog: pytest.LogCaptureFixture) -> None:
    """Names select from yielded items as from a returned value; one that no item has is reported once, at the end."""
    with capture_runs() as captured:

        @stage
        @track_returns("acc", "loss")
        def pairs() -> Iterator[Any]:
            yield [0.5, 1]
            yield 0.75, 2

        @stage
        @track_returns(metrics=["acc", "lss"])
        def chosen() -> Iterator[Any]:
            yield {"acc": 0.5}
            yield {"acc": 0.75, "loss": 3}

        assert len(list(pairs()) + list(chosen())) == 4
    assert kept(captured.one("pairs")).metrics == {"acc": 0.75, "loss": 2}
    assert kept(captured.one("pairs")).omitted == {}
    found = kept(captured.one("chosen"))
    assert found.metrics == {"acc": 0.75}
    assert set(found.omitted) == {"lss"}
    assert "did you mean `loss`?" in found.omitted["lss"]
    assert len(caplog.records) == 1


ROUNDS = {"loss": [0.5, 0.25], "acc": [0.75, 1.0]}
POINTS = {"loss": [(0, 0.5), (1, 0.25)], "acc": [(0, 0.75), (1, 1.0)]}

HISTORIES: dict[str, tuple[Any, dict[str, list[tuple[int, float]]], set[str]]] = {
    "lists": (ROUNDS, POINTS, {"f.json"}),
    "lists by data set": (
        {"train": {"loss": [0.5]}, "val": collections.OrderedDict(loss=[0.25])},
        {"train/loss": [(0, 0.5)], "val/loss": [(0, 0.25)]}, {"f.json"},
    ),
    "lists beside numbers": (
        {"best": 1, "history": ROUNDS},
        {"best": [(0, 1)], **{f"history/{name}": found for name, found in POINTS.items()}}, {"f.json"},
    ),
    "lists with epochs": (
        {"epoch": [1, 2], **ROUNDS},
        {name: [(step + 1, value) for step, value in found] for name, found in POINTS.items()}, {"f.json"},
    ),
    "frame": (
        pd.DataFrame({"step": [0, 1], **ROUNDS}), POINTS, {"f.parquet"},
    ),
    "records": (
        [{"step": 0, "loss": 0.5}, {"step": 1, "loss": 0.25}], {"loss": POINTS["loss"]}, {"f.json"},
    ),
    "labelled series": (pd.Series({"loss": 0.5, "acc": 1}), {"loss": [(0, 0.5)], "acc": [(0, 1)]}, {"f.parquet"}),
    "names of one's own": (
        {"evals": {"validation_0": {"custom": [0.5]}}, "history": {"GradNorm": [0.5], "seconds": [2.0]}},
        {"evals/validation_0/custom": [(0, 0.5)], "history/GradNorm": [(0, 0.5)], "history/seconds": [(0, 2.0)]},
        {"f.json"},
    ),
    "names that libraries have": (
        {"valid_0": {"binary_logloss": [0.5]}, "learn": {"Logloss": [0.5]}, "x": {"ndcg@5": [0.5], "predLoss": [0.5]}},
        {name: [(0, 0.5)] for name in ("valid_0/binary_logloss", "learn/Logloss", "x/ndcg@5", "x/predLoss")},
        {"f.json"},
    ),
    "lists of whole numbers": ({"error": [1, 0]}, {"error": [(0, 1), (1, 0)]}, {"f.json"}),
    "in a structure": (
        types.SimpleNamespace(history={"loss": [0.5]}, best=1), {"history/loss": [(0, 0.5)], "best": [(0, 1)]},
        {"f.json"},
    ),
    # What is data, and no record of a training.
    "predictions": ({"y_true": [0.0, 1.0], "y_pred": [0.5, 1.0]}, {}, {"f.json"}),
    "predictions of parts": ({"test": {"y_true": [0.5], "y_pred": [0.5]}, "val": {"probs": [0.5]}}, {}, {"f.json"}),
    "a curve": ({"precision": [0.5, 1.0], "recall": [0.5, 1.0], "thresholds": [0.5, 1.0]}, {}, {"f.json"}),
    "any names": ({"height": [1.75, 1.5], "age": [30.5, 40.0]}, {}, {"f.json"}),
    "whole numbers": ({"layers": [64, 32], "sizes": [1, 2]}, {}, {"f.json"}),
    "lists of other lengths": ({"a": [0.5], "b": [0.5, 1]}, {}, {"f.json"}),
    "a list beside numbers": ({"acc": 1, "losses": [0.5]}, {"acc": [(0, 1)]}, {"f.json"}),
    "texts": ({"a": ["x"], "b": [0.5]}, {}, {"f.json"}),
    "arrays": ({"w": np.array([0.5, 1]), "b": np.array([0.5, 1])}, {}, {"w.npy", "b.npy"}),
    "frame without steps": (pd.DataFrame(ROUNDS), {}, {"f.parquet"}),
    "frame with texts": (pd.DataFrame({"step": [0, 1], "note": ["a", "b"]}), {}, {"f.parquet"}),
    "numbered series": (pd.Series([0.5, 1]), {}, {"f.parquet"}),
}  # fmt: skip


@pytest.mark.parametrize("kind", HISTORIES)
def test_a_returned_history(kind: str) -> None:
    """The history of a training gives points by step, and is kept as a file as before; data is a file."""
    value, expected, files = HISTORIES[kind]
    found = returned(value)
    assert {name: [(p.step, p.value) for p in each] for name, each in found.run.metrics.items()} == expected
    assert set(found.files) == files
    assert found.omitted == {}


def test_strict_raises_for_a_name_that_never_occurs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Under `TRACKDSL_STRICT=1` a name that never occurs raises, as every other fault."""
    with capture_runs():
        trackdsl.configure(strict=True)

        @stage
        @track_returns("a", "b")
        def f():  # type: ignore[no-untyped-def]
            return 1

        with pytest.raises(trackdsl.TrackingFault, match="'b'"):
            f()
    logging.getLogger("trackdsl").debug("strict is over")

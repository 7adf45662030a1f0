"""Arguments → parameters: every kind of value, on real stores, and back."""

from __future__ import annotations

import argparse
import collections
import dataclasses
import datetime
import decimal
import enum
import fractions
import functools
import json
import logging
import pathlib
import types
import uuid
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, NamedTuple

import attrs
import numpy as np
import omegaconf
import pandas as pd
import polars as pl
import pyarrow as pa
import pydantic
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.ensemble import RandomForestClassifier

import trackdsl
from tests.conftest import all_runs, client, deliver, last_run
from trackdsl import Dataset, Ignore, Param, Secret, stage
from trackdsl._recording.flatten import MAX_LEAVES, Flat, nest
from trackdsl.store_format.limits import MAX_KEY, escape_key, fit_key, unescape_key
from trackdsl.testing import capture_runs


class Color(enum.Enum):
    RED = 1


class Level(enum.IntEnum):
    LOW = 1


@dataclasses.dataclass
class Optimizer:
    lr: float = 0.1
    betas: tuple[float, float] = (0.9, 0.99)
    key: Annotated[str, Secret] = "a long secret"
    cache: Annotated[dict[str, int], Ignore] = dataclasses.field(default_factory=dict)
    schedule: dict[str, int] = dataclasses.field(default_factory=lambda: {"warmup": 3})


class Net(pydantic.BaseModel):
    layers: list[int] = [64, 32]
    optimizer: Optimizer = Optimizer()
    hidden: pydantic.SecretStr = pydantic.SecretStr("another long secret")


class Loose(pydantic.BaseModel, extra="allow"):
    a: int = 1


@attrs.define
class Cloud:
    region: str = "eu"
    nested: Optimizer = attrs.Factory(Optimizer)


class Point(NamedTuple):
    x: int
    y: Mapping[str, int]


class Half(float):
    pass


class Weird:
    def __init__(self) -> None:
        self.a = 1

    def __repr__(self) -> str:
        raise AssertionError("repr")


OPTIMIZER = {"lr": "0.1", "betas": "[0.9, 0.99]", "key": "***", "schedule.warmup": "3"}
CONFIG = omegaconf.OmegaConf.create(
    {
        "db": {"host": "h", "url": "${.host}/x", "port": "???", "dead": "${nowhere}"},
        "layers": [1, {"n": 2}],
        "none": None,
    }
)


def under(name: str, leaves: Mapping[str, str]) -> dict[str, str]:
    return {f"{name}.{key}": value for key, value in leaves.items()}


#: name of the argument → the value, and the parameters that MLflow then holds.
TABLE: dict[str, tuple[Any, dict[str, str]]] = {
    "none": (None, {"none": "None"}),
    "flag": (True, {"flag": "True"}),
    "large": (10**30, {"large": str(10**30)}),
    "half": (Half(0.5), {"half": "0.5"}),
    "infinite": (float("inf"), {"infinite": "inf"}),
    "text": ("grün\n", {"text": "grün\n"}),
    "color": (Color.RED, {"color": "Color.RED"}),
    "level": (Level.LOW, {"level": "1"}),
    "path": (pathlib.Path("a/b"), {"path": "a/b"}),
    "day": (datetime.date(2026, 1, 2), {"day": "2026-01-02"}),
    "moment": (datetime.datetime(2026, 1, 2, 3, 4), {"moment": "2026-01-02T03:04:00"}),
    "span": (datetime.timedelta(hours=1), {"span": "1:00:00"}),
    "price": (decimal.Decimal("1.50"), {"price": "1.50"}),
    "part": (fractions.Fraction(1, 3), {"part": "1/3"}),
    "id": (uuid.UUID(int=5), {"id": "00000000-0000-0000-0000-000000000005"}),
    "z": (1 + 2j, {"z": "(1+2j)"}),
    "rows": (range(3), {"rows": "range(0, 3)"}),
    "data": (b"abc", {"data": "bytes of 3, digest 8c457fe9"}),
    "kind": (dict, {"kind": "builtins.dict"}),
    "function": (json.dumps, {"function": "json.dumps"}),
    "curried": (functools.partial(json.dumps, indent=2), {"curried": "partial(json.dumps, indent=2)"}),
    "method": ("x".upper, {"method": None}),  # type: ignore[dict-item]
    "items": ([1, None, "three"], {"items": '[1, null, "three"]'}),
    "empty": ([], {"empty": "[]"}),
    "group": ({3, 1, 2}, {"group": "[1, 2, 3]"}),
    "nested": ({"a": {"b": 1}, "c": {}}, {"nested.a.b": "1", "nested.c": "{}"}),
    "ordered": (collections.OrderedDict(b=1), {"ordered.b": "1"}),
    "records": ([{"n": 1}, {"n": 2}], {"records.0.n": "1", "records.1.n": "2"}),
    "dotted": ({"a.b": 1, "a": {"b": 2}}, {"dotted.a.b": "1", "dotted.a.b_x0023_2": "2"}),
    "odd": (
        {"k[0]": 1, "a=b": 2, "": 3, 7: 4},
        {"odd.k_x005B_0_x005D_": "1", "odd.a_x003D_b": "2", "odd.": "3", "odd.7": "4"},
    ),
    "dataclass": (Optimizer(), under("dataclass", OPTIMIZER)),
    "pydantic": (
        Net(),
        {"pydantic.layers": "[64, 32]", "pydantic.hidden": "***"} | under("pydantic.optimizer", OPTIMIZER),
    ),
    "loose": (Loose(b=2), {"loose.a": "1", "loose.b": "2"}),  # type: ignore[call-arg]
    "attrs": (Cloud(), {"attrs.region": "eu"} | under("attrs.nested", OPTIMIZER)),
    "point": (Point(1, {"z": 2}), {"point.x": "1", "point.y.z": "2"}),
    "namespace": (
        argparse.Namespace(lr=1, db=types.SimpleNamespace(p=2)),
        {"namespace.lr": "1", "namespace.db.p": "2"},
    ),
    "config": (
        CONFIG,
        {"config.db.host": "h", "config.db.url": "h/x", "config.db.port": "???", "config.db.dead": "${nowhere}",
         "config.layers.0": "1", "config.layers.1.n": "2", "config.none": "None"},
    ),
    "weird": (Weird(), {"weird": "tests.integration.test_parameters.Weird"}),
    "scalar": (np.float32(0.5), {"scalar": "0.5"}),
    "count": (np.int64(3), {"count": "3"}),
    "zero_d": (np.array(2.0), {"zero_d": "2.0"}),
}  # fmt: skip


def test_every_kind_of_argument(store: str) -> None:
    """Each value of the table arrives at MLflow as the parameters beside it, and nothing else does."""
    trackdsl.configure(tracking_uri=store)

    @stage
    def f(**values: Any) -> None: ...

    f(**{name: value for name, (value, _) in TABLE.items()})
    deliver()
    found = dict(last_run(store).data.params)
    expected = {key: text for _, leaves in TABLE.values() for key, text in leaves.items()}
    method = found.pop("method")
    assert expected.pop("method") is None
    assert "upper" in method
    assert found == expected


@pytest.mark.parametrize(
    ("value", "parts"),
    [
        (np.zeros((3, 4), "float32"), ["ndarray", "float32", "(3, 4)"]),
        (pd.DataFrame({"age": [1, 2], "city": ["a", "b"]}), ["DataFrame", "2", "age", "int64", "city"]),
        (pd.Series([1.0], name="y"), ["Series", "1", "float64"]),
        (pl.DataFrame({"age": [1], "city": ["a"]}), ["DataFrame", "age", "city"]),
        (pa.table({"age": [1]}), ["Table", "age", "int64"]),
        (torch.zeros(2, 3), ["Tensor", "float32", "(2, 3)"]),
        (torch.nn.Linear(2, 1), ["Linear", "3 parameters"]),
        (RandomForestClassifier(n_estimators=7), ["RandomForestClassifier", "n_estimators=7"]),
    ],
    ids=lambda value: type(value).__name__,
)
def test_data_and_models_are_described_in_one_line(value: Any, parts: list[str]) -> None:
    """Arrays, frames and models are described by type, shape, dtypes and columns, never by their `repr`."""
    with capture_runs() as captured, stage("f", x=value):
        pass
    (summary,) = captured.one("f").params.values()
    assert isinstance(summary, str)
    assert "\n" not in summary
    assert len(summary) < 500
    for part in parts:
        assert part in summary


class Trap:
    """An object whose every attribute raises another error."""

    def __getattr__(self, name: str) -> Any:
        raise ZeroDivisionError(name)

    def __repr__(self) -> str:
        raise MemoryError

    def __eq__(self, other: object) -> bool:
        raise AssertionError

    def __bool__(self) -> bool:
        raise AssertionError

    def __len__(self) -> int:
        raise AssertionError

    def __iter__(self) -> Iterator[Any]:
        raise AssertionError

    __hash__ = None  # type: ignore[assignment]


@dataclasses.dataclass
class Trapped:
    good: int = 1

    def __getattribute__(self, name: str) -> Any:
        if name == "bad":
            raise RuntimeError("no")
        return object.__getattribute__(self, name)

    bad: int = 2


class TrapMapping(dict):  # type: ignore[type-arg]
    def items(self) -> Any:
        raise RuntimeError("no")

    def __len__(self) -> int:
        raise RuntimeError("no")


class TrapKey:
    def __str__(self) -> str:
        raise RuntimeError("no")

    def __hash__(self) -> int:
        return 1


def test_a_value_that_raises_harms_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """`__repr__`, `__eq__`, `__getattr__`, properties, keys that raise: the function runs, the rest is recorded."""

    @stage
    def f(a: Any, b: Any, c: Any, d: Any, e: Any, lr: float = 0.1) -> str:
        return "done"

    with caplog.at_level(logging.WARNING, "trackdsl"), capture_runs() as captured:
        assert f(Trap(), Trapped(), TrapMapping(a=1), {TrapKey(): 1}, [Trap()]) == "done"
    params = captured.one("f").params
    assert params["lr"] == 0.1
    assert params["a"] == f"{__name__}.Trap"
    assert params["b.good"] == 1
    assert "bad" in str(params.keys())
    assert {name[0] for name in params} == set("abcdel")


def test_markers_and_choice(sqlite_store: str) -> None:
    """`Param` renames, `Ignore` and `params=` leave out, `Secret` masks, `Dataset` is an input of the run."""
    frame = pd.DataFrame({"a": [1, 2, 3]})

    @stage(params=["lr", "data", "quiet", "key"])
    def f(
        lr: Annotated[float, Param("learning_rate")],
        data: Annotated[pd.DataFrame, Dataset("train", context="training")],
        quiet: Annotated[int, Ignore],
        key: Annotated[str, Secret],
        rest: int = 1,
    ) -> None: ...

    f(0.1, frame, 2, "k")
    deliver()
    run = client().get_run(all_runs()[0].info.run_id)
    assert {key: value for key, value in run.data.params.items() if key != "data"} == {
        "learning_rate": "0.1",
        "key": "***",
    }
    (found,) = run.inputs.dataset_inputs
    assert found.dataset.name == "train"
    assert len(found.dataset.digest) == 32
    assert [(tag.key, tag.value) for tag in found.tags] == [("mlflow.data.context", "training")]
    assert json.loads(found.dataset.profile)["num_rows"] == 3
    assert json.loads(found.dataset.schema)["mlflow_colspec"][0]["name"] == "a"


def test_params_false_still_records_a_dataset() -> None:
    """`params=False` records no parameter; what is marked `Dataset` was asked for."""

    @stage(params=False)
    def f(data: Annotated[Any, Dataset("d")]) -> None: ...

    with capture_runs() as captured:
        f(np.arange(3))
        f(np.arange(3))
        f(np.array([0, 5, 2]))
    runs = captured.runs
    assert [run.params for run in runs] == [{}, {}, {}]
    digests = [run.inputs[0].digest for run in runs]
    assert digests[0] == digests[1] != digests[2]


def test_no_data_is_reported_as_omitted() -> None:
    """What is marked `Dataset` and holds no data leaves a tag."""

    @stage
    def f(data: Annotated[Any, Dataset("d")]) -> None: ...

    with capture_runs() as captured:
        f(object())
    assert "not data" in captured.one("f").tags["trackdsl.omitted.d"]


def test_a_structure_over_the_bounds_is_kept_whole(store: str) -> None:
    """Of a structure with too many leaves or levels the first leaves are parameters, and a JSON file has the whole."""
    trackdsl.configure(tracking_uri=store)
    wide = {f"k{i}": {"v": i, "password": "hunter2hunter2"} for i in range(MAX_LEAVES)}
    deep: dict[str, Any] = {"bottom": 1}
    for _ in range(30):
        deep = {"d": deep}

    @stage
    def f(wide: Any, deep: Any, listed: Any, numbers: list[int], lr: float = 0.1) -> None: ...

    f(wide, deep, {"a": list(range(5000))}, list(range(5000)))
    deliver()
    run = last_run(store)
    assert run.data.params["lr"] == "0.1"
    assert run.data.params["numbers"] == run.data.params["listed.a"]
    assert run.data.params["numbers"].startswith("list of 5000, digest ")
    assert "trackdsl.truncated.numbers" not in run.data.tags  # Data, not configuration.
    assert run.data.params["wide.k0.v"] == "0"
    assert MAX_LEAVES <= len(run.data.params) < MAX_LEAVES + 20
    for name, value in (("wide", wide), ("deep", deep), ("listed", {"a": list(range(5000))})):
        path = f"trackdsl/params/{name}.json"
        assert path in run.data.tags[f"trackdsl.truncated.{name}"]
        whole = trackdsl.load_artifact(run, path, tracking_uri=store)
        if name == "wide":
            assert whole == {key: {**part, "password": "***"} for key, part in value.items()}
        else:
            assert whole == value


def test_a_long_value_is_cut_and_kept_whole(store: str) -> None:
    """A value beyond MLflow's limit is a parameter with its beginning, and a file with all of it; a tag says so."""
    trackdsl.configure(tracking_uri=store)
    with stage("f", text="x" * 7000 + "end"):
        pass
    deliver()
    run = last_run(store)
    assert len(run.data.params["text"]) <= 6000
    (tag,) = [value for key, value in run.data.tags.items() if key.startswith("trackdsl.truncated.")]
    assert "7003 characters" in tag
    assert trackdsl.load_artifact(run, tag.split(" in ")[1], tracking_uri=store).endswith("end")


def test_refused_keys_are_reported(sqlite_store: str) -> None:
    """A key that MLflow refuses is rewritten, the run says what it was, and it can be read back."""
    with stage("f") as run:
        run.log_params({"layers[0]": 1, "a=b": 2, "x" * 300: 3})
    deliver()
    found = all_runs()[0].data
    assert found.params["layers_x005B_0_x005D_"] == "1"
    assert found.tags["trackdsl.renamed.layers_x005B_0_x005D_"] == "layers[0]"
    assert unescape_key("layers_x005B_0_x005D_") == "layers[0]"
    (long,) = [key for key in found.params if key.startswith("xxx")]
    assert found.tags[fit_key(f"trackdsl.renamed.{long}")] == "x" * 300


def test_paths_of_ambiguous_names_are_recorded(sqlite_store: str) -> None:
    """Where two leaves read the same, both are kept and the true paths stand in a tag."""
    with stage("f", x={"a.b": 1, "a": {"b": 2}}):
        pass
    deliver()
    data = all_runs()[0].data
    paths = json.loads(data.tags["trackdsl.params.paths"])
    assert nest({unescape_key(key): value for key, value in data.params.items()}, paths) == {
        "x": {"a.b": "1", "a": {"b": "2"}}
    }


leaf = st.none() | st.booleans() | st.integers(-9, 9) | st.floats(allow_nan=False) | st.text(max_size=5)
names = st.text(alphabet=st.sampled_from("ab.#[0]/ =*_x\u00fc\n"), max_size=6)
#: Lists of plain values are one line, and so are empty structures: leaves like any other.
trees = st.recursive(
    leaf | st.lists(leaf, max_size=3),
    lambda inner: (
        st.dictionaries(names, inner, min_size=1, max_size=4)
        | st.lists(st.dictionaries(names, inner, min_size=1, max_size=2), min_size=1, max_size=3)
    ),
    max_leaves=20,
)


def expected_of(value: Any) -> Any:
    """A tree as it is read back: lists of structures by index, anything else in one line."""
    if isinstance(value, dict):
        return {key: expected_of(item) for key, item in value.items()}
    if isinstance(value, list) and any(isinstance(item, dict) for item in value):
        return {str(index): expected_of(item) for index, item in enumerate(value)}
    if isinstance(value, list):
        return json.dumps(value, ensure_ascii=False)
    return value


@given(value=st.dictionaries(names, trees, min_size=1, max_size=4))
def test_any_structure_flattens_and_comes_back(value: dict[str, Any]) -> None:
    """Any structure gives keys that MLflow accepts, none twice, from which it can be rebuilt."""
    flat = Flat()
    flat.add("x", value)
    keys = {key: escape_key(key) for key in flat.values}
    assert len(set(keys.values())) == len(keys)
    from mlflow.utils.validation import _validate_param_name

    for key, escaped in keys.items():
        assert unescape_key(escaped) == key
        if len(escaped) <= MAX_KEY:
            _validate_param_name(escaped)
    if flat.whole:  # Deeper than the bound: the whole is to be kept as a file.
        assert flat.whole == {"x": value}
        return
    back = nest({unescape_key(keys[key]): found for key, found in flat.values.items()}, flat.paths)
    assert back == {"x": expected_of(value)}

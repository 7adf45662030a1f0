"""Structures that are kept as files hold all of their content; what JSON cannot hold is a file beside them."""

from __future__ import annotations

import array
import collections
import dataclasses
import datetime
import decimal
import enum
import fractions
import ipaddress
import json
import math
import pathlib
import threading
import uuid
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pydantic
import pytest
import torch
import yaml
from matplotlib.figure import Figure
from omegaconf import OmegaConf
from PIL import Image

from trackdsl import Secret, load_artifact, log_dict, log_table, stage, track_returns
from trackdsl.handlers._content import content_of
from trackdsl.testing import RecordedRun, capture_runs


class Color(enum.Enum):
    RED = 1


class Level(enum.IntEnum):
    LOW = 3


class Mode(str, enum.Enum):  # noqa: UP042 - the older way to write it
    FAST = "fast"


class Rights(enum.Flag):
    READ = 1
    WRITE = 2


class Row(NamedTuple):
    x: int
    weights: Any


@dataclasses.dataclass
class Inner:
    scores: Any
    key: Annotated[str, Secret] = "hunter2"


class Outer(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(arbitrary_types_allowed=True)
    inner: Any
    day: datetime.date = datetime.date(2024, 1, 2)


class Opaque:
    """An object that only a pickle can hold."""


FRAME = pd.DataFrame({"a": [1, 2], "t": pd.to_datetime(["2024-01-02", None]), "s": ["x", None]})
#: A value in a structure, and what then stands in the file.
CONTENT: dict[str, tuple[Any, Any]] = {
    "matrix": (np.array([[1, 0], [0, 2]]), [[1, 0], [0, 2]]),
    "0-d": (np.array(1.5), 1.5),
    "scalars": ([np.float32(0.5), np.int64(3), np.bool_(True)], [0.5, 3, True]),
    "array of text": (np.array(["a", "b"]), ["a", "b"]),
    "array of objects": (np.array([None, "a", np.int8(3)], dtype=object), [None, "a", 3]),
    "array of days": (np.array(["2024-01-02", "NaT"], "M8[D]"), ["2024-01-02", None]),
    "array of durations": (np.array([90], "m8[m]"), ["P0DT1H30M0S"]),
    "array of complex": (np.array([1 + 2j]), ["(1+2j)"]),
    "array with fields": (np.array([(1, 2.5)], dtype=[("a", int), ("b", float)]), [{"a": 1, "b": 2.5}]),
    "masked array": (np.ma.array([1, 2], mask=[False, True]), [1, None]),
    "moment of NumPy": (np.datetime64("2024-01-02"), "2024-01-02"),
    "tensor": (torch.tensor([[1.0, 2.0]], requires_grad=True), [[1.0, 2.0]]),
    "bfloat16": (torch.ones(2, dtype=torch.bfloat16), [1.0, 1.0]),
    "sparse tensor": (torch.eye(2).to_sparse(), [[1.0, 0.0], [0.0, 1.0]]),
    "0-d tensor": (torch.tensor(3), 3),
    "frame": (
        FRAME,
        [{"a": 1, "t": "2024-01-02T00:00:00", "s": "x"}, {"a": 2, "t": None, "s": None}],
    ),
    "frame with an index": (FRAME[["a"]].set_axis(["r", "q"]), [{"index": "r", "a": 1}, {"index": "q", "a": 2}]),
    "frame with two indexes": (
        FRAME[["a"]].set_index([pd.Index(["r", "q"], name="n"), pd.Index([1, 2])]),
        [{"n": "r", "level_1": 1, "a": 1}, {"n": "q", "level_1": 2, "a": 2}],
    ),
    "columns of one name": (pd.DataFrame([[1, 2]], columns=["a", "a"]), [{"a": 1, "a#2": 2}]),
    "columns of one name in Arrow": (
        pa.Table.from_arrays([pa.array([1]), pa.array([2])], ["a", "a"]), [{"a": 1, "a#2": 2}],
    ),
    "index of two levels": (pd.MultiIndex.from_tuples([(1, "a"), (2, None)]), [[1, "a"], [2, None]]),
    "series": (pd.Series([1.5, 2.5]), [1.5, 2.5]),
    "series with labels": (pd.Series([1, 2], ["x", "y"]), {"x": 1, "y": 2}),
    "series with labels twice": (
        pd.Series([1, 2], ["x", "x"], name="n"),
        [{"index": "x", "n": 1}, {"index": "x", "n": 2}],
    ),
    "index": (pd.Index(["x", "y"]), ["x", "y"]),
    "categories": (pd.Categorical(["x", None]), ["x", None]),
    "nullable": (pd.array([1, None], "Int64"), [1, None]),
    "missing": ([pd.NA, pd.NaT], [None, None]),
    "moments of pandas": (
        [pd.Timestamp("2024-01-02", tz="UTC"), pd.Timedelta("1D"), pd.Period("2024-01")],
        ["2024-01-02T00:00:00+00:00", "P1DT0H0M0S", "2024-01"],
    ),
    "polars": (pl.DataFrame({"x": [1], "d": [datetime.date(2024, 1, 2)]}), [{"x": 1, "d": "2024-01-02"}]),
    "series of polars": (pl.Series([1, None]), [1, None]),
    "arrow": (pa.table({"x": [1]}), [{"x": 1}]),
    "array of arrow": (pa.array([1, None]), [1, None]),
    "scalar of arrow": (pa.scalar(datetime.date(2024, 1, 2)), "2024-01-02"),
    "set": ({3, 1, 2}, [1, 2, 3]),
    "frozenset": (frozenset({"b", "a"}), ["a", "b"]),
    "set of kinds": ({1, "a"}, [1, "a"]),
    "deque": (collections.deque([2, 1]), [2, 1]),
    "views": ([{"a": 1}.keys(), {"a": 1}.values()], [["a"], [1]]),
    "array of the standard library": (array.array("d", [0.5]), [0.5]),
    "range": (range(3), [0, 1, 2]),
    "endless range": (range(10**12), "range(0, 1000000000000)"),
    "moments": (
        [datetime.datetime(2024, 1, 2, 3, tzinfo=datetime.UTC), datetime.date(2024, 1, 2), datetime.time(1)],
        ["2024-01-02T03:00:00+00:00", "2024-01-02", "01:00:00"],
    ),
    "durations": (
        [datetime.timedelta(1, 3723.5), -datetime.timedelta(minutes=1)],
        ["P1DT1H2M3.5S", "-P0DT0H1M0S"],
    ),
    "enumerations": (
        [Color.RED, Level.LOW, Mode.FAST, Rights.READ | Rights.WRITE],
        ["Color.RED", 3, "fast", "Rights.READ|WRITE"],
    ),
    "values written as text": (
        [decimal.Decimal("1.50"), fractions.Fraction(1, 3), uuid.UUID(int=1), pathlib.PurePosixPath("a/b"), 1 + 2j],
        ["1.50", "1/3", "00000000-0000-0000-0000-000000000001", "a/b", "(1+2j)"],
    ),
    "address": (ipaddress.ip_address("10.0.0.1"), "10.0.0.1"),
    "types": ([np.dtype("f8"), torch.float32, int, len], ["float64", "torch.float32", "builtins.int", "builtins.len"]),
    "exception": (ValueError("too low"), "ValueError: too low"),
    "keys": (
        {(1, "a"): 1, (np.int64(0), 2): 2, datetime.date(2024, 1, 2): 3, Color.RED: 4, Level.LOW: 5, np.str_("s"): 6},
        {"(1, a)": 1, "(0, 2)": 2, "2024-01-02": 3, "Color.RED": 4, "3": 5, "s": 6},
    ),
    "keys that read the same": ({1: "a", "1": "b"}, {"1": "a", "1#2": "b"}),
    "structures": (
        Outer(inner=[Inner(np.arange(2)), Row(1, np.zeros(1))]),
        {"inner": [{"scores": [0, 1], "key": "***"}, {"x": 1, "weights": [0.0]}], "day": "2024-01-02"},
    ),
    "tuples": (((1, 2), (np.array([3]),)), [[1, 2], [[3]]]),
    "a secret below": ({"password": np.array([1, 2])}, {"password": "***"}),
}  # fmt: skip


def omitted(run: RecordedRun) -> dict[str, str]:
    """The omissions that a run has a tag for, without their common beginning."""
    return {tag.removeprefix("trackdsl.omitted."): why for tag, why in run.tags.items() if "omitted" in tag}


@pytest.mark.parametrize("kind", CONTENT)
def test_the_content_of_every_kind(kind: str) -> None:
    """Arrays become lists, frames records, dates ISO text: in JSON and in YAML, and nothing is reported."""
    value, expected = CONTENT[kind]
    with capture_runs() as captured, stage("s") as run:
        log_dict({"x": value}, "x.json")
        log_dict([value], "x.yaml")
        log_dict(value, "top.json")
        found = captured.one("s")
        assert json.loads(found.artifacts["x.json"].read_text()) == {"x": expected}
        assert load_artifact(run, "top.json") == expected
        if kind != "keys that read the same" and kind != "keys":  # YAML has keys that are numbers.
            assert yaml.safe_load(found.artifacts["x.yaml"].read_text()) == [expected]
        assert set(found.artifacts) == {"x.json", "x.yaml", "top.json"}
    assert omitted(captured.one("s")) == {}


def test_numbers_stay_keys_in_yaml() -> None:
    """Numbers as keys are text in JSON and numbers in YAML; other keys are text in both."""
    with capture_runs() as captured, stage("s"):
        log_dict({0: "a", 1.5: "b", "2": "c"}, "x.yaml")
        log_dict({0: "a", 1.5: "b", "2": "c"}, "x.json")
        run = captured.one("s")
        assert yaml.safe_load(run.artifacts["x.yaml"].read_text()) == {0: "a", 1.5: "b", "2": "c"}
        assert json.loads(run.artifacts["x.json"].read_text()) == {"0": "a", "1.5": "b", "2": "c"}


def test_not_a_number_comes_back() -> None:
    """NaN and infinity are written as MLflow's own `log_dict` writes them, and read as what they were."""
    with capture_runs(), stage("s") as run:
        log_dict({"x": np.array([math.nan, math.inf]), "y": pd.Series([math.nan])}, "x.json")
        found = load_artifact(run, "x.json")
    assert [math.isnan(found["x"][0]), found["x"][1], math.isnan(found["y"][0])] == [True, math.inf, True]


@pytest.mark.parametrize("suffix", ["json", "yaml"])
def test_what_json_cannot_hold_is_a_file_beside(suffix: str) -> None:
    """Bytes, pictures, figures, large arrays and objects are files of their own, and a tag names each of them."""
    value = {
        "raw": b"\0x",
        "deep": [{"picture": Image.new("RGB", (2, 2))}],
        "plot": Figure(),
        "large": np.zeros(200_000),
        "object": Opaque(),
        "lock": threading.Lock(),
    }
    with capture_runs() as captured, stage("s") as run:
        log_dict(value, f"eval.{suffix}")
        found = load_artifact(run, f"eval.{suffix}")
        assert found.pop("lock") == "_thread.lock"
        assert found.pop("object") == f"{__name__}.Opaque"
        assert found == {
            "raw": "eval.parts/raw.bin",
            "deep": [{"picture": "eval.parts/deep/0/picture.png"}],
            "plot": "eval.parts/plot.png",
            "large": "eval.parts/large.npy",
        }
        assert load_artifact(run, found["raw"]) == b"\0x"
        assert load_artifact(run, found["large"]).shape == (200_000,)
        assert isinstance(load_artifact(run, "eval.parts/object.pkl", trusted=True), Opaque)
    reasons = omitted(captured.one("s"))
    for part, path in {"raw": "raw.bin", "deep/0/picture": "deep/0/picture.png", "object": "object.pkl"}.items():
        assert f"eval.parts/{path}" in reasons[f"eval.{suffix}/{part}"]
    assert "could not be kept" in reasons[f"eval.{suffix}/lock"]


def test_many_parts_share_a_tag() -> None:
    """A structure of a hundred pictures does not flood the run with tags."""
    with capture_runs() as captured, stage("s"):
        log_dict([1, *(b"x" for _ in range(100))], "x.json")
        assert len(captured.one("s").artifacts) == 101
    assert 1 < len(omitted(captured.one("s"))) < 30
    assert "100 parts" in omitted(captured.one("s"))["x.json"]


def test_what_cannot_be_read_is_reported() -> None:
    """A property that raises, and a structure that holds itself, lose nothing else; what is too deep is a file."""

    class Broken(collections.UserDict[str, Any]):
        def items(self) -> Any:
            raise OSError("no disk")

    loop: list[Any] = [1]
    loop.append(loop)
    deep: dict[str, Any] = {"end": 7}
    for _ in range(80):
        deep = {"k": deep}
    with capture_runs() as captured, stage("s") as run:
        log_dict({"a": 1, "broken": Broken(), "loop": loop, "deep": deep}, "x.json")
        assert load_artifact(run, "x.json")["a"] == 1
        rest = [name for name in captured.one("s").artifacts if name.startswith("x.parts/deep")]
        assert '"end": 7' in captured.one("s").artifacts[rest[0]].read_text()
    reasons = omitted(captured.one("s"))
    assert "no disk" in reasons["x.json/broken"]
    assert "holds itself" in reasons["x.json/loop/1"]


def test_a_structure_of_a_parameter_is_whole() -> None:
    """What parameters cannot hold is a file with its content; data in it that is large is described, not copied."""
    config = {"layers": {str(i): {"w": np.arange(2), "when": datetime.date(2024, 1, 2)} for i in range(2500)}}
    config["layers"]["data"] = {"w": np.zeros(200_000)}
    with capture_runs() as captured, stage("s") as run:
        run.log_params({"config": config})
        (path,) = captured.one("s").artifacts
        found = load_artifact(run, path)["layers"]
    assert found["2499"] == {"w": [0, 1], "when": "2024-01-02"}
    assert found["data"]["w"].startswith("ndarray float64 (200000,)")
    assert "described in one line" in omitted(captured.one("s"))[f"{path}/layers/data/w"]


def test_returned_structures_are_whole() -> None:
    """Sets, dates and lists of arrays in return values are in the file of the rest; nothing is pickled."""
    value = {
        "acc": 0.5, "labels": {"b", "a"}, "day": datetime.date(2024, 1, 2), "mode": Mode.FAST, "id": uuid.UUID(int=1),
        "history": [{"w": np.arange(2)}], "config": OmegaConf.create({"a": [1, 2]}),
    }  # fmt: skip
    with capture_runs() as captured, stage("s") as run:
        track_returns("r")(lambda: value)()
        track_returns("l")(lambda: [1, np.arange(2), Color.RED])()
        found, listed = load_artifact(run, "r.json"), load_artifact(run, "l.json")
        assert set(captured.one("s").artifacts) == {"r.json", "l.json"}
    assert found == {
        "labels": ["a", "b"], "day": "2024-01-02", "mode": "fast", "id": "00000000-0000-0000-0000-000000000001",
        "history": [{"w": [0, 1]}], "config": {"a": [1, 2]},
    }  # fmt: skip
    assert listed == [1, [0, 1], "Color.RED"]
    assert captured.one("s").metrics.keys() == {"r/acc"}
    assert omitted(captured.one("s")) == {}


def test_cells_of_a_table() -> None:
    """Lists are cells as they are; bytes are files beside the table, and objects are named by their class."""
    with capture_runs() as captured, stage("s"):
        log_table({"e": [np.array([0.1, 0.2])], "s": [{2, 1}], "b": [b"x"], "o": [Opaque()]}, "e.json")
        run = captured.one("s")
        (file,) = run.artifacts
        assert run.artifacts[file].read_bytes() == b"x"
    reasons = omitted(captured.one("s"))
    assert set(reasons) == {"e.json/b", "e.json/o"}
    assert "table_files/e" in reasons["e.json/b"]


def test_a_list_of_files_is_one_file_each() -> None:
    """Lists, tuples and dicts of pictures, frames and arrays, nested too, are named by their indices and keys."""
    picture = Image.new("CMYK", (2, 2))
    with capture_runs() as captured, stage("s"):
        track_returns("p")(lambda: [picture, None, [picture]])()
        track_returns("d")(lambda: {"one": [FRAME, FRAME], 2: np.arange(3)})()
        run = captured.one("s")
        assert set(run.artifacts) == {"p.0.png", "p.2.0.png", "d/one.0.parquet", "d/one.1.parquet", "d/2.npy"}
    assert omitted(captured.one("s")) == {}


def test_a_list_at_one_path_is_one_file_each() -> None:
    """If the path of an artifact has the format of the parts, each part is a file of it, by index or key."""
    with capture_runs() as captured, stage("s"):
        track_returns("p", artifacts={"p": "plots/roc.png"})(lambda: [Figure(), Figure()])()
        track_returns("q", artifacts={"q": "q.png"})(lambda: {"a": Figure(), "b/c": Figure()})()
        track_returns("f", artifacts={"f": "f.csv"})(lambda: (FRAME[["a"]], None, FRAME[["a"]]))()
        track_returns("t", artifacts={"t": "t.csv"})(lambda: ["a", "b"])()
        track_returns("z", artifacts={"z": "z.json"})(lambda: 1j)()
        found = set(captured.one("s").artifacts)
    assert found == {
        "plots/roc.0.png", "plots/roc.1.png", "q.a.png", "q.b_c.png", "f.0.csv", "f.2.csv", "t.csv.json", "z.json",
    }  # fmt: skip
    assert set(omitted(captured.one("s"))) == {"t.csv"}


def test_a_list_of_paths_is_their_files(tmp_path: Path) -> None:
    """Paths of files in a returned list are kept as the files."""
    for name in ("a.csv", "b.csv"):
        (tmp_path / name).write_text(name)
    with capture_runs() as captured, stage("s"):
        track_returns("p")(lambda: [tmp_path / "a.csv", tmp_path / "b.csv"])()
        assert set(captured.one("s").artifacts) == {"a.csv", "b.csv"}


# --- OmegaConf


@dataclasses.dataclass
class Optimizer:
    lr: float = 0.1
    betas: tuple[float, float] = (0.9, 0.99)
    mode: Mode = Mode.FAST


def configuration() -> Any:
    return OmegaConf.create(
        {
            "lr": 0.1, "layers": [1, 2], "pair": (3, 4), "name": "${model}-${lr}", "model": "rf", "needed": "???",
            "nested": {"sizes": [[1, "${lr}"], [2]], "lost": "${no.where}", "list": ["???"]}, "none": None,
            "same": "${nested.sizes}", "optimizer": OmegaConf.structured(Optimizer),
        }
    )  # fmt: skip


RESOLVED = {
    "lr": 0.1, "layers": [1, 2], "pair": [3, 4], "name": "rf-0.1", "model": "rf", "needed": "???",
    "nested": {"sizes": [[1, 0.1], [2]], "lost": "${no.where}", "list": ["???"]}, "none": None,
    "same": [[1, 0.1], [2]], "optimizer": {"lr": 0.1, "betas": [0.9, 0.99], "mode": "fast"},
}  # fmt: skip


@pytest.mark.parametrize("suffix", ["json", "yaml"])
def test_configurations_of_omegaconf(suffix: str) -> None:
    """Lists and tuples are lists, interpolations are resolved, and what is missing is named in tags."""
    with capture_runs() as captured, stage("s") as run:
        log_dict(configuration(), f"c.{suffix}")
        log_dict({"in": [configuration()], "l": configuration().layers, "t": configuration().pair}, f"d.{suffix}")
        assert load_artifact(run, f"c.{suffix}") == RESOLVED
        assert load_artifact(run, f"d.{suffix}") == {"in": [RESOLVED], "l": [1, 2], "t": [3, 4]}
    reasons = omitted(captured.one("s"))
    assert {f"c.{suffix}/{part}" for part in ("needed", "nested/lost", "nested/list/0")} <= set(reasons)
    assert "no.where" in reasons[f"c.{suffix}/nested/lost"]


def test_returned_configurations() -> None:
    """Numbers are metrics, the rest is one file, and no part of it is a pickle."""
    with capture_runs() as captured, stage("s") as run:
        track_returns("c")(configuration)()
        track_returns("l")(lambda: configuration().layers)()
        track_returns("t")(lambda: [configuration().pair, configuration().nested])()
        assert load_artifact(run, "c.json") == {
            "layers": [1, 2], "pair": [3, 4], "name": "rf-0.1", "model": "rf", "needed": "???",
            "nested": RESOLVED["nested"], "same": [[1, 0.1], [2]],
            "optimizer": {"betas": [0.9, 0.99], "mode": "fast"},
        }  # fmt: skip
        assert load_artifact(run, "l.json") == [1, 2]
        assert load_artifact(run, "t.json") == [[3, 4], RESOLVED["nested"]]
        assert set(captured.one("s").artifacts) == {"c.json", "l.json", "t.json"}
    assert captured.one("s").metrics.keys() == {"c/lr", "c/optimizer/lr"}
    assert {"c.json/needed", "c.json/nested/lost"} <= set(omitted(captured.one("s")))


def test_configurations_are_parameters_like_their_lists() -> None:
    """Each list and tuple reads as the same list of Python would, and a missing value is reported."""
    plain = {**RESOLVED, "optimizer": {**RESOLVED["optimizer"], "mode": Mode.FAST}}  # type: ignore[dict-item]
    with capture_runs() as captured:
        with stage("config") as run:
            run.log_params(configuration())
            run.log_param("l", configuration().layers)
            run.log_param("t", configuration().pair)
        with stage("plain") as run:
            run.log_params({**plain, "l": [1, 2], "t": [3, 4]})
    found = captured.one("config")
    assert found.params == captured.one("plain").params
    assert set(omitted(found)) == {"needed", "nested.lost", "nested.list"}


@pytest.mark.parametrize(("kind", "text"), [("DictConfig", "???"), ("ListConfig", "???"), ("DictConfig", "${a}")])
def test_a_configuration_that_is_missing_is_reported(kind: str, text: str) -> None:
    """A missing configuration as an argument is reported, and the call is recorded with its other parameters."""
    value = getattr(pytest.importorskip("omegaconf"), kind)(text)
    with capture_runs() as captured:
        stage(lambda config, lr: None)(value, 0.1)
    (run,) = captured.runs
    assert run.params == {"config": text, "lr": 0.1}
    assert f"recorded as {text}" in omitted(run)["config"]


def test_a_configuration_that_refers_to_itself_ends() -> None:
    """A list that leads back to itself is cut, and the program continues."""
    config = OmegaConf.create({"a": ["${a}"], "b": {"c": "${b}"}})
    assert content_of(config).keys() == {"a", "b"}
    with capture_runs() as captured, stage("s") as run:
        run.log_params({"c": config})
        log_dict(config, "c.json")
    assert "c.json" in captured.one("s").artifacts

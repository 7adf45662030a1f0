"""What a function returns, as MLflow then holds it: metrics, files, models and datasets, on real stores."""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import fractions
import gc
import json
import math
import pickle
import shutil
import threading
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import matplotlib as mpl
import numpy as np
import pandas as pd
import plotly.graph_objects as go
import polars as pl
import pyarrow as pa
import pydantic
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image
from sklearn.linear_model import LinearRegression

import trackdsl
from tests.conftest import all_runs, client, deliver, last_run, points, wait_until
from trackdsl import Artifact, Dataset, Ignore, Metric, Model, experiment, load_artifact, settings, stage, track_returns
from trackdsl.delivery.process._worker import Worker
from trackdsl.delivery.service import open_sink
from trackdsl.journal._lock import FileLock
from trackdsl.testing import capture_runs

mpl.use("agg")


@dataclasses.dataclass
class Scores:
    acc: float = 0.5
    name: str = "rf"
    weights: Any = dataclasses.field(default_factory=lambda: np.zeros(3))


class Report(pydantic.BaseModel):
    f1: float = 0.25
    tags: list[str] = ["a"]


class Pair(NamedTuple):
    loss: float
    steps: int


def figure() -> Figure:
    drawn = Figure()
    drawn.subplots().plot([1, 2])
    return drawn


FRAME = pd.DataFrame({"a": [1, 2], "b": ["x", "y"]})
PICTURE = Image.new("RGB", (4, 2), "red")

#: name → the value returned, the metrics and the files that MLflow then holds. The function is called `f`.
TABLE: dict[str, tuple[Any, dict[str, float], set[str]]] = {
    "float": (0.5, {"f": 0.5}, set()),
    "int": (3, {"f": 3}, set()),
    "bool": (True, {"f": 1}, set()),
    "numpy": (np.float32(0.5), {"f": 0.5}, set()),
    "numpy int": (np.int64(3), {"f": 3}, set()),
    "0-d array": (np.array(2.0), {"f": 2}, set()),
    "0-d tensor": (torch.tensor(1.5, requires_grad=True), {"f": 1.5}, set()),
    "decimal": (decimal.Decimal("0.25"), {"f": 0.25}, set()),
    "fraction": (fractions.Fraction(1, 4), {"f": 0.25}, set()),
    "nan": (math.nan, {"f": math.nan}, set()),
    "infinite": (math.inf, {"f": 1.7976931348623157e308}, set()),
    "mapping": ({"a": 1, "b": {"c": 2, "note": "x"}}, {"a": 1, "b/c": 2}, {"f.json"}),
    "dataclass": (Scores(), {"acc": 0.5}, {"f.json", "weights.npy"}),
    "pydantic": (Report(), {"f1": 0.25}, {"f.json"}),
    "named tuple": (Pair(0.5, 7), {"loss": 0.5, "steps": 7}, set()),
    "tuple": ((0.5, "note", None), {"f.0": 0.5}, {"f.1.txt"}),
    "pandas": (FRAME, {}, {"f.parquet"}),
    "polars": (pl.DataFrame({"a": [1]}), {}, {"f.parquet"}),
    "arrow": (pa.table({"a": [1]}), {}, {"f.parquet"}),
    "array": (np.arange(6).reshape(2, 3), {}, {"f.npy"}),
    "tensor": (torch.arange(3), {}, {"f.npy"}),
    "matplotlib": (figure(), {}, {"f.png"}),
    "plotly": (go.Figure(go.Bar(y=[1, 2])), {}, {"f.html"}),
    "picture": (PICTURE, {}, {"f.png"}),
    "text": ("some text", {}, {"f.txt"}),
    "list": ([1, "two", None], {}, {"f.json"}),
    "bytes": (b"\0\1", {}, {"f.bin"}),
    "set": ({1, 2}, {}, {"f.json"}),
    "date": (datetime.date(2024, 1, 2), {}, {"f.json"}),
    "list of arrays": ([np.arange(2), np.eye(2)], {}, {"f.0.npy", "f.1.npy"}),
    "list of figures": ([figure(), figure()], {}, {"f.0.png", "f.1.png"}),
    "dict of frames": ({"a": FRAME, "b": [FRAME]}, {}, {"a.parquet", "b.0.parquet"}),
    "mapping with texts": ({"a": 1, "when": datetime.date(2024, 1, 2), "of": {"x"}}, {"a": 1}, {"f.json"}),
    "CMYK": (Image.new("CMYK", (4, 2)), {}, {"f.png"}),
    "list of estimators": ([LinearRegression().fit([[1], [2]], [1, 2])], {}, set()),
    "estimator": (LinearRegression().fit([[1], [2]], [1, 2]), {}, set()),
}


def returned(uri: str, value: Any, *names: str, **options: Any) -> Any:
    """The MLflow run of a function `f` that returned `value`."""
    trackdsl.configure(tracking_uri=uri)
    call_f(value, *names, **options)
    deliver()
    return last_run(uri)


def call_f(value: Any, *names: str, run_name: str | None = None, **options: Any) -> None:
    """Call a function `f` that returns `value`."""

    def f() -> Any:
        return value

    assert stage(run_name)(track_returns(*names, **options)(f))() is value


def files_of(uri: str, run: Any, folder: str = "") -> set[str]:
    found: set[str] = set()
    for entry in client(uri).list_artifacts(run.info.run_id, folder):
        found |= files_of(uri, run, entry.path) if entry.is_dir else {entry.path}
    return found


@pytest.fixture(scope="module", params=["sqlite", "server"])
def runs_of_the_table(
    request: pytest.FixtureRequest, empty_store: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, dict[str, Any]]:
    """A store with a run for each value of the table, delivered together; and the runs by name."""
    folder = tmp_path_factory.mktemp("table")
    if request.param == "sqlite":
        shutil.copy(empty_store, folder / "mlflow.db")
        uri = f"sqlite:///{folder}/mlflow.db"
    else:
        uri = str(request.getfixturevalue("shared_server").uri)
    before = settings.configured()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("TRACKDSL_SPOOL", str(folder / "spool"))
        patch.setenv("TRACKDSL_MODE", "offline")
        patch.setenv("TRACKDSL_CHANGES", "0")  # A file of its own in each root run.
        trackdsl.configure(tracking_uri=uri)
        for kind, (value, _, _) in TABLE.items():
            call_f(value, run_name=kind)
        deliver()
    settings.restore(before)
    return uri, {run.info.run_name: run for run in all_runs(uri)}


@pytest.mark.parametrize("kind", TABLE)
def test_every_kind_of_return_value(runs_of_the_table: tuple[str, dict[str, Any]], kind: str) -> None:
    """Each value of the table arrives as the metrics and files beside it, and as nothing else."""
    _, metrics, files = TABLE[kind]
    store, runs = runs_of_the_table
    run = runs[kind]
    assert {key: "nan" if number != number else number for key, number in run.data.metrics.items()} == {
        key: "nan" if number != number else number for key, number in metrics.items()
    }
    assert files_of(store, run) == files
    assert len(run.outputs.model_outputs) == (1 if "estimator" in kind else 0)
    assert not [tag for tag in run.data.tags if tag.startswith("trackdsl.omitted")]


FORMATS: list[tuple[Any, str]] = [
    (FRAME, "frames/train.parquet"),
    (FRAME, "train.csv"),
    (FRAME, "train.json"),
    (FRAME, "train.html"),
    (FRAME, "train.pkl"),
    (np.arange(3.0), "a.npy"),
    (np.arange(3.0), "a.npz"),
    ({"x": np.arange(3.0), "y": np.arange(2)}, "b.npz"),
    ({"a": [1, {"b": None}]}, "c.json"),
    ({"a": [1, {"b": None}]}, "c.yaml"),
    ({"a": 1}, "c.txt"),
    (Scores(weights=None), "d.json"),
    ("<p>", "e.html"),
    ("text", "e.txt"),
    (PICTURE, "p.png"),
    (0.5, "number.txt"),
    (0.5, "number.json"),
    (object, "class.pkl"),
]


@pytest.mark.parametrize(("value", "path"), FORMATS, ids=[f"{type(value).__name__}-{path}" for value, path in FORMATS])
def test_the_suffix_names_the_format(value: Any, path: str) -> None:
    """The suffix names the format: a file `x.csv` contains CSV, and so on."""

    def f() -> Any:
        return value

    f.__annotations__["return"] = Annotated[Any, Artifact(path)]
    with capture_runs() as captured, stage("outer"):
        track_returns(f)()
        content = captured.one("outer").artifacts[path].read_bytes()
    run = captured.one("outer")
    assert list(run.artifacts) == [path]
    assert not [tag for tag in run.tags if tag.startswith("trackdsl.omitted")]
    begins = {"parquet": b"PAR1", "npy": b"\x93NUMPY", "npz": b"PK", "png": b"\x89PNG", "pkl": b"\x80"}
    suffix = path.rpartition(".")[2]
    assert content.startswith(begins.get(suffix, b""))
    if suffix == "json":
        json.loads(content)
    if suffix == "html":
        assert b"<" in content


def test_figures_as_svg_and_plotly_as_json(sqlite_store: str) -> None:
    """`log_figure` and markers take every format of the library."""
    trackdsl.configure(tracking_uri=sqlite_store)
    with stage("f") as run:
        run.log_figure(figure(), "plots/a.svg")
        run.log_figure(go.Figure(), "plots/b.json")
    deliver()
    assert files_of(sqlite_store, last_run()) == {"plots/a.svg", "plots/b.json"}


def test_what_is_no_metric_is_visible(store: str) -> None:
    """Complex, huge and non-numeric values: each a tag with its name; infinity too, as MLflow cannot hold it."""
    trackdsl.configure(tracking_uri=store)
    with stage("f") as run:
        for name, value in {
            "complex": 1j, "huge": 10**400, "text": "x", "none": None, "array": np.eye(2), "object": object(),
        }.items():  # fmt: skip
            run.log_metric(name, value)
        run.log_metrics({"good": 1, "nan": math.nan, "inf": -math.inf})
    deliver()
    data = last_run(store).data
    for name in ("complex", "huge", "text", "none", "array", "object"):
        assert "is not a number" in data.tags[f"trackdsl.omitted.{name}"]
    assert data.metrics["good"] == 1
    assert math.isnan(data.metrics["nan"])
    assert data.metrics["inf"] == -1.7976931348623157e308
    assert "-inf" in data.tags["trackdsl.infinite.inf"]


def test_a_complex_return_value_is_reported_and_kept() -> None:
    """A complex number is not a metric, which a tag says, and is kept as a file."""
    with capture_runs() as captured, stage("f") as run:
        track_returns("z")(lambda: 1 + 2j)()
        assert load_artifact(run, "z.pkl", trusted=True) == 1 + 2j
    assert "complex" in captured.one("f").tags["trackdsl.omitted.z"]


@pytest.mark.parametrize("step", [0, np.int64(0), np.int64(7), np.int32(7), True, 2.0], ids=repr)
def test_steps_of_every_kind(store: str, step: Any) -> None:
    """NumPy's integers and zero are recorded as steps, on every store, three times."""
    trackdsl.configure(tracking_uri=store)
    with stage("f") as run:
        for value in (1.0, 2.0, 3.0):
            run.log_metric("m", value, step=step)
    deliver()
    assert points(last_run(store), "m", store) == [(int(step), 1.0), (int(step), 2.0), (int(step), 3.0)]


def test_paths_are_their_files(sqlite_store: str) -> None:
    """A `Path` of an existing file or folder is kept as that; another `Path` is its text."""
    trackdsl.configure(tracking_uri=sqlite_store)
    Path("folder/deep").mkdir(parents=True)
    Path("folder/deep/x.txt").write_text("x")
    Path("report.html").write_text("<p>")
    for name in ("one", "two"):
        Path(name).mkdir()
        Path(name, "best.pth").write_text(name)
    same = [Path("one/best.pth"), Path("two/best.pth")]  # Of the same name, and yet two files.
    run = returned(sqlite_store, (Path("folder"), Path("report.html"), Path("nowhere"), same), "a", "b", "c", "d")
    assert files_of(sqlite_store, run) == {
        "folder/deep/x.txt", "report.html", "c.txt", "best.pth", "best.1.pth",
    }  # fmt: skip


def test_markers(store: str) -> None:
    """`Metric`, `Artifact`, `Model` and `Dataset` in the return annotation give names, path and digest."""
    trackdsl.configure(tracking_uri=store)

    @stage
    @track_returns
    def train(features: pd.DataFrame, y: Any) -> tuple[
        Annotated[object, Model("line", registered_model_name="lines")],
        Annotated[float, Metric("accuracy")],
        Annotated[pd.DataFrame, Dataset("clean", context="validation")],
        Annotated[pd.DataFrame, Artifact("frames/x.csv")],
    ]:  # fmt: skip
        return LinearRegression().fit(features, y), 0.5, features, features

    frame = pd.DataFrame({"a": [1.0, 2.0], "b": [0.0, 1.0]})
    model, *_ = train(frame, [1, 2])
    deliver()
    run = client(store).get_run(last_run(store).info.run_id)
    assert run.data.metrics == {"accuracy": 0.5}
    assert files_of(store, run) == {"clean.parquet", "frames/x.csv"}
    (used,) = run.inputs.dataset_inputs
    assert (used.dataset.name, used.tags[0].value) == ("clean", "validation")
    (version,) = client(store).search_model_versions(f"run_id='{run.info.run_id}'")
    assert version.name == "lines"
    loaded = load_artifact(run, "line", trusted=True, tracking_uri=store)
    assert loaded.predict(frame).tolist() == model.predict(frame).tolist()


def test_what_cannot_be_kept_is_reported(sqlite_store: str) -> None:
    """For what pickle cannot hold, a tag has the type and the reason, and the run is FINISHED."""
    run = returned(sqlite_store, (threading.Lock(), {"a": (i for i in "b")}), "lock", "nested")
    assert run.info.status == "FINISHED"
    assert "lock: " in run.data.tags["trackdsl.omitted.lock.pkl"]
    assert "pickle" in run.data.tags["trackdsl.omitted.lock.pkl"]
    assert "generator" in run.data.tags["trackdsl.omitted.nested/a.pkl"]


def test_a_frame_that_parquet_cannot_hold_is_pickled(sqlite_store: str) -> None:
    """A frame with mixed objects in one column comes back whole."""
    mixed = pd.DataFrame({"a": [1, "x", object]})
    run = returned(sqlite_store, mixed)
    assert files_of(sqlite_store, run) == {"f.pkl"}
    assert load_artifact(run, "f.pkl", trusted=True).equals(mixed)


MADE: dict[str, Callable[[], Any]] = {
    "pandas": FRAME.copy,
    "array": lambda: np.arange(6),
    "tensor": lambda: torch.arange(3),
    "matplotlib": figure,
    "estimator": lambda: LinearRegression().fit([[1], [2]], [1, 2]),
    "dataclass": Scores,
    "picture": PICTURE.copy,
}


def state_of(value: Any) -> Any:
    """All that a user can have set; drawing makes the ticks of a figure, which are not part of it."""
    if isinstance(value, Figure):
        return value.get_size_inches().tolist(), value.dpi, value.get_facecolor(), type(value.canvas), value.stale
    return pickle.dumps(value)


@pytest.mark.parametrize("kind", MADE)
def test_values_are_neither_kept_alive_nor_changed(kind: str) -> None:
    """Once the caller has dropped it, nothing of what was recorded keeps a value in memory."""

    @stage(returns=True)
    def f(value: Any) -> Any:
        return value

    gc.freeze()  # What was there before need not be looked through.
    with capture_runs():
        value = MADE[kind]()
        before = state_of(value)
        f(value)
        assert state_of(value) == before
        reference = weakref.ref(value)
        del value
        gc.collect()
        assert reference() is None


def test_what_is_ignored_or_secret_is_no_input_example() -> None:
    """Arguments that are not recorded are not rows of a model's example either."""

    @stage(returns=True)
    def fit(features: Annotated[Any, Ignore], secret_rows: Any, y: Any) -> Any:
        return LinearRegression().fit(features, y)

    with capture_runs() as captured:
        fit(np.eye(3), np.eye(3), [1, 2, 3])
        spec = json.loads((captured.one("fit").models["fit"] / "spec.json").read_text())
    assert spec["example"] is None


@pytest.mark.parametrize(
    ("value", "path", "same"),
    [
        (FRAME, "x.CSV", FRAME.equals),
        ({"a": ["b"]}, "x.JSON", {"a": ["b"]}.__eq__),
        (PICTURE, "x.PNG", lambda found: found.tobytes() == PICTURE.tobytes()),
    ],
)
def test_a_suffix_in_capitals_names_the_same_format(value: Any, path: str, same: Callable[[Any], bool]) -> None:
    """`x.CSV` is a CSV file as `x.csv` is, under the name that was asked for, and is read back as one."""
    with capture_runs() as captured, stage("f") as run:
        track_returns("x", artifacts={"x": path})(lambda: value)()
        found = load_artifact(run, path)
    assert list(captured.one("f").artifacts) == [path]
    assert same(found) is True


def test_data_inside_of_a_structure_is_its_content() -> None:
    """A list of arrays in YAML holds their numbers, not their `repr`."""
    with capture_runs() as captured, stage("f") as run:
        track_returns("x", artifacts={"x": "x.yaml"})(lambda: [np.arange(3)])()
        assert load_artifact(run, "x.yaml") == [[0, 1, 2]]
    assert not [tag for tag in captured.one("f").tags if tag.startswith("trackdsl.omitted")]


def test_numpy_complex_is_no_metric() -> None:
    """A complex number of NumPy is reported like Python's, and its imaginary part is not dropped."""
    with capture_runs() as captured, stage("f"):
        track_returns("z")(lambda: np.complex128(1 + 2j))()
    assert captured.one("f").metrics == {}
    assert "complex" in captured.one("f").tags["trackdsl.omitted.z"]


def test_folders_that_link_to_each_other_end(tmp_path: Path) -> None:
    """Two folders with links to one another are copied once."""
    for one, other in (("a", "b"), ("b", "a")):
        (tmp_path / "m" / one).mkdir(parents=True)
        (tmp_path / "m" / one / "file.txt").write_text(one)
        for link in ("l1", "l2"):
            (tmp_path / "m" / one / link).symlink_to(f"../{other}")
    with capture_runs() as captured, stage("f") as run:
        run.log_artifact(tmp_path / "m")
        copied = list(captured.one("f").artifacts["m"].rglob("*.txt"))
    assert 2 <= len(copied) < 20


def test_code_of_the_user_is_not_run_for_an_example() -> None:
    """A model with a `predict`, a step or a hook of the user's is recorded without being called."""
    called = []

    class Own(LinearRegression):
        def predict(self, features: Any) -> Any:
            called.append(features)
            return super().predict(features)

    net = torch.nn.Linear(2, 1)
    net.register_forward_hook(lambda *_: called.append(1))

    @stage(returns=True)
    def fit(features: Any, model: Any) -> Any:
        return model

    with capture_runs() as captured:
        fit(np.eye(2), Own().fit(np.eye(2), [1, 2]))
        fit(np.eye(2, dtype="float32"), net)
        specs = [json.loads((run.models["fit"] / "spec.json").read_text()) for run in captured.runs]
    assert called == []
    assert all(spec["example"] and not spec["answer"] for spec in specs)


@pytest.mark.parametrize("name", ["", " ", "team/churn", "a:b"])
def test_names_that_the_registry_refuses(name: str) -> None:
    """A name that MLflow would refuse is an error at once, in the marker and in the function."""
    with pytest.raises(trackdsl.OptionError, match="registered_model_name"):
        Model("m", registered_model_name=name)
    with capture_runs(), stage("f") as run, pytest.raises(trackdsl.OptionError, match="registered_model_name"):
        run.log_model(LinearRegression(), "m", registered_model_name=name)


def test_what_a_deleted_experiment_refuses_waits_for_it(store: str, tmp_path: Path) -> None:
    """A dataset and a model of a run whose experiment is deleted meanwhile arrive once it is restored."""
    name = f"gone-{tmp_path.name}"
    trackdsl.configure(tracking_uri=store)
    worker = Worker(tmp_path / "spool", open_sink)
    with experiment(name) as run:
        run.log_metric("m", 1)
        wait_until(lambda: worker.round() or client(store).get_experiment_by_name(name), "the run to be delivered")
        wait_until(lambda: not worker.round(), "everything to be delivered")
        id_ = client(store).get_experiment_by_name(name).experiment_id
        client(store).delete_experiment(id_)
        run.log_input(np.arange(3), name="data")
        run.log_model(LinearRegression().fit([[1], [2]], [1, 2]), "line")
    for _ in range(3):
        worker.round()
    client(store).restore_experiment(id_)
    worker.close()
    deliver()
    (found,) = client(store).search_runs([id_])
    found = client(store).get_run(found.info.run_id)
    assert [used.dataset.name for used in found.inputs.dataset_inputs] == ["data"]
    assert len(found.outputs.model_outputs) == 1
    assert not [tag for tag in found.data.tags if tag.startswith("trackdsl.omitted")]


def test_a_lock_whose_file_is_gone_is_none(tmp_path: Path) -> None:
    """Where the spool is removed, a process that delivers from it notices, and another one may begin."""
    lock = FileLock(tmp_path / "lock")
    assert lock.acquire()
    assert lock.is_current()
    (tmp_path / "lock").unlink()
    assert not lock.is_current()
    other = FileLock(tmp_path / "lock")
    assert other.acquire()
    assert other.is_current()
    assert not lock.is_current()
    other.release()
    lock.release()

"""Models: written without MLflow, delivered without loading them, loaded by MLflow as if it had logged them itself."""

from __future__ import annotations

import gc
import json
import os
import pickle
import random
import sys
import threading
import types
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import cloudpickle
import numpy as np
import pytest

import trackdsl
from tests.conftest import StartProgram, all_runs, client, deliver
from trackdsl import (
    Model,
    OptionError,
    stage,
    track_returns,
)
from trackdsl._core import events
from trackdsl._recording.models import record_model
from trackdsl.handlers import _example_files
from trackdsl.handlers._model_files import sha256_of_files
from trackdsl.handlers._registry import handler_for, handler_named
from trackdsl.handlers._requirements import pinned
from trackdsl.journal import _target
from trackdsl.journal._reader import read_all
from trackdsl.testing import capture_runs

pd = pytest.importorskip("pandas")
pytest.importorskip("sklearn")

from sklearn.base import BaseEstimator, ClassifierMixin  # noqa: E402
from sklearn.compose import ColumnTransformer  # noqa: E402
from sklearn.ensemble import RandomForestClassifier  # noqa: E402
from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer  # noqa: E402
from sklearn.gaussian_process.kernels import RBF, WhiteKernel  # noqa: E402
from sklearn.impute import SimpleImputer  # noqa: E402
from sklearn.linear_model import LinearRegression, LogisticRegression  # noqa: E402
from sklearn.model_selection import GridSearchCV, KFold  # noqa: E402
from sklearn.pipeline import make_pipeline  # noqa: E402
from sklearn.preprocessing import FunctionTransformer, StandardScaler  # noqa: E402


def a_frame(rows: int = 40) -> Any:
    random_state = np.random.RandomState(0)
    return pd.DataFrame(random_state.rand(rows, 3), columns=["a", "b", "c"])


def labels(frame: Any) -> Any:
    return (frame["a"] > 0.5).astype(int)


def run_of(name: str, uri: str | None = None) -> Any:
    return next(run for run in all_runs(uri) if run.info.run_name == name and here(run))


def here(run: Any) -> bool:
    """Whether a run is of this test: the server is shared."""
    return str(run.data.tags.get("test.cwd")) == str(Path.cwd())


def models_of(run: Any, uri: str | None = None) -> list[Any]:
    found = client(uri).search_logged_models([run.info.experiment_id])
    return [model for model in found if model.source_run_id == run.info.run_id]


def downloaded(uri_of_model: str) -> Path:
    import mlflow

    return Path(mlflow.artifacts.download_artifacts(uri_of_model))


def record(model: Any, arguments: dict[str, Any], name: str = "model", **options: Any) -> None:
    """Record a model in a run called `train`."""
    with stage("train", tags={"test.cwd": Path.cwd()}) as run:
        record_model(run, model, name, arguments=arguments, **options)


def recorded() -> list[tuple[events.Model, Path]]:
    """The models in the journals of this process, with their snapshots."""
    found = []
    for target in _target.targets():
        assert target.writer is not None
        for event in read_all(target.writer.directory):
            if isinstance(event, events.Model):
                found += [(event, target.writer.directory / "files" / event.snapshot)]
    return found


def spec_of(index: int = 0) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((recorded()[index][1] / "spec.json").read_text())
    return found


def example_of(index: int = 0, part: str = "example") -> Any:
    spec = spec_of(index)[part]
    return None if spec is None else _example_files.read(spec, recorded()[index][1])


# Each case: the model, the arguments of the call, what MLflow's flavour is, and how the model answers.
Case = tuple[Any, dict[str, Any], str, Callable[[Any, Any], Any]]


def _predict(model: Any, data: Any) -> Any:
    return model.predict(data)


def sklearn_frame() -> Case:
    frame = a_frame()
    model = RandomForestClassifier(5, random_state=0).fit(frame, labels(frame))
    return (
        model,
        {"label": labels(frame), "df": frame.assign(target=1.0)[["target", "c", "b", "a"]]},
        "sklearn",
        _predict,
    )


def sklearn_pipeline_on_array() -> Case:
    frame = a_frame()
    model = make_pipeline(StandardScaler(), LinearRegression()).fit(frame.to_numpy(), frame["a"])
    return model, {"other": np.ones((4, 2)), "split": (frame.to_numpy(), frame["a"])}, "sklearn", _predict


def sklearn_text() -> Case:
    texts = ["good", "bad", "good day", "bad day"] * 3
    names = np.array(["yes", "no", "yes", "no"] * 3, dtype=object)
    return (
        make_pipeline(CountVectorizer(), LogisticRegression()).fit(texts, names),
        {"texts": texts},
        "sklearn",
        _predict,
    )


def xgboost_estimator() -> Case:
    xgboost = pytest.importorskip("xgboost")
    frame = a_frame()
    model = xgboost.XGBClassifier(n_estimators=3).fit(frame, labels(frame))
    return model, {"X": frame}, "xgboost", _predict


def xgboost_booster() -> Case:
    xgboost = pytest.importorskip("xgboost")
    frame = a_frame()
    model = xgboost.train({"max_depth": 2}, xgboost.DMatrix(frame, frame["a"]), 3)
    return model, {"X": frame}, "xgboost", lambda model, data: model.predict(xgboost.DMatrix(data))


def lightgbm_estimator() -> Case:
    lightgbm = pytest.importorskip("lightgbm")
    frame = a_frame()
    model = lightgbm.LGBMRegressor(n_estimators=3, verbose=-1).fit(frame, frame["a"])
    return model, {"X": frame}, "lightgbm", _predict


def lightgbm_booster() -> Case:
    lightgbm = pytest.importorskip("lightgbm")
    frame = a_frame()
    model = lightgbm.train({"verbose": -1}, lightgbm.Dataset(frame, frame["a"]), 3)
    return model, {"X": frame}, "lightgbm", _predict


def torch_module() -> Case:
    torch = pytest.importorskip("torch")
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Dropout(0.5), torch.nn.Linear(4, 1))

    def predict(model: Any, data: Any) -> Any:
        model.eval()
        with torch.no_grad():
            return model(torch.from_numpy(np.asarray(data))).numpy()

    return model, {"config": {"lr": 0.1}, "y": torch.ones(40), "X": torch.rand(40, 3)}, "pytorch", predict


def keras_model() -> Case:
    pytest.importorskip("torch")
    os.environ.setdefault("KERAS_BACKEND", "torch")
    keras = pytest.importorskip("keras", minversion="3")
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, activation="relu"), keras.layers.Dense(1)])
    data = np.random.RandomState(0).rand(40, 3).astype("float32")
    return model, {"x": data}, "keras", lambda model, data: model.predict(data, verbose=0)


def python_model() -> Case:
    import mlflow

    class Doubling(mlflow.pyfunc.PythonModel):  # type: ignore[misc,name-defined]
        def predict(self, context: Any, model_input: Any, params: Any = None) -> Any:
            return model_input * 2

    return Doubling(), {"data": a_frame()}, "python_function", lambda model, data: model.predict(None, data)


def plain_callable() -> Case:
    return (lambda data: data * 3), {"data": a_frame()}, "python_function", lambda model, data: model(data)


def object_that_predicts() -> Case:
    class Tripling:
        def predict(self, data: Any) -> Any:
            return data * 3

    return Tripling(), {"data": a_frame()}, "python_function", _predict


CASES = [
    sklearn_frame, sklearn_pipeline_on_array, sklearn_text, xgboost_estimator, xgboost_booster, lightgbm_estimator,
    lightgbm_booster, torch_module, keras_model, python_model, plain_callable, object_that_predicts,
]  # fmt: skip


def check_loaded(case: Case, uri: str) -> None:
    """Load the one model of the run `train` each way MLflow knows, and compare what it answers."""
    import mlflow

    model, _, flavor, predict = case
    mlflow.set_tracking_uri(uri)
    run = run_of("train", uri)
    [logged] = models_of(run, uri)
    assert str(logged.status.value) == "READY"
    # Searching for runs does not return their outputs in MLflow 3.1.
    outputs = client(uri).get_run(run.info.run_id).outputs.model_outputs
    assert [output.model_id for output in outputs] == [logged.model_id]
    loaded = mlflow.pyfunc.load_model(f"models:/{logged.model_id}")
    example = loaded.input_example
    assert len(example) == 5
    assert loaded.metadata.signature.inputs is not None
    np.testing.assert_allclose(_numbers(loaded.predict(example)), _numbers(predict(model, example)), rtol=1e-5)
    if flavor != "python_function":
        assert loaded.metadata.signature.outputs is not None
        again = getattr(mlflow, flavor).load_model(f"runs:/{run.info.run_id}/model")
        assert type(again) is type(model)
        np.testing.assert_allclose(_numbers(predict(again, example)), _numbers(predict(model, example)), rtol=1e-5)
    # What `load_artifact` reads, after it has compared the hash.
    [entry] = json.loads(run.data.tags["trackdsl.files"]).values()
    folder = downloaded(f"models:/{logged.model_id}")
    assert sha256_of_files(folder) == entry["sha256"]
    handler = handler_named(entry["handler"])
    assert handler is not None
    np.testing.assert_allclose(
        _numbers(predict(handler.read(folder), example)), _numbers(predict(model, example)), rtol=1e-5
    )


def _numbers(answer: Any) -> Any:
    found = np.asarray(answer)
    return (found == "yes").astype(float) if found.dtype.kind in "OU" else found


_HEAVY = {xgboost_estimator, xgboost_booster, lightgbm_estimator, lightgbm_booster, torch_module, keras_model}


@pytest.mark.parametrize(
    "case",
    [pytest.param(case, id=case.__name__, marks=[pytest.mark.slow] if case in _HEAVY else []) for case in CASES],
)
def test_a_model_loads_as_mlflow_s_own(sqlite_store: str, case: Callable[[], Case]) -> None:
    """Models of every library answer as the original does: with MLflow's flavour, as pyfunc and by our own handler."""
    made = case()
    record(made[0], made[1])
    deliver()
    check_loaded(made, sqlite_store)


def test_a_model_reaches_a_server(shared_server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model loads through an MLflow server too, also as a registered one."""
    # MLflow 3.1 asks for `runs:/…` among the run's own artifacts first, where its server answers 500, again and again.
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    trackdsl.configure(tracking_uri=shared_server.uri)
    made = sklearn_frame()
    name = f"registered-{Path.cwd().parent.name}"
    record(made[0], made[1], registered_model_name=name)
    deliver(shared_server.uri)
    check_loaded(made, shared_server.uri)
    [version] = client(shared_server.uri).search_model_versions(f"name='{name}'")
    assert version.run_id == run_of("train", shared_server.uri).info.run_id


def test_the_marker_makes_a_model_of_anything(sqlite_store: str) -> None:
    """`Model(...)` on a return value names the model, registers it, and takes the example from the call's arguments."""
    import mlflow

    @stage
    @track_returns
    def make(
        frame: Any,
    ) -> tuple[
        Annotated[object, Model("doubling", registered_model_name="twice")], Annotated[object, Model("models/rf:v1.0")]
    ]:
        return (lambda data: data * 2), RandomForestClassifier(2).fit(frame, labels(frame))

    with stage("around", tags={"test.cwd": Path.cwd()}):
        make(a_frame())
    deliver()
    mlflow.set_tracking_uri(sqlite_store)
    by_name = {model.name: model for model in client().search_logged_models(["0"])}
    assert set(by_name) == {"doubling", "models_rf_v1_0"}
    assert by_name["models_rf_v1_0"].tags["trackdsl.model.name"] == "models/rf:v1.0"
    loaded = mlflow.pyfunc.load_model("models:/twice/1")
    assert (loaded.predict(a_frame(3)) == a_frame(3) * 2).all(axis=None)
    assert loaded.input_example.shape == (5, 3)
    [version] = client().search_model_versions("name='twice'")
    assert version.source == f"models:/{by_name['doubling'].model_id}"
    assert json.loads(by_name["doubling"].tags["mlflow.modelVersions"]) == [{"name": "twice", "version": 1}]


class Crash(BaseException):
    """Replaces a SIGKILL of the delivery process."""


class Dying:
    """A real client that dies before or after one of its calls."""

    def __init__(self, real: Any, at: int, *, after: bool) -> None:
        self.calls = 0
        self._real = real
        self._at = at
        self._after = after

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._real, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            self.calls += 1
            if self.calls == self._at and not self._after:
                raise Crash
            result = method(*args, **kwargs)
            if self.calls == self._at:
                raise Crash
            return result

        return call


@pytest.mark.slow
def test_a_crash_anywhere_leaves_one_model(sqlite_store: str) -> None:
    """Killed between any two requests and begun again, there is one model, one output and one version, all whole."""
    import mlflow

    from trackdsl.delivery.mlflow_client._models import log_model

    record(sklearn_frame()[0], {"X": a_frame()}, registered_model_name="churn")
    [(event, folder)] = recorded()
    real = client(sqlite_store)
    before = sorted(path.relative_to(folder) for path in folder.rglob("*"))
    calls = 0
    for after in (False, True):
        for at in range(1, 100):
            run_id = real.create_run("0").info.run_id
            real.log_param(run_id, "depth", at)
            # A model of its own for each of the runs: an event of another time.
            new = events.Model(event.run, "model", event.snapshot, "churn", 3, event.time + 2 * at + after)
            dying = Dying(real, at, after=after)
            finished = False
            try:
                log_model(dying, sqlite_store, run_id, "0", new, folder)
                finished = True
            except Crash:
                log_model(real, sqlite_store, run_id, "0", new, folder)
                log_model(real, sqlite_store, run_id, "0", new, folder)
            check_whole(real, run_id, {"depth": str(at)})
            if finished:
                calls += dying.calls
                break
    assert calls >= 20  # Of two deliveries that nothing has stopped: there was something to die in.
    assert sorted(path.relative_to(folder) for path in folder.rglob("*")) == before
    assert mlflow.sklearn.load_model("models:/churn/1").n_features_in_ == 3


def check_whole(mlflow: Any, run_id: str, params: dict[str, str]) -> None:
    """A run has one model, which is ready, linked once, and one version of a registered model."""
    run = mlflow.get_run(run_id)
    [logged] = models_of(run)
    assert str(logged.status.value) == "READY"
    assert logged.params == params
    assert [(output.model_id, output.step) for output in run.outputs.model_outputs] == [(logged.model_id, 3)]
    [version] = mlflow.search_model_versions(f"run_id='{run_id}'")
    assert version.source == f"models:/{logged.model_id}"


def test_late_twins_are_removed(sqlite_store: str) -> None:
    """Where a server has carried out a request twice, the older model stays, and gets what it lacks."""
    from trackdsl.delivery.mlflow_client._models import log_model

    record(sklearn_frame()[0], {"X": a_frame()})
    [(event, folder)] = recorded()
    real = client(sqlite_store)
    run = real.create_run("0")
    real.log_param(run.info.run_id, "depth", 3)
    twins = [
        real.create_logged_model("0", "m", run.info.run_id, {"trackdsl.model": events.model_key(event)})
        for _ in range(2)
    ]
    older = min(twins, key=lambda model: (model.creation_timestamp, model.model_id))
    log_model(real, sqlite_store, run.info.run_id, "0", event, folder)
    [left] = models_of(run)
    assert left.model_id == older.model_id
    assert left.params == {"depth": "3"}


class Tracing(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """Leaves a file when it is loaded, and draws numbers and changes itself when it predicts."""

    def __init__(self, path: str = "") -> None:
        self.path = path
        self.asked = 0

    def fit(self, X: Any, y: Any = None) -> Tracing:  # noqa: N803
        self.n_features_in_ = X.shape[1]
        return self

    @stage
    def predict(self, X: Any) -> Any:  # noqa: N803
        self.asked += 1
        trackdsl.log_metric("asked", self.asked)
        trackdsl.current_run().log_text("asked", "asked.txt")  # type: ignore[union-attr]
        return np.random.rand(len(X)) + random.random()

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        if self.path:
            Path(self.path).touch()


def test_delivery_never_loads_a_model(sqlite_store: str, tmp_path: Path) -> None:
    """A pickle that leaves a trace when it is loaded leaves none until somebody loads it."""
    import mlflow

    trace = tmp_path / "trace"
    record(Tracing(str(trace)).fit(a_frame()), {"X": a_frame()}, registered_model_name="tracing")
    deliver()
    assert not trace.exists()
    mlflow.sklearn.load_model("models:/tracing/1")
    assert trace.exists()


def test_requirements_are_the_installed_versions(sqlite_store: str) -> None:
    """The requirements are installed packages that the pickle refers to, in all three files, without own modules."""
    from importlib.metadata import version

    import yaml

    record(make_pipeline(StandardScaler(), Tracing()), {})
    deliver()
    folder = downloaded(f"models:/{models_of(run_of('train'))[0].model_id}")
    expected = [f"{name}=={version(name)}" for name in ("mlflow", "cloudpickle", "numpy", "scikit-learn")]
    lines = (folder / "requirements.txt").read_text().split("\n")
    assert lines[0] == expected[0]
    assert set(lines) <= set(expected)
    assert {expected[1], expected[3]} <= set(lines)
    conda = yaml.safe_load((folder / "conda.yaml").read_text())
    assert conda["dependencies"][-1] == {"pip": lines}
    assert yaml.safe_load((folder / "python_env.yaml").read_text())["dependencies"] == ["-r requirements.txt"]


def test_one_s_own_modules_are_no_requirements(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A module of the user's that has the name of an installed package is not that package."""
    pinned.cache_clear()
    assert pinned("iniconfig") is not None
    own = types.ModuleType("iniconfig")
    own.__file__ = str(tmp_path / "iniconfig.py")
    monkeypatch.setitem(sys.modules, "iniconfig", own)
    pinned.cache_clear()
    assert pinned("iniconfig") is None
    pinned.cache_clear()


def test_local_versions_are_left_out_of_requirements() -> None:
    """`2.4.0+cpu` is asked for as `2.4.0`, which an index has."""
    pytest.importorskip("torch")
    record(*torch_module()[:2])
    [found] = [line for line in spec_of()["requirements"] if line.startswith("torch==")]
    assert "+" not in found


def test_the_user_s_object_is_left_alone() -> None:
    """Neither the model nor the random generators change, nothing is kept alive, and its `predict` records nothing."""
    torch = pytest.importorskip("torch")
    model = Tracing().fit(a_frame())
    module = torch.nn.Sequential(torch.nn.Linear(3, 1), torch.nn.Dropout(0.5)).train()
    before = pickle.dumps(model)
    random.seed(1)
    np.random.seed(1)
    torch.manual_seed(1)
    with capture_runs() as captured, stage("train") as run:
        record_model(run, model, "tracing", arguments={"X": a_frame()})
        record_model(run, module, "module", arguments={"X": torch.rand(7, 3, generator=torch.Generator())})
    drawn = (random.random(), np.random.rand(), float(torch.rand(1)))
    random.seed(1)
    np.random.seed(1)
    torch.manual_seed(1)
    assert drawn == (random.random(), np.random.rand(), float(torch.rand(1)))
    assert pickle.dumps(model) == before
    assert module.training
    assert module[1].training
    assert [found.name for found in captured.runs] == ["train"]
    assert not captured.one("train").metrics
    kept = weakref.ref(model)
    del model
    gc.collect()
    assert kept() is None


def test_what_cannot_be_written_is_reported() -> None:
    """An estimator that cannot be pickled leaves a tag with its type and the reason, and no file."""

    class Unpicklable(Tracing):
        def __init__(self) -> None:
            self.lock = threading.Lock()

    @stage
    @track_returns("model")
    def train() -> Any:
        return Unpicklable()

    with stage("around"):
        assert isinstance(train(), Unpicklable)
    assert recorded() == []
    [target] = _target.targets()
    assert target.writer is not None
    tags = {
        key: text
        for event in read_all(target.writer.directory)
        if isinstance(event, events.Tags)
        for key, text in event.values.items()
    }
    assert "lock" in tags["trackdsl.omitted.model"]
    assert "Unpicklable" in tags["trackdsl.omitted.model"]
    assert list((target.writer.directory / "files").iterdir()) == []


def test_what_the_user_gives_counts(sqlite_store: str) -> None:
    """A given signature, example or list of requirements is used as it is."""
    import mlflow
    from mlflow.models import infer_signature

    signature = infer_signature(a_frame(2), np.array([1.0]), {"scale": 2})
    record(lambda data, scale=1: data * scale, {}, signature=signature, pip_requirements=["numpy>=1"],
           input_example=(a_frame(7), {"scale": 2}))  # fmt: skip
    deliver()
    [logged] = models_of(run_of("train"))
    loaded = mlflow.pyfunc.load_model(f"models:/{logged.model_id}")
    assert loaded.metadata.signature == signature
    assert loaded.input_example.shape == (7, 3)
    assert loaded.metadata.load_input_example_params(downloaded(f"models:/{logged.model_id}")) == {"scale": 2}
    assert (loaded.predict(a_frame(2), params={"scale": 4}) == a_frame(2) * 4).all(axis=None)
    assert (downloaded(f"models:/{logged.model_id}") / "requirements.txt").read_text() == "numpy>=1"


def test_an_example_that_cannot_be_kept_is_reported() -> None:
    """An input example of the user's that cannot be kept is not dropped in silence: a tag says so."""
    with capture_runs() as captured, stage("train") as run:
        record_model(run, lambda data: data, "model", input_example=threading.Lock())
    assert "lock" in captured.one("train").tags["trackdsl.omitted.model.example"]


def test_a_callable_is_asked_only_where_an_example_is_given() -> None:
    """A user's function is called for a signature only if an example is given, as a call may do anything."""
    asked: list[int] = []

    def model(data: Any) -> Any:
        asked.append(len(data))
        return data * 2

    record(model, {"data": a_frame()})
    assert asked == []
    record(model, {}, input_example=a_frame(3))
    assert (example_of(1, "answer") == a_frame(3) * 2).all(axis=None)


@pytest.mark.slow
def test_mlflow_is_not_imported_to_record_a_model(start: StartProgram) -> None:
    """Recording an estimator and a function leaves MLflow out of the program."""
    program = start("""
        import sys
        import numpy as np
        from sklearn.linear_model import LinearRegression
        from trackdsl import stage
        from trackdsl._recording.models import record_model
        X = np.arange(12.0).reshape(6, 2)
        with stage("train") as run:
            record_model(run, LinearRegression().fit(X, X[:, 0]), "line", arguments={"X": X})
            record_model(run, lambda x: x, "same", arguments={"X": X})
        print("mlflow" in sys.modules)
    """)
    code, out, err = program.finish()
    assert (code, out.strip()) == (0, "False"), err


def test_the_hash_covers_every_file(tmp_path: Path) -> None:
    """The hash changes with any name or content of a file, and not with what MLflow adds."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "model.pth").write_bytes(b"1")
    seen = {sha256_of_files(tmp_path)}
    (tmp_path / "MLmodel").write_text("added")
    seen.add(sha256_of_files(tmp_path))
    assert len(seen) == 1
    (tmp_path / "data" / "model.pth").write_bytes(b"2")
    seen.add(sha256_of_files(tmp_path))
    (tmp_path / "data" / "model.pth").rename(tmp_path / "model.pth")
    seen.add(sha256_of_files(tmp_path))
    (tmp_path / "data" / "requirements.txt").write_text("deeper, so not MLflow's")
    seen.add(sha256_of_files(tmp_path))
    assert len(seen) == 4


def summary(value: Any) -> Any:
    return handler_for(type(value)).summary(value)


@pytest.mark.slow
def test_models_as_parameters() -> None:
    """A model as a parameter is one line: its non-default arguments or the size of a network; never its `repr`."""
    torch = pytest.importorskip("torch")
    assert summary(RandomForestClassifier(max_depth=3)) == "RandomForestClassifier(max_depth=3)"
    assert summary(SimpleImputer()) == "SimpleImputer()"
    assert summary(make_pipeline(StandardScaler(), LinearRegression())) == (
        "Pipeline(steps=[StandardScaler, LinearRegression])"
    )
    assert summary(GridSearchCV(LogisticRegression(C=2.0), {"C": [1]}, cv=3)) == (
        'GridSearchCV(estimator=LogisticRegression(C=2.0), param_grid={"C": [1]}, cv=3)'
    )
    assert summary(torch.nn.Linear(3, 1)) == "Linear: 4 parameters, float32, cpu"
    for case in CASES[3:7]:
        text = summary(case()[0])
        assert "\n" not in text
        assert len(text) < 100


@pytest.mark.slow
def test_what_configures_training_reads_by_its_arguments() -> None:
    """Transformers, splitters, kernels, boosters, losses and optimizers are described by their arguments."""
    torch, xgboost, lightgbm = map(pytest.importorskip, ("torch", "xgboost", "lightgbm"))
    weight = torch.nn.Parameter(torch.ones(1))
    sgd = torch.optim.SGD([weight], lr=0.5, momentum=0.9)
    for value, text in [
        (make_pipeline(StandardScaler(), LinearRegression(positive=True)),
         "Pipeline(steps=[StandardScaler, LinearRegression(positive=True)])"),
        (FunctionTransformer(np.log1p), "FunctionTransformer(func=numpy.log1p)"),
        (ColumnTransformer([("a", StandardScaler(), ["x"]), ("b", "drop", [0])]),
         "ColumnTransformer(transformers=[StandardScaler [\"x\"], 'drop' [0]])"),
        (TfidfVectorizer(ngram_range=(1, 2)), "TfidfVectorizer(ngram_range=[1, 2])"),
        (KFold(3, shuffle=True), "KFold(n_splits=3, shuffle=True)"),
        (RBF(2.0) + WhiteKernel(), "Sum(k1=RBF(length_scale=2.0), k2=WhiteKernel)"),
        (xgboost.XGBRegressor(max_depth=3, unknown=1), "XGBRegressor(max_depth=3, unknown=1)"),
        (lightgbm.LGBMRegressor(path_smooth=2), "LGBMRegressor(path_smooth=2)"),
        (torch.nn.CrossEntropyLoss(label_smoothing=0.1), "CrossEntropyLoss(label_smoothing=0.1): 0 parameters"),
        (torch.optim.Adam([weight]), "torch.optim.adam.Adam()"),
        (sgd, "torch.optim.sgd.SGD(lr=0.5, momentum=0.9)"),
    ]:  # fmt: skip
        assert summary(value) == text
    assert "step_size=3" in summary(torch.optim.lr_scheduler.StepLR(sgd, 3))


class WithKey(BaseEstimator):  # type: ignore[misc]
    def __init__(self, api_key: str = "", url: str = "") -> None:
        self.api_key = api_key
        self.url = url


def test_secrets_of_an_estimator_are_no_parameters() -> None:
    """A parameter with the name of a secret is left out of the summary, credentials in another are masked."""
    assert summary(WithKey("hunter2hunter2", "http://me:hunter2@x/")) == "WithKey(url='http://***@x/')"


def test_an_estimator_that_resists_is_still_described() -> None:
    """Attributes that raise leave the class name, and the model is recorded without an example."""

    class Resisting(Tracing):
        @property
        def path(self) -> str:
            raise RuntimeError("no")

        @path.setter
        def path(self, value: str) -> None: ...

        @property
        def n_features_in_(self) -> int:
            raise RuntimeError("no")

    assert summary(Resisting()).startswith("Resisting(")
    record(cloudpickle.loads(cloudpickle.dumps(Tracing())), {"X": a_frame()})
    record(Resisting(), {"X": 3})
    assert len(recorded()) == 2
    assert example_of(1) is None


def run_of_name(name: str) -> Any:
    return next(run for run in all_runs() if run.info.run_name == name)


def test_what_is_said_of_a_model_is_checked(tmp_path: Path, sqlite_store: str) -> None:
    """A signature or requirements of the wrong kind are reported at the call; a file of requirements is read."""
    with stage("train") as run:
        for options, option in (
            ({"signature": "double"}, "signature"), ({"pip_requirements": "scikit-learn==1.5.0"}, "pip_requirements"),
            ({"pip_requirements": [1]}, "pip_requirements"),
        ):  # fmt: skip
            with pytest.raises(OptionError) as refused:
                run.log_model(LinearRegression(), "line", **options)  # type: ignore[arg-type]
            assert refused.value.option == option
        (tmp_path / "wanted.txt").write_text("scikit-learn\nnumpy\n")
        trackdsl.log_model(LinearRegression(), "line", pip_requirements=tmp_path / "wanted.txt")
    assert spec_of()["requirements"] == ["scikit-learn", "numpy"]
    assert len(recorded()) == 1

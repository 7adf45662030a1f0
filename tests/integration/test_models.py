"""Models: written without MLflow, with requirements, examples and signatures; the object stays as it is."""

from __future__ import annotations

import gc
import json
import pickle
import random
import sys
import threading
import types
import weakref
from pathlib import Path
from typing import Annotated, Any

import cloudpickle
import numpy as np
import pytest

import trackdsl
from tests.conftest import StartProgram, client, deliver
from tests.model_cases import CASES, torch_module
from tests.recorded_models import a_frame, downloaded, example_of, labels, models_of, record, recorded, run_of, spec_of
from trackdsl import (
    Model,
    OptionError,
    stage,
    track_returns,
)
from trackdsl._core import events
from trackdsl._recording.models import record_model
from trackdsl.handlers._model_files import sha256_of_files
from trackdsl.handlers._registry import handler_for
from trackdsl.handlers._requirements import pinned
from trackdsl.journal import _target
from trackdsl.journal._reader import read_all
from trackdsl.testing import capture_runs

pd = pytest.importorskip("pandas")
pytest.importorskip("sklearn")

from sklearn.base import BaseEstimator, ClassifierMixin  # noqa: E402
from sklearn.compose import ColumnTransformer  # noqa: E402
from sklearn.ensemble import RandomForestClassifier  # noqa: E402
from sklearn.feature_extraction.text import TfidfVectorizer  # noqa: E402
from sklearn.gaussian_process.kernels import RBF, WhiteKernel  # noqa: E402
from sklearn.impute import SimpleImputer  # noqa: E402
from sklearn.linear_model import LinearRegression, LogisticRegression  # noqa: E402
from sklearn.model_selection import GridSearchCV, KFold  # noqa: E402
from sklearn.pipeline import make_pipeline  # noqa: E402
from sklearn.preprocessing import FunctionTransformer, StandardScaler  # noqa: E402


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

"""MLflow's autologging inside stages: two fits after each other, at the same time, and in one run."""

from __future__ import annotations

import functools
import logging
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from tests.conftest import client, points
from tests.plain_mlflow import Tree, run_threads
from trackdsl import experiment, log_param, stage

mlflow = pytest.importorskip("mlflow")
pytest.importorskip("sklearn")

import numpy as np  # noqa: E402
from sklearn.ensemble import RandomForestClassifier  # noqa: E402
from sklearn.linear_model import LogisticRegression  # noqa: E402
from sqlalchemy import event  # noqa: E402

X = np.random.RandomState(0).rand(40, 2)
Y = (X[:, 0] > 0.5).astype(int)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """MLflow takes its usual requirements for a model, instead of loading it in a process of its own to find them."""
    monkeypatch.setenv("MLFLOW_REQUIREMENTS_INFERENCE_TIMEOUT", "0")
    logging.getLogger("mlflow").setLevel(logging.ERROR)


@pytest.fixture
def sklearn_autolog() -> Iterator[None]:
    mlflow.sklearn.autolog(silent=True)
    yield
    mlflow.sklearn.autolog(disable=True, silent=True)


@pytest.fixture
def xgboost_autolog() -> Iterator[None]:
    pytest.importorskip("xgboost")
    mlflow.xgboost.autolog(log_models=False, silent=True)
    yield
    mlflow.xgboost.autolog(disable=True, silent=True)


def models_of(run: Any) -> list[Any]:
    """The models that a run has made, the oldest first."""
    found = client().search_logged_models([run.info.experiment_id], f"source_run_id = '{run.info.run_id}'")
    return sorted(found, key=lambda model: model.creation_timestamp)


_barrier = threading.Barrier(2)


class Meeting(RandomForestClassifier):
    """Fits only while another one does."""

    def fit(self, *args: Any, **kwargs: Any) -> Any:
        _barrier.wait()
        found = super().fit(*args, **kwargs)
        _barrier.wait()
        return found


@pytest.mark.parametrize(
    "at_once",
    [pytest.param(False, id="after each other", marks=pytest.mark.slow), pytest.param(True, id="in threads")],
)
def test_two_stages_of_one_experiment(here: str, sklearn_autolog: None, at_once: bool) -> None:
    """Each stage has the hyperparameters, metrics, model, signature and inputs of its own fit, and no other's."""
    kind = Meeting if at_once else RandomForestClassifier

    @stage("{name}")
    def fit(name: str, trees: int) -> float:
        return float(kind(n_estimators=trees, random_state=0).fit(X, Y).score(X, Y))

    with experiment("two", run_name="all"):
        if at_once:
            run_threads(*(functools.partial(fit, f"fit{trees}", trees) for trees in (3, 5)))
        else:
            fit("fit3", 3)
            fit("fit5", 5)
    tree = Tree(here)
    assert tree.parents() == {"all": None, "fit3": "all", "fit5": "all"}
    assert tree.statuses() == {"FINISHED"}
    for trees in (3, 5):
        run = tree[f"fit{trees}"]
        assert (run.data.params["trees"], run.data.params["n_estimators"]) == (str(trees), str(trees))
        assert "training_accuracy_score" in run.data.metrics
        [model] = models_of(run)
        info = mlflow.models.get_model_info(f"models:/{model.model_id}")
        assert info.signature.inputs is not None
        assert model.params["n_estimators"] == str(trees)
        assert mlflow.sklearn.load_model(info.model_uri).n_estimators == trees
        assert [each.tags[0].value for each in run.inputs.dataset_inputs][:1] == ["train"]
    assert models_of(tree["all"]) == []


@pytest.mark.slow
def test_two_fits_in_one_run(here: str, sklearn_autolog: None) -> None:
    """The first value of each parameter is kept, tags have the later ones, and both models are there with their own."""
    with stage("both"):
        LogisticRegression(C=2.0).fit(X, Y)
        LogisticRegression(C=3.0, max_iter=50).fit(X, Y)
        RandomForestClassifier(n_estimators=3).fit(X, Y)
    both = Tree(here)["both"]
    assert (both.data.params["C"], both.data.params["max_iter"], both.data.params["n_estimators"]) == (
        "2.0",
        "100",
        "3",
    )
    later = {key: value for key, value in both.data.tags.items() if key.startswith("trackdsl.param.later.")}
    assert later["trackdsl.param.later.C"] == "3.0"
    assert later["trackdsl.param.later.max_iter"] == "50"
    loaded = [mlflow.sklearn.load_model(f"models:/{model.model_id}") for model in models_of(both)]
    assert [getattr(model, "C", None) for model in loaded] == [2.0, 3.0, None]
    assert len({type(model) for model in loaded}) == 2


@pytest.mark.slow
def test_a_parameter_that_the_program_gives_too(here: str, sklearn_autolog: None) -> None:
    """One parameter of the program's with another value takes none of the others with it, whichever way it is given."""
    with stage("before", C="mine"):
        LogisticRegression(C=2.0).fit(X, Y)
    with stage("after"):
        LogisticRegression(C=2.0).fit(X, Y)
        log_param("C", "mine")
        log_param("own", 1)
    with stage("plain"):
        mlflow.log_param("C", "mine")
        LogisticRegression(C=2.0).fit(X, Y)
    tree = Tree(here)
    every = set(LogisticRegression().get_params())
    for name, first, later in (("before", "mine", "2.0"), ("after", "2.0", "mine"), ("plain", "mine", "2.0")):
        assert every <= set(tree[name].data.params), name
        assert (tree[name].data.params["C"], tree[name].data.tags["trackdsl.param.later.C"]) == (first, later), name
    assert tree["after"].data.params["own"] == "1"


@pytest.mark.slow
def test_boosters_in_threads(here: str, xgboost_autolog: None) -> None:
    """XGBoost trains in two stages at the same time, and each has its own parameters and curve."""
    import xgboost

    data = xgboost.DMatrix(X, Y)
    barrier = threading.Barrier(2)

    class Wait(xgboost.callback.TrainingCallback):  # type: ignore[misc, name-defined]
        def after_iteration(self, *_: Any) -> bool:
            barrier.wait()
            return False

    @stage("{name}")
    def boost(name: str, depth: int) -> None:
        given = {"max_depth": depth, "eta": depth / 10}
        xgboost.train(given, data, 4, evals=[(data, "train")], callbacks=[Wait()], verbose_eval=False)

    with stage("all"):
        run_threads(*(functools.partial(boost, f"b{depth}", depth) for depth in (1, 3)))
    tree = Tree(here)
    assert tree.parents() == {"all": None, "b1": "all", "b3": "all"}
    curves = []
    for depth in (1, 3):
        run = tree[f"b{depth}"]
        assert (run.data.params["max_depth"], run.data.params["num_boost_round"]) == (str(depth), "4")
        curves.append(points(run, "train-rmse"))
    assert [len(curve) for curve in curves] == [4, 4]
    assert curves[0] != curves[1]


def test_one_dataset_of_two_runs(here: str) -> None:
    """Two concurrent stages with the same dataset both get it, though the store refuses one of the writes at first."""
    from mlflow.store.tracking.dbmodels.models import SqlDataset

    barrier = threading.Barrier(2)
    late: list[int] = []

    def meet(*_: Any) -> None:
        late.append(barrier.wait())  # Both have looked for the dataset, and neither has found it.

    @stage("{name}")
    def use(name: str) -> None:
        mlflow.log_input(mlflow.data.from_numpy(X, name="data"), context="training")

    event.listen(SqlDataset, "before_insert", meet)
    try:
        with experiment("data", run_name="all"):
            run_threads(*(functools.partial(use, name) for name in ("one", "two")))
    finally:
        event.remove(SqlDataset, "before_insert", meet)
    tree = Tree(here)
    assert sorted(late) == [0, 1]
    assert tree.statuses() == {"FINISHED"}
    for name in ("one", "two"):
        [used] = client().get_run(tree[name].info.run_id).inputs.dataset_inputs
        assert used.dataset.name == "data"


def test_a_refusal_of_mlflow_s(here: str, log_lines: list[str]) -> None:
    """What MLflow itself refuses inside a scope reaches the program as it is, and the run stays open."""
    with stage("fit") as run:
        with pytest.raises(mlflow.MlflowException) as refused:
            mlflow.sklearn.log_model(LogisticRegression().fit(X, Y), name="a/b", pip_requirements=[])
        run.log_metric("after", 1)
    with pytest.raises(mlflow.MlflowException) as outside:
        mlflow.sklearn.log_model(LogisticRegression().fit(X, Y), name="a/b", pip_requirements=[])
    assert str(refused.value) == str(outside.value)
    mlflow.end_run()
    fit = Tree(here)["fit"]
    assert (fit.info.status, fit.data.metrics) == ("FINISHED", {"after": 1})
    assert log_lines == []

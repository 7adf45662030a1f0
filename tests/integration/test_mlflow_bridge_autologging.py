"""MLflow's autologging and models inside scopes: what they log lands on the run of the scope."""

from __future__ import annotations

import asyncio
import functools
import os
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from tests.conftest import all_runs, client, points
from tests.lightning_network import network_and_data
from tests.plain_mlflow import Tree, run_threads
from trackdsl import current_run, stage
from trackdsl.delivery import flush

mlflow = pytest.importorskip("mlflow")


def autologged(run: Any, *params: str) -> bool:
    return set(params) <= set(run.data.params)


def data() -> tuple[Any, Any]:
    numpy = pytest.importorskip("numpy")
    x = numpy.arange(40.0).reshape(20, 2)
    return x, (x[:, 0] > 20).astype(int)


@pytest.fixture
def sklearn_autolog() -> Iterator[None]:
    pytest.importorskip("sklearn")
    mlflow.sklearn.autolog(log_models=False, log_datasets=False, silent=True)
    yield
    mlflow.sklearn.autolog(disable=True, silent=True)


@pytest.mark.slow
def test_scikit_learn(here: str, sklearn_autolog: None) -> None:
    """Fits land on the run of their stage: with its parameters, in tasks, and in threads at the same time."""
    from sklearn.linear_model import LogisticRegression

    x, y = data()
    barrier = threading.Barrier(2)

    class Meeting(LogisticRegression):
        """An estimator that fits only while another one does."""

        def fit(self, *args: Any, **kwargs: Any) -> Any:
            barrier.wait()
            found = super().fit(*args, **kwargs)
            barrier.wait()
            return found

    @stage("{name}")
    def fit(name: str, C: float, kind: Any = LogisticRegression) -> None:  # noqa: N803
        kind(C=2 * C).fit(x, y)
        assert mlflow.active_run().info.run_id == current_run().run_id

    async def gathered() -> None:
        await asyncio.gather(*(asyncio.to_thread(fit, f"task{i}", i + 1.0) for i in range(2)))

    mlflow.sklearn.autolog(log_models=False, log_datasets=False, silent=True)
    with stage("root"):
        asyncio.run(gathered())
        run_threads(*(functools.partial(fit, f"thread{i}", i + 1.0, Meeting) for i in range(2)))
    tree = Tree(here)
    fits = ["task0", "task1", "thread0", "thread1"]
    assert tree.parents() == {"root": None, **dict.fromkeys(fits, "root")}
    assert tree.statuses() == {"FINISHED"}
    for name in fits:
        assert autologged(tree[name], "solver", "tol", "max_iter")
        assert "training_accuracy_score" in tree[name].data.metrics
        assert tree[name].data.params["C"] == f"{int(name[-1]) + 1.0}"
        assert tree[name].data.tags["trackdsl.param.later.C"] == f"{2 * (int(name[-1]) + 1.0)}"


@pytest.mark.slow
def test_a_search_over_parameters(here: str, sklearn_autolog: None) -> None:
    """A grid search lands on the run of its stage, with a run of MLflow's for each of the best candidates inside."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV

    x, y = data()
    with stage("search"):
        GridSearchCV(LogisticRegression(), {"C": [0.1, 1.0]}, cv=2).fit(x, y)
    assert flush(60)
    runs = all_runs(here)
    (search,) = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    assert search.info.run_name == "search"
    assert "best_C" in search.data.params
    assert {run.data.tags["mlflow.parentRunId"] for run in runs if run is not search} == {search.info.run_id}
    assert {run.data.params["C"] for run in runs if run is not search} == {"0.1", "1.0"}


@pytest.mark.slow
def test_xgboost(here: str) -> None:
    """XGBoost's autologging lands on the run of the stage."""
    xgboost = pytest.importorskip("xgboost")
    mlflow.xgboost.autolog(log_models=False, log_datasets=False, silent=True)
    try:
        x, y = data()
        with stage("boost"):
            xgboost.train(
                {"max_depth": 2}, xgboost.DMatrix(x, y), num_boost_round=2, evals=[(xgboost.DMatrix(x, y), "e")]
            )
    finally:
        mlflow.xgboost.autolog(disable=True, silent=True)
    tree = Tree(here)
    assert autologged(tree["boost"], "max_depth", "num_boost_round")
    assert len(points(tree["boost"], "e-rmse")) == 2
    assert (tree.count, tree.statuses()) == (1, {"FINISHED"})


@pytest.mark.slow
def test_keras(here: str) -> None:
    """Keras's autologging lands on the run of the stage."""
    os.environ.setdefault("KERAS_BACKEND", "torch")
    keras = pytest.importorskip("keras")
    flavor = pytest.importorskip("mlflow.keras")
    x, y = data()
    flavor.autolog(log_models=False, log_datasets=False, silent=True)
    try:
        with stage("net"):
            model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
            model.compile(loss="mse")
            model.fit(x, y, epochs=2, verbose=0)
    finally:
        flavor.autolog(disable=True, silent=True)
    tree = Tree(here)
    assert autologged(tree["net"], "epochs")
    assert "loss" in tree["net"].data.metrics
    assert (tree.count, tree.statuses()) == (1, {"FINISHED"})


@pytest.mark.slow
def test_lightning(here: str) -> None:
    """PyTorch Lightning's autologging lands on the runs of two stages that train one after the other."""
    lightning = pytest.importorskip("lightning")
    pytest.importorskip("torch")
    mlflow.pytorch.autolog(log_models=False, log_datasets=False, silent=True)
    try:
        for name in ("one", "two"):
            with stage(name):
                trainer = lightning.Trainer(
                    max_epochs=2, logger=False, enable_progress_bar=False, enable_checkpointing=False,
                    enable_model_summary=False, accelerator="cpu",
                )  # fmt: skip
                trainer.fit(*network_and_data())
    finally:
        mlflow.pytorch.autolog(disable=True, silent=True)
    tree = Tree(here)
    for name in ("one", "two"):
        assert autologged(tree[name], "epochs", "optimizer_name")
        assert "train_loss" in tree[name].data.metrics
    assert (tree.count, tree.statuses()) == (2, {"FINISHED"})


@pytest.mark.slow
def test_a_model(here: str) -> None:
    """`mlflow.<flavor>.log_model` makes a model of the scope's run, with its parameters."""
    pytest.importorskip("sklearn")
    from sklearn.linear_model import LogisticRegression

    x, y = data()
    with stage("fit", C=1.0):
        info = mlflow.sklearn.log_model(LogisticRegression().fit(x, y), name="model", pip_requirements=[])
    tree = Tree(here)
    (output,) = client().get_run(tree["fit"].info.run_id).outputs.model_outputs
    logged = mlflow.get_logged_model(output.model_id)
    assert (info.model_id, logged.source_run_id, logged.params["C"]) == (
        output.model_id, tree["fit"].info.run_id, "1.0",
    )  # fmt: skip

"""Autologging, as the documents show it: no logging in the training code, and everything on the right run."""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import trackdsl
from tests.conftest import StartProgram, all_runs, client, points
from tests.plain_mlflow import Tree
from trackdsl import experiment, stage

mlflow = pytest.importorskip("mlflow")
pytest.importorskip("sklearn")


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """MLflow takes its usual requirements for a model, instead of loading it in a process of its own to find them."""
    monkeypatch.setenv("MLFLOW_REQUIREMENTS_INFERENCE_TIMEOUT", "0")
    logging.getLogger("mlflow").setLevel(logging.ERROR)
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)


@pytest.fixture
def autolog() -> Iterator[Any]:
    """Turn on the autologging of a flavour, with its defaults, until the end of the test."""
    used: list[Any] = []

    def turn_on(flavor: str) -> None:
        used.append(importlib.import_module(f"mlflow.{flavor}"))
        used[-1].autolog(silent=True)

    yield turn_on
    for module in used:
        module.autolog(disable=True, silent=True)


def iris() -> Any:
    from sklearn.datasets import load_iris
    from sklearn.model_selection import train_test_split

    data = load_iris()
    return train_test_split(data.data, data.target, test_size=0.2, random_state=0)


def models_of(run: Any) -> list[Any]:
    """The models that a run has made, as MLflow describes them."""
    found = client().search_logged_models([run.info.experiment_id], f"source_run_id = '{run.info.run_id}'")
    return [mlflow.models.get_model_info(f"models:/{model.model_id}") for model in found]


@pytest.mark.parametrize("around", ["stage", "start_run"])
def test_r68_r69_scikit_learn_logs_itself(here: str, autolog: Any, around: str) -> None:
    """Hyperparameters, training metrics, signature and model of a forest, on the stage's run or plain MLflow's."""
    from sklearn.ensemble import RandomForestClassifier

    autolog("sklearn")
    x, _, y, _ = iris()
    with experiment("iris", run_name="all"), stage("fit") if around == "stage" else mlflow.start_run(run_name="fit"):
        forest = RandomForestClassifier(n_estimators=10, max_depth=5, random_state=0).fit(x, y)
    tree = Tree(here)
    assert tree.parents() == {"all": None, "fit": "all"}
    fit = tree["fit"]
    assert {"n_estimators": "10", "max_depth": "5"}.items() <= fit.data.params.items()
    assert set(forest.get_params()) <= set(fit.data.params)
    assert fit.data.metrics["training_accuracy_score"] == forest.score(x, y)
    assert {"training_f1_score", "training_log_loss", "training_roc_auc"} <= set(fit.data.metrics)
    [model] = models_of(fit)
    assert model.signature.inputs.input_types()
    assert model.signature.outputs is not None
    loaded = mlflow.sklearn.load_model(model.model_uri)
    assert (loaded.predict(x) == forest.predict(x)).all()
    assert not tree["all"].data.params
    assert models_of(tree["all"]) == []


def test_r70_a_plain_pytorch_loop_is_watched(here: str, autolog: Any) -> None:
    """The architecture, the parameters and the curves of loss and learning rate of a loop that stays as it is."""
    torch = pytest.importorskip("torch")
    autolog("pytorch")
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(10, 50), torch.nn.ReLU(), torch.nn.Linear(50, 1))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    x, y = torch.rand(16, 10), torch.rand(16, 1)
    seen = []
    with stage("fit"):
        trackdsl.watch(model, optimizer)
        for _ in range(20):
            optimizer.zero_grad()
            loss = torch.nn.functional.mse_loss(model(x), y)
            loss.backward()
            optimizer.step()
            seen.append(loss.item())
    fit = Tree(here)["fit"]
    assert {
        "model.class": "Sequential", "model.parameters": "601", "model.trainable_parameters": "601",
        "optimizer.class": "Adam", "optimizer.lr": "0.01",
    }.items() <= fit.data.params.items()  # fmt: skip
    assert points(fit, "loss") == list(enumerate(seen))
    assert points(fit, "lr") == [(step, 0.01) for step in range(20)]
    text = Path(mlflow.artifacts.download_artifacts(run_id=fit.info.run_id, artifact_path="model/architecture.txt"))
    assert "(0): Linear(in_features=10, out_features=50, bias=True)" in text.read_text()
    assert "2.weight: 1 x 50 float32" in text.read_text()


def test_r70_lightning_logs_itself(here: str, autolog: Any, tmp_path: Path) -> None:
    """PyTorch Lightning's epochs, optimizer, loss curve and model, on the run of the stage that trains."""
    torch, lightning = pytest.importorskip("torch"), pytest.importorskip("lightning")

    class Net(lightning.LightningModule):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.layer = torch.nn.Linear(2, 1)

        def forward(self, x: Any) -> Any:
            return self.layer(x)

        def training_step(self, batch: Any) -> Any:
            loss = self(batch[0]).square().mean()
            self.log("train_loss", loss)
            return loss

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), lr=0.1)

    autolog("pytorch")
    with stage("fit"):
        trainer = lightning.Trainer(
            max_epochs=3, logger=False, enable_progress_bar=False, enable_checkpointing=False,
            enable_model_summary=False, accelerator="cpu",
        )  # fmt: skip
        trainer.fit(Net(), torch.utils.data.DataLoader(torch.utils.data.TensorDataset(torch.ones(4, 2))))
    tree = Tree(here)
    assert (tree.count, tree.statuses()) == (1, {"FINISHED"})
    fit = tree["fit"]
    assert {"epochs": "3", "optimizer_name": "SGD", "lr": "0.1"}.items() <= fit.data.params.items()
    assert len(points(fit, "train_loss")) == 3
    assert [list(model.flavors) for model in models_of(fit)] == [["python_function", "pytorch"]]


KERAS = """
    import numpy, sys, mlflow, trackdsl
    import tensorflow as tf

    mlflow.set_tracking_uri(sys.argv[1])
    mlflow.tensorflow.autolog()
    x, y = numpy.random.rand(40, 4).astype("float32"), numpy.random.randint(0, 3, 40)

    @trackdsl.stage
    def fit(epochs):
        model = tf.keras.Sequential(
            [tf.keras.layers.Dense(8, activation="relu"), tf.keras.layers.Dense(3, activation="softmax")]
        )
        model.compile(optimizer="adam", loss="sparse_categorical_crossentropy", metrics=["accuracy"])
        model.fit(x, y, epochs=epochs, validation_split=0.2, verbose=0)

    with trackdsl.experiment("keras", run_name="all"):
        fit(3)
        fit(2)
"""


@pytest.mark.skipif(
    importlib.util.find_spec("tensorflow") is None, reason="needs TensorFlow: pip install -e '.[integrations]'"
)
def test_r71_keras_on_tensorflow_logs_itself(start: StartProgram, sqlite_store: str) -> None:
    """Two fits with a validation split: compiled optimizer, curves of both sets and model, each on its stage's run."""
    program = start(
        KERAS, sqlite_store, TRACKDSL_MODE="online", TF_CPP_MIN_LOG_LEVEL="3", CUDA_VISIBLE_DEVICES="",
        KERAS_BACKEND="tensorflow",
    )  # fmt: skip
    code, _, err = program.finish()
    assert code == 0, err
    runs = all_runs(sqlite_store)
    assert [run.info.run_name for run in runs] == ["all", "fit", "fit"]
    for run, epochs in zip(runs[1:], (3, 2), strict=True):
        assert run.data.tags["mlflow.parentRunId"] == runs[0].info.run_id
        assert {
            "epochs": str(epochs),
            "opt_beta_1": "0.9",
            "validation_split": "0.2",
        }.items() <= run.data.params.items()
        for curve in ("loss", "accuracy", "val_loss", "val_accuracy"):
            assert len(points(run, curve)) == epochs
        [model] = models_of(run)
        assert set(model.flavors) == {"python_function", "tensorflow"}
        assert model.signature.inputs is not None
    assert not runs[0].data.metrics


def test_r72_xgboost_logs_itself(here: str, autolog: Any) -> None:
    """The parameters given to `train`, the curve of each evaluation set and the model, on the run of the stage."""
    xgboost = pytest.importorskip("xgboost")
    autolog("xgboost")
    x, x_test, y, y_test = iris()
    given = {"max_depth": 6, "eta": 0.3, "objective": "multi:softprob", "num_class": 3}
    with stage("boost"):
        booster = xgboost.train(
            given, xgboost.DMatrix(x, label=y), num_boost_round=10,
            evals=[(xgboost.DMatrix(x_test, label=y_test), "test")], verbose_eval=False,
        )  # fmt: skip
    tree = Tree(here)
    assert (tree.count, tree.statuses()) == (1, {"FINISHED"})
    boost = tree["boost"]
    assert {name: str(value) for name, value in given.items()}.items() <= boost.data.params.items()
    assert boost.data.params["num_boost_round"] == "10"
    assert len(points(boost, "test-mlogloss")) == 10
    [model] = models_of(boost)
    loaded = mlflow.xgboost.load_model(model.model_uri)
    data = xgboost.DMatrix(x_test)
    assert (loaded.predict(data) == booster.predict(data)).all()

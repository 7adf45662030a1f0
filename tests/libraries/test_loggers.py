"""Loggers and callbacks of other libraries that write to MLflow: inside a scope they make children of its run."""

from __future__ import annotations

import os
import types
from typing import Any

import pytest

from tests.lightning_network import network_and_data
from tests.plain_mlflow import Tree
from trackdsl import experiment, log_metric, stage

mlflow = pytest.importorskip("mlflow")


@pytest.mark.slow
def test_lightnings_logger(here: str) -> None:
    """`MLFlowLogger` without a run makes a child of the scope's run; with its id it writes to the scope's run."""
    loggers = pytest.importorskip("lightning.pytorch.loggers")
    with experiment("x") as run:
        log_metric("ours", 1)
        for name, id_ in (("alone", None), ("given", run.run_id)):
            logger = loggers.MLFlowLogger("lightning", run_name=name, tracking_uri=here, run_id=id_)
            logger.log_hyperparams({"lr": 0.1})
            logger.log_metrics({name: 1.0}, step=1)
            logger.finalize("success")
    tree = Tree(here)
    assert tree.parents() == {"x": None, "alone": "x"}
    assert tree["alone"].data.metrics == {"alone": 1}
    assert tree["x"].data.metrics == {"ours": 1, "given": 1}
    assert tree.statuses() == {"FINISHED"}


@pytest.mark.slow
def test_a_trainer_of_lightning(here: str) -> None:
    """A whole training with `MLFlowLogger`, in a stage of each of two experiments, leaves no root of its own."""
    lightning = pytest.importorskip("lightning")
    loggers = pytest.importorskip("lightning.pytorch.loggers")
    pytest.importorskip("torch")
    for name in ("one", "two"):
        with experiment(name), stage(f"fit-{name}"):
            trainer = lightning.Trainer(
                max_epochs=2, logger=loggers.MLFlowLogger(run_name=f"net-{name}", tracking_uri=here), accelerator="cpu",
                enable_progress_bar=False, enable_checkpointing=False, enable_model_summary=False, log_every_n_steps=1,
            )  # fmt: skip
            trainer.fit(*network_and_data())
    tree = Tree(here)
    assert tree.parents() == {
        "one": None, "fit-one": "one", "net-one": "fit-one", "two": None, "fit-two": "two", "net-two": "fit-two",
    }  # fmt: skip
    assert "train_loss" in tree["net-two"].data.metrics


@pytest.mark.parametrize("own", [True, False], ids=["an experiment of the study's", "none"])
def test_optunas_callback(here: str, own: bool) -> None:
    """Each trial is a child of the scope's run, in the study's experiment where the callback makes one."""
    optuna = pytest.importorskip("optuna")
    theirs = pytest.importorskip("optuna_integration.mlflow")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    callback = theirs.MLflowCallback(tracking_uri=here, metric_name="loss", create_experiment=own)
    mlflow.set_experiment("before")

    @callback.track_in_mlflow()  # type: ignore[untyped-decorator]
    def objective(trial: Any) -> float:
        mlflow.log_metric("inside", 1)
        return float(trial.suggest_float("x", 0, 1))

    with experiment("x"):
        study = optuna.create_study(study_name="study")
        study.optimize(objective, n_trials=2, callbacks=[callback])
    tree = Tree(here)
    assert tree.parents() == {"x": None, "0": "x", "1": "x"}
    experiments = {name: mlflow.get_experiment(run.info.experiment_id).name for name, run in tree.runs.items()}
    assert experiments == {"x": "x", **dict.fromkeys("01", "study" if own else "x")}
    assert set(tree["1"].data.metrics) == {"inside", "loss"}
    assert tree.statuses() == {"FINISHED"}


@pytest.mark.parametrize("nested", [False, True])
def test_transformers_callback(here: str, nested: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The callback of transformers writes to the scope's run, which it does not end, or to a child where it nests."""
    integrations = pytest.importorskip("transformers.integrations")
    pytest.importorskip("torch")
    monkeypatch.setenv("MLFLOW_NESTED_RUN", str(nested))
    arguments = types.SimpleNamespace(run_name="training", output_dir=os.getcwd(), to_dict=lambda: {"lr": 0.1})
    state = types.SimpleNamespace(is_world_process_zero=True, global_step=3)
    with experiment("x") as run:
        callback = integrations.MLflowCallback()
        callback.on_train_begin(arguments, state, None)
        callback.on_log(arguments, state, None, {"loss": 0.5})
        callback.on_train_end(arguments, state, None)
        del callback
        log_metric("after", 1)
        assert mlflow.active_run().info.run_id == run.run_id
    mlflow.flush_async_logging()
    tree = Tree(here)
    assert tree.parents() == {"x": None, **({"training": "x"} if nested else {})}
    assert tree["training" if nested else "x"].data.params == {"lr": "0.1"}
    assert tree["training" if nested else "x"].data.metrics["loss"] == 0.5
    assert tree["x"].data.metrics["after"] == 1
    assert tree.statuses() == {"FINISHED"}

"""A study of Optuna's, as the documents show it: fifty trials, each of them a run."""

from __future__ import annotations

import warnings
from typing import Any

import pytest

from tests.conftest import all_runs, client, deliver
from trackdsl import experiment, log_metric

optuna = pytest.importorskip("optuna", reason="needs Optuna: pip install -e '.[integrations]'")

from trackdsl.integrations.optuna import track_trials  # noqa: E402


def test_r53_fifty_trials_of_a_study(sqlite_store: str) -> None:
    """Each trial's suggested parameters and its value are on a run of its own, with what the objective logs itself."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)

    def train_model(lr: float, batch_size: int) -> float:
        log_metric("seen", batch_size)
        return 1 / (1 + abs(lr - 0.01)) - batch_size / 1000

    @track_trials
    def objective(trial: Any) -> float:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # Optuna has deprecated this function, and has it still.
            lr = trial.suggest_loguniform("lr", 1e-5, 1e-1)
        return train_model(lr, trial.suggest_categorical("batch_size", [16, 32, 64]))

    with experiment("hyperparameters", run_name="search"):
        study = optuna.create_study(direction="maximize", sampler=optuna.samplers.RandomSampler(seed=0))
        study.optimize(objective, n_trials=50)
    deliver()
    search, *trials = all_runs(sqlite_store)
    assert client().get_experiment(search.info.experiment_id).name == "hyperparameters"
    assert [trial.info.run_name for trial in trials] == [f"trial-{number}" for number in range(50)]
    for run, trial in zip(trials, study.trials, strict=True):
        assert run.data.params == {name: str(value) for name, value in trial.params.items()}
        assert run.data.metrics == {"value": trial.value, "seen": trial.params["batch_size"]}
        assert run.data.tags["mlflow.parentRunId"] == search.info.run_id
        assert (run.info.status, run.data.tags["optuna.state"]) == ("FINISHED", "COMPLETE")
    best = study.best_trial
    assert search.data.metrics == {"best_value": best.value}
    assert search.data.params == {
        "best.trial": str(best.number), "best.value": str(best.value),
        **{f"best.{name}": str(value) for name, value in best.params.items()},
    }  # fmt: skip

"""Rows about searching and comparing runs: MLflow's own client on runs of trackdsl's, and trackdsl's own way."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import trackdsl
from tests.conftest import client, recorded_offline
from trackdsl import experiment


@pytest.fixture(scope="module")
def recorded(empty_store: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A store with the runs of two experiments, recorded by trackdsl."""
    folder = tmp_path_factory.mktemp("searched")
    with recorded_offline(empty_store, folder) as uri:
        for number in range(12):
            with experiment(f"searched-{number % 2}", run_name=f"fit-{number}") as run:
                run.log_params({"model_type": "RandomForest" if number % 3 else "SVC", "depth": number})
                run.log_metrics({"accuracy": 0.8 + number / 64, "f1_score": 1 - number / 64})
    return uri


@pytest.fixture
def asked(recorded: str) -> Any:
    """MLflow's client on that store, which trackdsl uses too."""
    trackdsl.configure(tracking_uri=recorded)
    return client(recorded)


def ids_of(mlflow: Any) -> list[str]:
    """MLflow's ids of the two experiments."""
    return [mlflow.get_experiment_by_name(f"searched-{number}").experiment_id for number in range(2)]


def test_r90_runs_of_an_experiment_filtered_ordered_and_limited(asked: Any) -> None:
    """MLflow's search takes ids, a filter, an order and a limit on what trackdsl recorded; `runs` gives the same."""
    theirs = asked.search_runs(
        ids_of(asked)[:1], filter_string="metrics.accuracy > 0.84", order_by=["metrics.accuracy DESC"], max_results=3
    )
    assert [run.info.run_name for run in theirs] == ["fit-10", "fit-8", "fit-6"]
    ours = trackdsl.runs("searched-0", "metrics.accuracy > 0.84", "metrics.accuracy DESC", 3)
    assert list(ours["run_id"]) == [run.info.run_id for run in theirs]
    assert len(trackdsl.runs(ids_of(asked)[0])) == 6


def test_r91_a_metric_above_a_number_the_largest_first(asked: Any) -> None:
    """A condition on a metric and the largest first: the same runs by MLflow's functions and by trackdsl's."""
    theirs = asked.search_runs(
        ids_of(asked)[:1], filter_string="metrics.accuracy > 0.9", order_by=["metrics.accuracy DESC"]
    )
    ours = trackdsl.runs("searched-0", accuracy__gt=0.9, order_by="accuracy DESC")
    assert list(ours["metrics.accuracy"]) == [run.data.metrics["accuracy"] for run in theirs] == [0.8 + 10 / 64, 0.925]
    assert trackdsl.best("searched-0", "accuracy").run_id == theirs[0].info.run_id


def test_r92_several_experiments_by_a_parameter_and_a_metric(asked: Any) -> None:
    """Two experiments, a parameter and a metric in one filter, ordered by another metric."""
    theirs = asked.search_runs(
        ids_of(asked),
        filter_string="params.model_type = 'RandomForest' AND metrics.accuracy > 0.85",
        order_by=["metrics.f1_score DESC"],
    )
    assert [run.info.run_name for run in theirs] == ["fit-4", "fit-5", "fit-7", "fit-8", "fit-10", "fit-11"]
    names = ["searched-0", "searched-1"]
    ours = trackdsl.runs(names, model_type="RandomForest", accuracy__gt=0.85, order_by="f1_score DESC")
    assert list(ours["run_id"]) == [run.info.run_id for run in theirs]


def test_r93_every_run_with_its_id_metrics_and_params(asked: Any) -> None:
    """Runs that are gone through one by one have id, metric and parameters; so have the rows of the frame."""
    theirs = [
        (run.info.run_id, run.data.metrics["accuracy"], run.data.params) for run in asked.search_runs(ids_of(asked))
    ]
    rows = trackdsl.runs(["searched-0", "searched-1"], numbers=False).to_dict("records")
    ours = [
        (row["run_id"], row["metrics.accuracy"], {key: row[f"params.{key}"] for key in ("depth", "model_type")})
        for row in rows
    ]
    assert ours == theirs
    assert len(ours) == 12


def test_r94_an_experiment_by_its_name(asked: Any) -> None:
    """MLflow knows the experiment by the name that trackdsl was given; `runs` takes the name itself."""
    found = asked.get_experiment_by_name("searched-1")
    assert (found.name, found.lifecycle_stage) == ("searched-1", "active")
    assert set(trackdsl.runs("searched-1")["experiment"]) == {"searched-1"}


def test_r95_all_runs_of_one_experiment(asked: Any) -> None:
    """MLflow's search takes one experiment's id too, and finds all its runs; `runs` finds the same."""
    found = asked.get_experiment_by_name("searched-1")
    try:
        theirs = asked.search_runs(found.experiment_id)
    except TypeError:  # Versions of MLflow that take nothing but a list.
        theirs = asked.search_runs([found.experiment_id])
    assert [run.info.run_id for run in theirs] == list(trackdsl.runs("searched-1")["run_id"])
    assert len(theirs) == 6


def comparison(asked: Any) -> pd.DataFrame:
    """A frame put together by hand from MLflow's runs."""
    return pd.DataFrame(
        [
            {
                "run_id": run.info.run_id,
                "run_name": run.data.tags.get("mlflow.runName", ""),
                **run.data.params,
                **run.data.metrics,
            }
            for run in asked.search_runs(ids_of(asked)[:1])
        ]
    )


def test_r96_a_frame_of_ids_names_params_and_metrics(asked: Any) -> None:
    """A frame that is put together run by run holds what `runs` has in its columns."""
    theirs = comparison(asked)
    ours = trackdsl.runs("searched-0", numbers=False)
    assert list(theirs.columns[:2]) == ["run_id", "run_name"]
    pairs = {
        "run_id": "run_id",
        "run_name": "name",
        **{name: f"params.{name}" for name in ("model_type", "depth")},
        **{name: f"metrics.{name}" for name in ("accuracy", "f1_score")},
    }
    for column, own in pairs.items():
        assert list(theirs[column]) == list(ours[own])
    assert "params.depth" in trackdsl.compare(*ours["run_id"][:2]).frame.index.map(".".join)


def test_r97_the_frame_sorted_by_accuracy(asked: Any) -> None:
    """Sorted by accuracy, the best run stands first, in either frame."""
    theirs = comparison(asked).sort_values("accuracy", ascending=False)
    ours = trackdsl.runs("searched-0").sort_values("metrics.accuracy", ascending=False)
    assert list(theirs["run_id"]) == list(ours["run_id"])
    assert theirs["run_name"].iloc[0] == trackdsl.best("searched-0", "accuracy").name == "fit-10"

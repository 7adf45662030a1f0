"""Marked return values, as MLflow then holds them."""

from __future__ import annotations

from typing import Annotated, Any

import pandas as pd

import trackdsl
from tests.conftest import client, deliver, last_run
from tests.unit.test_return_markers import FRAME, METRICS, MODEL, VALUES, AsDict
from trackdsl import Artifact, Dataset, Metric, Model, Param, stage, track_returns


def test_markers_on_fields_arrive(store: str) -> None:
    """Marked fields are metrics, a model, a dataset and files at MLflow."""
    trackdsl.configure(tracking_uri=store)

    @stage
    @track_returns
    def f() -> AsDict:
        return AsDict(**VALUES)

    f()
    deliver()
    run = client(store).get_run(last_run(store).info.run_id)
    assert run.data.metrics == METRICS
    assert len(run.outputs.model_outputs) == 1
    assert [used.dataset.name for used in run.inputs.dataset_inputs] == ["clean"]


def test_markers_without_a_name(store: str) -> None:
    """Bare `Metric`, `Model`, `Dataset`, `Artifact` and `Param` take the name that the value has by itself."""
    trackdsl.configure(tracking_uri=store)

    @stage
    def used(frame: Annotated[pd.DataFrame, Dataset]) -> None: ...

    @stage
    @track_returns("model", "acc", "table", "lr", "data")
    def named() -> tuple[
        Annotated[Any, Model], Annotated[Any, Metric], Annotated[Any, Artifact], Annotated[Any, Param],
        Annotated[Any, Dataset],
    ]:  # fmt: skip
        return MODEL, 0.5, MODEL, 0.25, FRAME

    @stage
    @track_returns
    def fit() -> Annotated[Any, Model]:
        return MODEL

    @stage
    @track_returns
    def score() -> "Annotated[float, Metric] | None":  # noqa: UP037 - a text as an annotation
        return 0.75

    used(FRAME)
    named()
    fit()
    score()
    deliver()
    found = {run.info.run_name: client(store).get_run(run.info.run_id) for run in
             client(store).search_runs(["0"], order_by=["start_time DESC"], max_results=4)}  # fmt: skip
    assert [used.dataset.name for used in found["used"].inputs.dataset_inputs] == ["frame"]
    assert [used.dataset.name for used in found["named"].inputs.dataset_inputs] == ["data"]
    assert (found["named"].data.metrics, found["named"].data.params) == ({"acc": 0.5}, {"lr": "0.25"})
    names = {}
    for run in ("named", "fit"):
        (output,) = found[run].outputs.model_outputs
        names[run] = client(store).get_logged_model(output.model_id).name
    assert names == {"named": "model", "fit": "fit"}
    files = [entry.path for entry in client(store).list_artifacts(found["named"].info.run_id)]
    assert sorted(files) == ["data.parquet", "table.pkl"]
    assert found["score"].data.metrics == {"score": 0.75}

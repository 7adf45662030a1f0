"""Named return values, as MLflow then holds them."""

from __future__ import annotations

from typing import Annotated, Any

from sklearn.linear_model import LinearRegression

import trackdsl
from tests.conftest import client, deliver, last_run, points
from tests.unit.test_return_names import POINTS, ROUNDS, returned
from trackdsl import Metric, Model, stage, track_returns


def test_a_named_structure_among_several_values(store: str) -> None:
    """A structure among several named values, and the only dict of a tuple, keep their names at MLflow."""
    trackdsl.configure(tracking_uri=store)

    @stage
    @track_returns("model", "scores", artifacts={"scores": "scores.json"})
    def f() -> tuple[Any, Any]:
        return LinearRegression().fit([[1], [2]], [1, 2]), {"rmse": 0.5}

    f()
    deliver()
    run = last_run(store)
    assert run.data.metrics == {}
    assert [entry.path for entry in client(store).list_artifacts(run.info.run_id)] == ["scores.json"]


def test_the_only_dict_of_a_tuple_keeps_its_names(store: str) -> None:
    """Beside a model, marked or not, a dict's metrics have its names; two dicts are distinguished by their index."""
    trackdsl.configure(tracking_uri=store)
    model = LinearRegression().fit([[1], [2]], [1, 2])

    @stage
    @track_returns
    def training() -> tuple[Annotated[object, Model("m")], dict[str, Any]]:
        return model, {"rmse": 0.5, "note": "x"}

    training()
    deliver()
    run = last_run(store)
    assert run.data.metrics == {"rmse": 0.5}
    assert [entry.path for entry in client(store).list_artifacts(run.info.run_id)] == ["training.json"]
    assert returned((model, {"rmse": 0.5})).metrics == {"rmse": 0.5}
    assert returned((0.25, {"rmse": 0.5})).metrics == {"f.0": 0.25, "rmse": 0.5}
    assert returned(({"rmse": 0.5}, {"rmse": 1})).metrics == {"f.0/rmse": 0.5, "f.1/rmse": 1}
    assert returned(({"f.1": 0.5}, 0.25)).metrics == {"f.1": 0.5, "f.1#2": 0.25}
    assert returned(({"a": 1}, 2, {"b": 3}), "x", "y").metrics == {"x/a": 1, "y": 2, "b": 3}


def test_a_returned_history_arrives(store: str) -> None:
    """A returned history, with a prefix and with a marker, is in MLflow's history of a metric."""
    trackdsl.configure(tracking_uri=store)

    @stage
    @track_returns(prefix="val/")
    def f() -> tuple[dict[str, list[float]], Annotated[list[float], Metric("curve")]]:
        return ROUNDS, [3, 4]

    f()
    deliver()
    run = last_run(store)
    assert points(run, "val/loss", store) == POINTS["loss"]
    assert points(run, "val/curve", store) == [(0, 3), (1, 4)]

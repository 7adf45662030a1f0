"""Steps of a loop in a run of plain MLflow."""

from __future__ import annotations

import mlflow

from tests.conftest import deliver, last_run, points
from trackdsl import log_metric, steps


def test_a_loop_in_a_plain_mlflow_run(sqlite_store: str) -> None:
    """Where plain MLflow has opened the run, the loop is the step of trackdsl's metrics too."""
    mlflow.set_tracking_uri(sqlite_store)
    with mlflow.start_run():
        for _ in steps(range(5, 7)):
            log_metric("m", 1)
            mlflow.log_metric("plain", 1)
        log_metric("after", 1)
    deliver()
    run = last_run(sqlite_store)
    assert [step for step, _ in points(run, "m", sqlite_store)] == [5, 6]
    assert len(points(run, "plain", sqlite_store)) == 2
    assert points(run, "after", sqlite_store) == [(0, 1.0)]

"""MLflow's fluent API: `subject_mlflow.py URI sync|async`."""

from __future__ import annotations

import sys
from collections.abc import Mapping

from answering import Body, answer
from the_call import PARAMETERS, train


def prepare() -> Mapping[str, Body]:
    """Open a run and warm up."""
    import mlflow

    uri, how = sys.argv[1:]
    # None, the default, asks the environment, which says synchronous: that is what programs do.
    synchronous = None if how == "sync" else False
    mlflow.set_tracking_uri(uri)
    mlflow.set_experiment(f"benchmark-{how}")
    mlflow.start_run()

    def stages(count: int) -> None:
        for _ in range(count):
            with mlflow.start_run(nested=True):
                mlflow.log_params(PARAMETERS, synchronous=synchronous)
                mlflow.log_metrics(train("data/train.csv", 0.05, 20, seed=42), synchronous=synchronous)

    def metrics(count: int) -> None:
        for step in range(count):
            mlflow.log_metric("loss", 0.25, step, synchronous=synchronous)

    def drain(_: int) -> None:
        mlflow.flush_async_logging()

    stages(2)
    metrics(5)
    bodies: dict[str, Body] = {"stage": stages, "metric": metrics}
    if how == "async":
        drain(1)
        bodies["after-metric"] = drain
    return bodies


answer(prepare)

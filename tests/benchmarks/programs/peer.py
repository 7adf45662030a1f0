"""The same runs and points by another library or by bare calls: `peer.py LIBRARY RUNS POINTS [URI]`.

It works in the current directory. The library is imported and warm before anything is measured.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

from measured import METRICS, PARAMETERS, SERIES, print_costs, value_of

Work = tuple[Callable[[int], None], Callable[[int], None]]
_BATCH = 1000
#: trackio also samples system metrics unless that is switched off.
_ALONE = {"auto_log_gpu": False, "auto_log_cpu": False}


def client(uri: str) -> Work:
    """`MlflowClient`, three calls for a run: create, one batch, end."""
    from mlflow import MlflowClient
    from mlflow.entities import Metric, Param

    mlflow_client = MlflowClient(uri)
    experiment = mlflow_client.create_experiment(f"client-{time.time_ns()}")
    parent = mlflow_client.create_run(experiment).info.run_id

    def runs(count: int) -> None:
        for _ in range(count):
            run = mlflow_client.create_run(experiment, tags={"mlflow.parentRunId": parent}, run_name="train")
            now = int(time.time() * 1000)
            mlflow_client.log_batch(
                run.info.run_id,
                [Metric(key, value, now, 0) for key, value in METRICS.items()],
                [Param(key, str(value)) for key, value in PARAMETERS.items()],
            )
            mlflow_client.set_terminated(run.info.run_id)

    def points(count: int) -> None:
        for first in range(0, count, _BATCH):
            now = int(time.time() * 1000)
            mlflow_client.log_batch(
                parent,
                [
                    Metric(f"m{step % SERIES}", value_of(step), now, step)
                    for step in range(first, min(count, first + _BATCH))
                ],
            )

    return runs, points


def fluent(uri: str) -> Work:
    """MLflow's fluent functions."""
    import mlflow

    mlflow.set_tracking_uri(uri)
    mlflow.set_experiment("fluent")
    mlflow.start_run()

    def runs(count: int) -> None:
        for _ in range(count):
            with mlflow.start_run(nested=True):
                mlflow.log_params(PARAMETERS)
                mlflow.log_metrics(METRICS)

    def points(count: int) -> None:
        for step in range(count):
            mlflow.log_metric(f"m{step % SERIES}", value_of(step), step)

    return runs, points


def rest(uri: str) -> Work:
    """The three bare requests of a run, on one connection, to an MLflow server."""
    import requests

    session = requests.Session()

    def ask(call: str, content: dict[str, Any]) -> dict[str, Any]:
        answer = session.post(f"{uri}/api/2.0/mlflow/{call}", json=content, timeout=60)
        answer.raise_for_status()
        found: dict[str, Any] = answer.json()
        return found

    experiment = ask("experiments/create", {"name": f"rest-{time.time_ns()}"})["experiment_id"]
    parent = ask("runs/create", {"experiment_id": experiment})["run"]["info"]["run_id"]

    def runs(count: int) -> None:
        for _ in range(count):
            now = int(time.time() * 1000)
            tags = [{"key": "mlflow.parentRunId", "value": parent}]
            created = ask("runs/create", {"experiment_id": experiment, "start_time": now, "tags": tags})
            run = created["run"]["info"]["run_id"]
            metrics = [{"key": key, "value": value, "timestamp": now, "step": 0} for key, value in METRICS.items()]
            parameters = [{"key": key, "value": str(value)} for key, value in PARAMETERS.items()]
            ask("runs/log-batch", {"run_id": run, "metrics": metrics, "params": parameters})
            ask("runs/update", {"run_id": run, "status": "FINISHED", "end_time": now})

    def points(count: int) -> None:
        for first in range(0, count, _BATCH):
            now = int(time.time() * 1000)
            metrics = [
                {"key": f"m{step % SERIES}", "value": value_of(step), "timestamp": now, "step": step}
                for step in range(first, min(count, first + _BATCH))
            ]
            ask("runs/log-batch", {"run_id": parent, "metrics": metrics})

    return runs, points


def mltraq(_: str) -> Work:
    """mltraq on SQLite: the runs of an experiment, persisted together; a series is one list."""
    import mltraq as library

    session = library.create_session("sqlite:///mltraq.db")

    def persist(name: str, made: list[Any]) -> None:
        experiment = session.create_experiment(f"{name}-{time.time_ns()}")
        for run in made:
            experiment.runs.add(run)
        experiment.persist()

    def runs(count: int) -> None:
        made = []
        for _ in range(count):
            run = library.Run()
            for key, value in {**PARAMETERS, **{f"returned_{key}": value for key, value in METRICS.items()}}.items():
                run.fields[key] = value
            made.append(run)
        persist("runs", made)

    def points(count: int) -> None:
        run = library.Run()
        for number in range(SERIES):
            series = library.Sequence()
            for step in range(number, count, SERIES):
                series.append(step=step, value=value_of(step))
            run.fields[f"m{number}"] = series
        persist("points", [run])

    return runs, points


def trackio(_: str) -> Work:
    """trackio on its local SQLite store."""
    import trackio as library

    names = iter(range(sys.maxsize))

    def runs(count: int) -> None:
        for _ in range(count):
            library.init(project="benchmark", name=f"train-{next(names)}", config=PARAMETERS, **_ALONE)
            library.log(METRICS)
            library.finish()

    def points(count: int) -> None:
        library.init(project="benchmark", name=f"series-{next(names)}", **_ALONE)
        for first in range(0, count, SERIES):
            library.log({f"m{step % SERIES}": value_of(step) for step in range(first, min(count, first + SERIES))})
        library.finish()

    return runs, points


def wandb(_: str) -> Work:
    """wandb in its offline mode."""
    import wandb as library

    settings = library.Settings(silent=True, console="off", x_disable_stats=True, x_disable_meta=True)

    def runs(count: int) -> None:
        for _ in range(count):
            run = library.init(project="benchmark", mode="offline", config=PARAMETERS, settings=settings)
            run.log(METRICS)
            run.finish()

    def points(count: int) -> None:
        run = library.init(project="benchmark", mode="offline", settings=settings)
        for first in range(0, count, SERIES):
            run.log({f"m{step % SERIES}": value_of(step) for step in range(first, min(count, first + SERIES))})
        run.finish()

    return runs, points


if __name__ == "__main__":
    library, run_count, point_count, *rest_of = sys.argv[1:]
    work = {each.__name__: each for each in (client, fluent, rest, mltraq, trackio, wandb)}[library]
    runs_of, points_of = work(rest_of[0] if rest_of else "")
    print_costs(runs_of, points_of, (int(run_count), int(point_count)))

"""Many runs of a store, asked for by trackdsl and by MLflow: `subject_query.py URI RUNS`."""

from __future__ import annotations

import random
import sys
from collections.abc import Mapping

from answering import Body, answer


def prepare() -> Mapping[str, Body]:
    """Fill the store, and ask once."""
    import mlflow

    import trackdsl

    uri, count = sys.argv[1], int(sys.argv[2])
    client = mlflow.MlflowClient(uri)
    experiment = client.create_experiment("asked")
    fill(client, experiment, count)
    mlflow.set_tracking_uri(uri)
    trackdsl.configure(tracking_uri=uri)

    def ours(times: int) -> None:
        for _ in range(times):
            assert len(trackdsl.runs("asked")) == count

    def theirs(times: int) -> None:
        for _ in range(times):
            assert len(mlflow.search_runs([experiment])) == count

    def best(times: int) -> None:
        for _ in range(times):
            trackdsl.best("asked", "metric-0")

    def by_hand(times: int) -> None:
        for _ in range(times):
            client.search_runs([experiment], order_by=["metrics.`metric-0` DESC"], max_results=1)

    best(1)
    return {"ours": ours, "theirs": theirs, "best": best, "by-hand": by_hand}


def fill(client: object, experiment: str, count: int) -> None:
    """Put runs into the tables: recording them all would take minutes that nothing here asks for."""
    from mlflow.store.tracking.dbmodels.models import SqlLatestMetric, SqlParam, SqlRun, SqlTag
    from sqlalchemy import insert

    drawn = random.Random(0)
    ids = [f"{drawn.getrandbits(128):032x}" for _ in range(count)]
    tags = ["mlflow.runName", "mlflow.user", "trackdsl.id", "trackdsl.path", *(f"trackdsl.{n}" for n in range(11))]
    columns = {
        "experiment_id": int(experiment),
        "status": "FINISHED",
        "lifecycle_stage": "active",
        "user_id": "me",
    }
    with client._tracking_client.store.engine.begin() as connection:  # type: ignore[attr-defined]
        connection.execute(
            insert(SqlRun),
            [
                {"run_uuid": id_, "name": "fit", "start_time": number, "end_time": number + 1, **columns}
                for number, id_ in enumerate(ids)
            ],
        )
        connection.execute(
            insert(SqlParam),
            [{"run_uuid": id_, "key": f"param-{n}", "value": str(drawn.random())} for id_ in ids for n in range(8)],
        )
        connection.execute(
            insert(SqlLatestMetric),
            [
                {"run_uuid": id_, "key": f"metric-{n}", "value": drawn.random(), "timestamp": 1, "step": 0,
                 "is_nan": False}
                for id_ in ids
                for n in range(5)
            ],
        )  # fmt: skip
        connection.execute(insert(SqlTag), [{"run_uuid": id_, "key": key, "value": id_} for id_ in ids for key in tags])


answer(prepare)

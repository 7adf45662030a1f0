"""Structures and series of metrics, as MLflow then holds them."""

from __future__ import annotations

import collections
import dataclasses
from typing import NamedTuple

import numpy as np
from sklearn.metrics import classification_report

import trackdsl
from tests.conftest import client, deliver, last_run, points
from trackdsl import log_metric, log_metrics, stage


@dataclasses.dataclass
class Scores:
    acc: float = 0.5
    name: str = "0.25"


class Pair(NamedTuple):
    loss: float
    count: int


def test_structures_are_flattened(store: str) -> None:
    """Reports, dataclasses and dicts in dicts give a metric for each number in them, as a returned one does."""
    trackdsl.configure(tracking_uri=store)
    report = classification_report([0, 1, 1], [0, 1, 0], output_dict=True)
    with stage("f"):
        log_metrics(report)
        log_metrics({"val": Scores(), "pair": Pair(0.5, 3), "sum": collections.Counter("aab")})
        log_metrics(Pair(0.25, 4), step=2)
        log_metric("as", {"a": {"b": 1}})
    deliver()
    found = client(store).get_run(last_run(store).info.run_id).data.metrics
    assert found == {
        **{f"{row}/{column}": value for row in ("0", "1", "macro avg", "weighted avg")
           for column, value in report[row].items()},
        "accuracy": report["accuracy"], "val/acc": 0.5, "val/name": 0.25, "pair/loss": 0.5, "pair/count": 3,
        "sum/a": 2, "sum/b": 1, "loss": 0.25, "count": 4, "as/a/b": 1,
    }  # fmt: skip


def test_a_series_arrives_in_mlflow(store: str) -> None:
    """The points of a series are in MLflow's history by step."""
    trackdsl.configure(tracking_uri=store)
    with stage("f"):
        log_metrics({"loss": [0.3, 0.2, 0.1], "val": {"loss": np.array([0.4, 0.3])}})
    deliver()
    run = last_run(store)
    assert points(run, "loss", store) == [(0, 0.3), (1, 0.2), (2, 0.1)]
    assert points(run, "val/loss", store) == [(0, 0.4), (1, 0.3)]


#: In milliseconds since 1970.
BEFORE = 1_700_000_000_123


def test_the_names_of_mlflows_arguments(store: str) -> None:
    """Calls that were written for MLflow, with its keywords, record the same through ours, and by a `Run`."""
    trackdsl.configure(tracking_uri=store)
    with stage("f") as run:
        for name, at, time in (("module", trackdsl, BEFORE), ("run", run, BEFORE + 60_000)):
            at.log_metric(key=f"{name}/m", value=1.5, step=3, timestamp=time, synchronous=False)
            at.log_metric(key=f"{name}/now", value=2)
            at.log_metrics(metrics={f"{name}/n": 2}, step=4, timestamp=time + 5, synchronous=True)
            at.log_param(key=f"{name}.p", value=1, synchronous=False)
            at.log_params(params={f"{name}.q": 2}, synchronous=False)
            at.set_tag(key=f"{name}.t", value="x", synchronous=False)
            at.set_tags(tags={f"{name}.u": "y"}, synchronous=False)
            at.log_dict(dictionary={"a": 1}, artifact_file=f"{name}/d.json")
            at.log_text(text="t", artifact_file=f"{name}/t.txt")
            at.log_artifact(local_path=__file__, artifact_path=name)
            at.log_table(data={"a": [1]}, artifact_file=f"{name}/table.json")
    deliver()
    found = client(store).get_run(last_run(store).info.run_id)
    for name, time in (("module", BEFORE), ("run", BEFORE + 60_000)):
        (point,) = client(store).get_metric_history(found.info.run_id, f"{name}/m")
        assert (point.value, point.step, point.timestamp) == (1.5, 3, time)
        (point,) = client(store).get_metric_history(found.info.run_id, f"{name}/n")
        assert (point.value, point.step, point.timestamp) == (2, 4, time + 5)
        assert found.data.metrics[f"{name}/now"] == 2
        assert (found.data.params[f"{name}.p"], found.data.params[f"{name}.q"]) == ("1", "2")
        assert (found.data.tags[f"{name}.t"], found.data.tags[f"{name}.u"]) == ("x", "y")
        files = {entry.path.partition("/")[2] for entry in client(store).list_artifacts(found.info.run_id, name)}
        assert files == {"d.json", "t.txt", "test_metric_values.py", "table.json"}

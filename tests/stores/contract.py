"""What every store has to hold of one and the same program: `record` records it, `check` looks at the store."""

from __future__ import annotations

import contextlib
import json
import math
import os
import warnings
from pathlib import Path
from typing import Annotated, Any

import pytest

import trackdsl
from tests.conftest import client, points
from trackdsl import Dataset, Model, experiment, log_metric, stage, steps, track_returns
from trackdsl.delivery.process._stores import open_store
from trackdsl.delivery.summaries._reports import make_report
from trackdsl.delivery.summaries._traces import make_trace

#: More points than one request takes.
MANY = 1500
#: More points than a report reads.
LONG = 2500
TEXT = "naïve 日本語 🚀 'quoted'; DROP TABLE runs; --"
#: What a database may round: no short decimals, the smallest and the largest number.
NUMBERS = {"third": 1 / 3, "tiny": 5e-324, "huge": 1.7976931348623157e308, "negative": -0.1}
CONTENT = bytes(range(256)) * 2000


def record(name: str) -> None:
    """Record a tree of runs below an experiment, in the current working directory."""
    folder = Path("out")
    (folder / "deep" / "er").mkdir(parents=True, exist_ok=True)
    (folder / "deep" / "er" / "weights.bin").write_bytes(CONTENT)
    (folder / "notes ü.txt").write_text(TEXT)
    (folder / "empty.txt").touch()

    @stage
    @track_returns
    def train(lr: float, config: dict[str, Any]) -> Annotated[object, Model("line", registered_model_name=name)]:
        """Train a line."""
        from sklearn.linear_model import LinearRegression

        for _ in steps(range(MANY)):
            log_metric("loss", 1 / (3 + _))
        log_metric("far", 1.0, step=(1 << 62) + 1)
        return LinearRegression().fit([[0.0], [1.0]], [0.0, 2.0])

    @experiment(name, run_name=f"root {TEXT}", description="line\nline", tags={"team": TEXT})
    def pipeline() -> None:
        with stage("files", text=TEXT, long="ab" * 4000) as run:
            run.log_artifact(folder / "deep" / "er" / "weights.bin", "checkpoints/epoch_0.pth")
            run.log_artifacts(folder, "all")
            run.log_text(TEXT, "texts/hello 🚀.txt")
            run.log_metrics(NUMBERS)
            run.log_metric("nan", math.nan, step=0)
            run.log_metric("nan", 1.0, step=1)
            run.log_metric("nan", math.nan, step=2)
        train(0.1, {"optimiser": {"name": TEXT}})
        with pytest.raises(ZeroDivisionError), stage("broken"):
            1 / 0

    pipeline()


def runs_of(uri: str, name: str) -> dict[str, Any]:
    """The runs of an experiment by name; that of the root is `root`."""
    mlflow = client(uri)
    found = mlflow.search_runs([mlflow.get_experiment_by_name(name).experiment_id])
    runs = {run.info.run_name if "mlflow.parentRunId" in run.data.tags else "root": run for run in found}
    assert len(runs) == len(found), "a run is there twice"
    return runs


def files_of(uri: str, run: Any) -> dict[str, bytes]:
    """All files of a run, as the store gives them back."""
    folder = Path(client(uri).download_artifacts(run.info.run_id, ""))
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def check(uri: str, name: str) -> dict[str, Any]:
    """Check that a store holds exactly what `record` recorded; returns its runs."""
    runs = runs_of(uri, name)
    assert set(runs) == {"root", "files", "train", "broken"}
    root, files, train, broken = (runs[key] for key in ("root", "files", "train", "broken"))
    assert {key: run.info.status for key, run in runs.items()} == {
        "root": "FINISHED", "files": "FINISHED", "train": "FINISHED", "broken": "FAILED",
    }  # fmt: skip
    assert all(run.info.end_time >= run.info.start_time for run in runs.values())
    assert all(run.data.tags["mlflow.parentRunId"] == root.info.run_id for key, run in runs.items() if key != "root")
    assert root.info.run_name == f"root {TEXT}"
    assert (root.data.tags["team"], root.data.tags["mlflow.note.content"]) == (TEXT, "line\nline")
    assert train.data.params == {"lr": "0.1", "config.optimiser.name": TEXT}
    assert files.data.params["text"] == TEXT
    assert len(files.data.params["long"]) == 6000
    assert {key: files.data.metrics[key] for key in NUMBERS} == NUMBERS
    assert points(train, "loss", uri) == [(step, 1 / (3 + step)) for step in range(MANY)]
    assert points(train, "far", uri) == [((1 << 62) + 1, 1.0)]
    assert [(step, str(value)) for step, value in points(files, "nan", uri)] == [(0, "nan"), (1, "1.0"), (2, "nan")]
    assert files_of(uri, files) == {
        "checkpoints/epoch_0.pth": CONTENT,
        "all/deep/er/weights.bin": CONTENT,
        "all/notes ü.txt": TEXT.encode(),
        "all/empty.txt": b"",
        "texts/hello 🚀.txt": TEXT.encode(),
        "trackdsl/params/long.txt": b"ab" * 4000,
    }
    assert broken.data.tags["trackdsl.exception.type"] == "ZeroDivisionError"
    assert not any("refused" in tag or "omitted" in tag for run in runs.values() for tag in run.data.tags)
    _check_model(uri, name, train)
    return runs


def _check_model(uri: str, name: str, train: Any) -> None:
    import mlflow

    (model,) = client(uri).search_logged_models([train.info.experiment_id])
    assert (model.name, str(model.status.value), model.source_run_id) == ("line", "READY", train.info.run_id)
    assert model.params == train.data.params
    (version,) = mlflow.MlflowClient(uri, uri).search_model_versions(f"name='{name}'")
    assert (str(version.version), version.run_id) == ("1", train.info.run_id)
    loaded = mlflow.sklearn.load_model(f"models:/{model.model_id}")
    assert loaded.predict([[2.0]])[0] == pytest.approx(4.0)


def fresh_name(what: str) -> str:
    """The name of an experiment that no other test has: stores are shared."""
    return f"{what}-{os.getpid()}-{os.urandom(3).hex()}"


def use(uri: str, **changes: Any) -> None:
    """Let what follows be recorded for a store."""
    trackdsl.configure(tracking_uri=uri, **changes)


def record_changes(name: str, lr: float) -> None:
    """Record a tree whose parameter and data depend on a number."""
    import pandas as pd

    @stage
    def train(data: Annotated[pd.DataFrame, Dataset("rows")], lr: float) -> None:
        log_metric("accuracy", 1 - lr)

    @experiment(name, run_name=TEXT)
    def pipeline(lr: float) -> None:
        train(pd.DataFrame({"x": [lr]}), lr)
        log_metric("accuracy", 1 - lr)

    pipeline(lr)


def check_changes(uri: str, name: str) -> None:
    """Check that the second tree knows the first one, and what changed."""
    mlflow = client(uri)
    found = mlflow.search_runs([mlflow.get_experiment_by_name(name).experiment_id], order_by=["start_time ASC"])
    first, second = [run for run in found if "mlflow.parentRunId" not in run.data.tags]
    assert first.data.tags["trackdsl.changed"] == "first run"
    assert second.data.tags["trackdsl.previous"] == first.info.run_id
    parts = second.data.tags["trackdsl.changed"].split("; ")
    assert parts[0] == "lr 0.1 → 0.2"
    assert any(part.startswith("dataset rows ") for part in parts)
    assert "| accuracy | 0.9 | 0.8 | -0.1 |" in second.data.tags["mlflow.note.content"]
    files = files_of(uri, second)
    assert json.loads(files["trackdsl/changes.json"])["changes"]["parts_at"] == "train"
    assert set(json.loads(files["trackdsl/changes.json"])["kept_in"].values()) == {first.info.run_id}
    assert "trackdsl/source.json" not in files
    assert trackdsl.changes(second.info.run_id, tracking_uri=uri).previous == first.info.run_id


def root_run(uri: str, name: str) -> Any:
    """The only root run of an experiment."""
    mlflow = client(uri)
    experiment_id = mlflow.get_experiment_by_name(name).experiment_id
    return next(one for one in mlflow.search_runs([experiment_id]) if "mlflow.parentRunId" not in one.data.tags)


def record_report(name: str) -> None:
    """Record a tree of which a report is made."""
    with experiment(name, run_name=TEXT):
        with stage("load") as load:
            load.log_text("age,name\n31,Ada\n", "tables/people.csv")
        with stage("train"):
            for step in range(LONG):
                log_metric("loss", 1 / (step + 1), step)


def check_report(uri: str, name: str) -> None:
    """Make the report of that tree as delivery does, twice, and look at it."""
    root = root_run(uri, name)
    sink = open_store(uri, os.getcwd(), own=True)
    for _ in range(2):
        assert make_report(sink, root.info.run_id, lambda: False)
    sink.close()
    page = files_of(uri, root)["trackdsl/report.html"].decode()
    data = json.loads(page.partition('id="data">')[2].partition("</script>")[0])
    ((label, steps_, values),) = data["charts"][0]["lines"]
    assert (label, values[0], steps_[-1] > LONG - 20) == ("train", 1.0, True)
    assert len(data["bars"]["start"]) == 3
    assert all(text in page for text in ("tables/people.csv", "Ada", f"experiment {name}"))


def record_trace(name: str) -> None:
    """Record a tree that becomes a trace."""
    with experiment(name, run_name=TEXT), contextlib.suppress(ValueError), stage("train", note=TEXT):
        trackdsl.log_metrics({"loss": 0.5, "unknown": math.nan, "endless": math.inf})
        raise ValueError(TEXT)


def check_trace(uri: str, name: str) -> None:
    """Make the trace of that tree as delivery does, twice, and look at it."""
    root = root_run(uri, name)
    sink = open_store(uri, os.getcwd(), own=True)
    for _ in range(2):
        assert make_trace(sink, root.info.run_id, lambda: False, still_runs=False)
    sink.close()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # Later versions of MLflow call them `locations`.
        (trace,) = client(uri).search_traces(experiment_ids=[root.info.experiment_id])
    assert trace.info.trace_metadata["mlflow.sourceRun"] == root.info.run_id
    top, train = sorted(trace.data.spans, key=lambda span: span.parent_id is not None)
    assert (top.name, train.parent_id, train.inputs) == (TEXT, top.span_id, {"note": TEXT})
    assert train.outputs == {"loss": 0.5, "unknown": "nan", "endless": "inf"}
    (event,) = train.events
    assert event.attributes["exception.message"] == TEXT

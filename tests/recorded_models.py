"""What tests of models record, and how they find it again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.conftest import all_runs, client
from trackdsl import stage
from trackdsl._core import events
from trackdsl._recording.models import record_model
from trackdsl.handlers import _example_files
from trackdsl.journal import _target
from trackdsl.journal._reader import read_all

pd = pytest.importorskip("pandas")
pytest.importorskip("sklearn")


def a_frame(rows: int = 40) -> Any:
    random_state = np.random.RandomState(0)
    return pd.DataFrame(random_state.rand(rows, 3), columns=["a", "b", "c"])


def labels(frame: Any) -> Any:
    return (frame["a"] > 0.5).astype(int)


def run_of(name: str, uri: str | None = None) -> Any:
    return next(run for run in all_runs(uri) if run.info.run_name == name and here(run))


def here(run: Any) -> bool:
    """Whether a run is of this test: the server is shared."""
    return str(run.data.tags.get("test.cwd")) == str(Path.cwd())


def models_of(run: Any, uri: str | None = None) -> list[Any]:
    found = client(uri).search_logged_models([run.info.experiment_id])
    return [model for model in found if model.source_run_id == run.info.run_id]


def downloaded(uri_of_model: str) -> Path:
    import mlflow

    return Path(mlflow.artifacts.download_artifacts(uri_of_model))


def record(model: Any, arguments: dict[str, Any], name: str = "model", **options: Any) -> None:
    """Record a model in a run called `train`."""
    with stage("train", tags={"test.cwd": Path.cwd()}) as run:
        record_model(run, model, name, arguments=arguments, **options)


def recorded() -> list[tuple[events.Model, Path]]:
    """The models in the journals of this process, with their snapshots."""
    found = []
    for target in _target.targets():
        assert target.writer is not None
        for event in read_all(target.writer.directory):
            if isinstance(event, events.Model):
                found += [(event, target.writer.directory / "files" / event.snapshot)]
    return found


def spec_of(index: int = 0) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((recorded()[index][1] / "spec.json").read_text())
    return found


def example_of(index: int = 0, part: str = "example") -> Any:
    spec = spec_of(index)[part]
    return None if spec is None else _example_files.read(spec, recorded()[index][1])


def run_of_name(name: str) -> Any:
    return next(run for run in all_runs() if run.info.run_name == name)

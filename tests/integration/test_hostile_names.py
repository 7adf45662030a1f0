"""Names and paths from outside are hostile: each is stored exactly, or a tag names what could not be stored."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import all_runs, client, deliver
from trackdsl import OptionError, log_metric, stage, start_logging, stop_logging

HOSTILE = {
    "newline": "a\nb\r\n\tc",
    "quotes": 'it\'s "so" `called`',
    "sql": "'; DROP TABLE runs; --",
    "emoji": "🦊 Füchse 狐",
    "long": "x" * 10_000,
    "percent": "100% {n} %s",
    "ansi": "\x1b[31mred\x1b[0m",
    "direction": "\u202etxt.exe",
    "markup": "<script>alert(1)</script>",
    "brackets": "layers[0] a=1 a//b",
}


def name_of(kept: str, tags: dict[str, str]) -> str:
    """What a parameter, metric or tag was called by the program."""
    return tags.get(f"trackdsl.renamed.{kept}"[:250], kept)


def test_hostile_names_everywhere(store: str) -> None:
    """Names of runs, experiments, tags, parameters, metrics and files come back as given, or with their whole text."""
    for kind, name in HOSTILE.items():
        config = {"tracking_uri": store, "experiment_name": name, "tags": {name: name, "kind": kind}}
        run = start_logging(name, config=config)
        run.log_param(name, name)
        run.log_metric(name, 1.5, iteration=0)
        Path("content.txt").write_text(kind)
        run.log_artifact("content.txt", f"folder/{name[:100]}/content.txt")
        stop_logging()
    deliver()
    mlflow = client(store)
    experiments = {each.experiment_id: each.name for each in mlflow.search_experiments()}
    found = {run.data.tags["kind"]: run for run in all_runs(store) if run.data.tags.get("kind") in HOSTILE}
    assert set(found) == set(HOSTILE)
    for kind, name in HOSTILE.items():
        check(mlflow, found[kind], kind, name, experiments)


def check(mlflow: Any, run: Any, kind: str, name: str, experiments: dict[str, str]) -> None:
    tags, experiment = run.data.tags, experiments[run.info.experiment_id]
    assert run.info.status == "FINISHED"
    if kind == "long":  # Too long for every field: the beginning stands there, and the whole in a file.
        assert (experiment, tags["trackdsl.refused.experiment"][:99]) == ("Default", name[:99])
        assert run.info.run_name.startswith(name[:99])
        assert [value[:5000] for value in run.data.params.values()] == [name[:5000]]
        assert any(key.startswith("trackdsl.truncated.") for key in tags)
        return
    assert experiment == name
    assert run.info.run_name == name
    assert {name_of(key, tags): value for key, value in run.data.params.items()} == {name: name}
    assert {name_of(key, tags): value for key, value in run.data.metrics.items()} == {name: 1.5}
    assert tags[next(key for key in tags if name_of(key, tags) == name)] == name
    files = [
        each.path for folder in mlflow.list_artifacts(run.info.run_id, "folder") for each in walk(mlflow, run, folder)
    ]
    assert len(files) == 1
    assert Path(mlflow.download_artifacts(run.info.run_id, files[0])).read_text() == kind


def walk(mlflow: Any, run: Any, entry: Any) -> list[Any]:
    if not entry.is_dir:
        return [entry]
    return [each for inner in mlflow.list_artifacts(run.info.run_id, entry.path) for each in walk(mlflow, run, inner)]


@pytest.mark.parametrize("path", ["../outside.txt", "/etc/outside.txt", "a/../../outside.txt", "a\0b.txt", "C:\\x.txt"])
def test_a_path_that_leaves_its_folder(sqlite_store: str, path: str, caplog: pytest.LogCaptureFixture) -> None:
    """An artifact whose path leaves the run's folder is skipped; a tag and a log line report it."""
    Path("content.txt").write_text("secret of the run")
    with stage("s") as run:
        run.log_artifact("content.txt", path)
        run.log_text("also", path)
        run.log_dict({"a": 1}, path)
        log_metric("after", 1)
    deliver()
    (found,) = all_runs()
    assert found.data.metrics == {"after": 1}
    assert any("trackdsl.omitted" in key for key in found.data.tags)
    assert "stay inside the run's folder" in json.dumps(found.data.tags) + caplog.text
    assert not list(Path.cwd().parent.rglob("outside.txt"))


def test_an_experiment_deleted_while_it_is_written_to(sqlite_store: str) -> None:
    """A session whose experiment is deleted meanwhile continues, and is whole once that is restored."""
    run = start_logging("r", config={"experiment_name": "short-lived"})
    run.log_metric("before", 1)
    deliver()
    mlflow = client()
    id_ = mlflow.get_experiment_by_name("short-lived").experiment_id
    mlflow.delete_experiment(id_)
    run.log_metric("meanwhile", 2)
    mlflow.restore_experiment(id_)
    stop_logging()
    deliver()
    (found,) = all_runs()
    assert found.data.metrics == {"before": 1, "meanwhile": 2}


@pytest.mark.parametrize("name", ["", "  ", "a/b", "a:b"])
def test_a_registry_name_that_is_none(name: str) -> None:
    """A name that MLflow's registry does not take is refused at the call, with what it takes."""
    with stage("s") as run, pytest.raises(OptionError, match="registered_model_name"):
        run.log_model(object(), "m", registered_model_name=name)

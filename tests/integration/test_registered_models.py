"""Models that are read back by their URIs, and registered under a name."""

from __future__ import annotations

import importlib.util
import json
import os
import pickle
from pathlib import Path
from typing import Any

import pytest

import trackdsl
from tests.conftest import client, deliver
from tests.recorded_models import a_frame, labels, models_of, run_of, run_of_name
from trackdsl import ArtifactError, OptionError, RegistryError, RunNotReady, UntrustedArtifact, stage

pytest.importorskip("pandas")
pytest.importorskip("sklearn")

from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LinearRegression


@pytest.mark.slow
def test_reading_models_back_by_their_uris(store: str) -> None:
    """By version, latest version, alias, run and id: the very model, trusted only where it holds a pickle."""
    import mlflow

    has_xgboost = importlib.util.find_spec("xgboost") is not None
    trackdsl.configure(tracking_uri=store)
    name = f"read-{Path.cwd().parent.name}"
    frame = a_frame()
    models = [RandomForestClassifier(trees, random_state=0).fit(frame, labels(frame)) for trees in (2, 3)]
    with stage("train", tags={"test.cwd": Path.cwd()}) as run:
        for model in models:  # Two of one name, each with a hash of its own.
            run.log_model(model, "rf: first", registered_model_name=name)
        if has_xgboost:
            import xgboost

            run.log_model(xgboost.XGBClassifier(n_estimators=2).fit(frame, labels(frame)), "plain")
    deliver(store)
    api = client(store)
    api.set_registered_model_alias(name, "champion", "1")
    run_id = run_of("train", store).info.run_id
    by_version = {int(each.version): each for each in api.search_model_versions(f"name='{name}'")}
    id_ = by_version[2].source.rpartition("/")[2]
    for uri, trees in (
        (f"models:/{name}/1", 2), (f"models:/{name}/2", 3), (f"models:/{name}/latest", 3),
        (f"models:/{name}@champion", 2), (f"models:/{id_}", 3), (f"runs:/{run_id}/rf: first", 3),
        (f"runs:/{run.id}/rf: first", 3),
    ):  # fmt: skip
        with pytest.raises(UntrustedArtifact, match="trusted=True"):
            trackdsl.load_model(uri)
        assert trackdsl.load_model(uri, trusted=True).n_estimators == trees, uri
        assert trackdsl.load_model(uri, trusted=True, tracking_uri=store).n_estimators == trees, uri
    if has_xgboost:  # It holds no pickle.
        assert type(trackdsl.load_model(f"runs:/{run_id}/plain")).__name__ == "XGBClassifier"
    mlflow.set_tracking_uri(store)
    assert mlflow.sklearn.load_model(f"models:/{name}/1").n_estimators == 2


@pytest.mark.slow
def test_a_model_that_has_changed_is_not_loaded(sqlite_store: str) -> None:
    """A model with changed files is not loaded, nor one that plain MLflow logged, as its hash is unknown."""
    import mlflow

    with stage("train") as run:
        run.log_model(RandomForestClassifier(2).fit(a_frame(), labels(a_frame())), "rf", registered_model_name="rf")
    deliver()
    [model] = client().search_logged_models(["0"])
    file = Path(model.artifact_location.removeprefix("file://")) / "model.pkl"
    file.write_bytes(pickle.dumps(os.getcwd))
    for uri in ("models:/rf/1", f"runs:/{run.id}/rf"):
        with pytest.raises(ArtifactError, match="is not what was written"):
            trackdsl.load_model(uri, trusted=True)
    mlflow.set_tracking_uri(sqlite_store)
    with mlflow.start_run() as plain:
        mlflow.sklearn.log_model(
            LinearRegression(), name="own", registered_model_name="own", serialization_format="cloudpickle",
            pip_requirements=[],
        )  # fmt: skip
    for uri in ("models:/own/1", f"runs:/{plain.info.run_id}/own"):
        with pytest.raises(UntrustedArtifact, match=r"mlflow\.pyfunc\.load_model"):
            trackdsl.load_model(uri, trusted=True)


def test_models_that_are_not_there(sqlite_store: str) -> None:
    """A URI that is not a model's raises an error that lists the existing ones; so does a missing or late model."""
    with stage("train") as run:
        run.log_model(LinearRegression().fit(a_frame(), a_frame()["a"]), "line", registered_model_name="line")
    with pytest.raises(RunNotReady, match="not delivered"):
        trackdsl.load_model("models:/line/1", trusted=True, timeout=0)
    deliver()
    for uri in ("line", "models:/line", "models:/line/Production", "runs:/abc", 3):
        with pytest.raises(OptionError, match="runs:/<run id>/name"):
            trackdsl.load_model(uri)  # type: ignore[arg-type]
    for uri in ("models:/none/1", "models:/line/9", "models:/line@best", "models:/none/latest", "runs:/abc/line",
                f"runs:/{run.id}/none", f"models:/m-{'0' * 32}"):  # fmt: skip
        with pytest.raises(ArtifactError, match="there is no model"):
            trackdsl.load_model(uri, trusted=True)
    with pytest.raises(OptionError, match="quote"):
        trackdsl.load_model("models:/it's/latest")


def test_registering_by_hand(store: str) -> None:
    """A model of a run becomes the next version, by run or by URI, and its page at MLflow lists every version."""
    name = f"by-hand-{Path.cwd().parent.name}"
    trackdsl.configure(tracking_uri=store)
    with stage("train", tags={"test.cwd": Path.cwd()}) as run:
        run.log_model(LinearRegression().fit(a_frame(), a_frame()["a"]), "line")
    deliver(store)
    run_id = run_of("train", store).info.run_id
    versions = [
        trackdsl.register_model(f"runs:/{run_id}/line", name),
        trackdsl.register_model(f"runs:/{run.id}/line", name, tracking_uri=store),
    ]
    [logged] = models_of(run_of("train", store), store)
    versions.append(trackdsl.register_model(f"models:/{logged.model_id}", name))
    assert [int(version.version) for version in versions] == [1, 2, 3]
    assert {version.run_id for version in versions} == {run_id}
    [logged] = models_of(run_of("train", store), store)
    listed = json.loads(logged.tags["mlflow.modelVersions"])
    assert listed == [{"name": name, "version": number} for number in (1, 2, 3)]
    assert trackdsl.load_model(f"models:/{name}/3", trusted=True).coef_.shape == (3,)
    with pytest.raises(OptionError, match="registered already"):
        trackdsl.register_model(f"models:/{name}/1", name)
    with pytest.raises(ArtifactError, match="there is no model"):
        trackdsl.register_model(f"runs:/{run_id}/other", name)


def test_registering_from_the_run(sqlite_store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Registering from the handle of a run with one model waits for delivery; with two models it raises."""
    monkeypatch.setenv("TRACKDSL_MODE", "online")
    monkeypatch.setenv("TRACKDSL_DELIVERY", "thread")
    with stage("train") as run:
        run.log_model(LinearRegression().fit(a_frame(), a_frame()["a"]), "line")
        version = trackdsl.register_model(run, "line")
        assert (int(version.version), version.run_id) == (1, run.run_id)
        run.log_model(LinearRegression(), "other")
        with pytest.raises(ArtifactError, match="line, other: name one"):
            _registered_after_delivery(run)
        assert int(trackdsl.register_model(run, "line", model="other").version) == 2
    monkeypatch.setenv("TRACKDSL_MODE", "offline")
    with stage("offline") as run:
        run.log_model(LinearRegression(), "line")
    with pytest.raises(RunNotReady):
        trackdsl.register_model(run, "line")


def _registered_after_delivery(run: Any) -> None:
    assert trackdsl.flush(60)
    trackdsl.register_model(run, "line")


def test_names_that_the_registry_refuses(sqlite_store: str) -> None:
    """A name that no registered model can have is reported at the call; one that a prompt has, by an error or a tag."""
    import mlflow

    for name in ("", " ", "a/b", "a:b", ".", "..", "x" * 257, 3):
        with pytest.raises(OptionError, match="registered_model_name"), stage("s") as run:
            run.log_model(LinearRegression(), "line", registered_model_name=name)  # type: ignore[arg-type]
        with pytest.raises(OptionError, match="name="):
            trackdsl.register_model("runs:/abc/line", name)  # type: ignore[arg-type]
    mlflow.set_tracking_uri(sqlite_store)
    hostile = "'; DROP TABLE registered_models; -- \N{PILE OF POO}\n"
    client().create_prompt("taken")
    with stage("train") as run:
        run.log_model(LinearRegression(), "line", registered_model_name="taken")
        run.log_model(LinearRegression(), "other", registered_model_name=hostile)
    deliver()
    assert "prompt" in run_of_name("train").data.tags["trackdsl.omitted.line.registered"]
    with pytest.raises(RegistryError, match="prompt") as refused:
        trackdsl.register_model(f"runs:/{run.id}/line", "taken")
    assert refused.value.name == "taken"
    assert int(trackdsl.register_model(f"runs:/{run.id}/line", hostile).version) == 2
    assert type(trackdsl.load_model(f"runs:/{run.id}/line", trusted=True)) is LinearRegression

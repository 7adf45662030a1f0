"""`start_logging` and `trackdsl doctor` at real databases and servers: what they say of each."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import client, deliver, free_port
from tests.stores.conftest import TrackingStore
from trackdsl import (
    ExperimentDeleted,
    TrackingServerError,
    TrackingServerUnreachable,
    current_run,
    start_logging,
    stop_logging,
)
from trackdsl.cli import _checks


@pytest.fixture(autouse=True)
def online(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sessions ask their store; delivery is left to the test."""
    monkeypatch.setattr("trackdsl.journal._store_target.Target.watch", lambda self, now: None)
    monkeypatch.setattr("trackdsl.journal._delivery_hooks._delivery.waits_at_exit", False)
    monkeypatch.setenv("TRACKDSL_MODE", "online")


@pytest.mark.parametrize("tracking_store", ["server with basic auth and azure"], indirect=True)
def test_a_server_that_asks_who_it_is(tracking_store: TrackingStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without credentials, or with wrong ones, a start says which variables to set; with the right ones it begins."""
    config = {"tracking_uri": tracking_store.uri, "experiment_name": "asked"}
    with monkeypatch.context() as without:
        without.setenv("HOME", str(Path.cwd()))
        without.delenv("MLFLOW_TRACKING_USERNAME")
        with pytest.raises(TrackingServerError, match=r"401.*MLFLOW_TRACKING_USERNAME") as caught:
            start_logging("r", config=config)
        assert caught.value.status == 401
        without.setenv("MLFLOW_TRACKING_USERNAME", "somebody")
        with pytest.raises(TrackingServerError, match="401"):
            start_logging("r", config=config)
    assert current_run() is None
    start_logging("r", config=config)
    stop_logging()
    findings = {found.about: found for found in _checks.store(tracking_store.uri)}
    assert findings["store"].level == "ok"
    assert "MLflow 3" in findings["store"].text


@pytest.mark.parametrize("tracking_store", ["postgresql", "mariadb"], indirect=True)
def test_a_database(tracking_store: TrackingStore) -> None:
    """A deleted experiment, a wrong password and a closed port are distinguished; the schema is checked."""
    config = {"tracking_uri": tracking_store.uri, "experiment_name": "kept"}
    start_logging("r", config=config)
    stop_logging()
    deliver(tracking_store.uri)
    mlflow = client(tracking_store.uri)
    id_ = mlflow.get_experiment_by_name("kept").experiment_id
    mlflow.delete_experiment(id_)
    with pytest.raises(ExperimentDeleted, match=f"--experiment-id {id_}"):
        start_logging("r", config=config)
    host = tracking_store.uri.rpartition("@")[2]
    elsewhere = tracking_store.uri.replace(host, f"127.0.0.1:{free_port()}/nothing")
    with pytest.raises(TrackingServerUnreachable):
        start_logging("r", config={"tracking_uri": elsewhere})
    stranger = tracking_store.uri.replace("//", "//nobody-", 1)
    with pytest.raises(TrackingServerError) as caught:
        start_logging("r", config={"tracking_uri": stranger})
    assert tracking_store.uri.partition("@")[0].rpartition(":")[2] not in str(caught.value)
    assert current_run() is None
    findings = {found.about: found for found in _checks.store(tracking_store.uri)}
    assert (findings["store"].level, findings["schema"].level) == ("ok", "ok")

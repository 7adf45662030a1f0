"""Models at the store: delivered once, and loaded by MLflow as if it had logged them itself."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import trackdsl
from tests.conftest import client, deliver
from tests.model_cases import (
    CASES,
    Case,
    keras_model,
    lightgbm_booster,
    lightgbm_estimator,
    sklearn_frame,
    torch_module,
    xgboost_booster,
    xgboost_estimator,
)
from tests.recorded_models import a_frame, downloaded, models_of, record, recorded, run_of
from trackdsl._core import events
from trackdsl.handlers._model_files import sha256_of_files
from trackdsl.handlers._registry import handler_named

pd = pytest.importorskip("pandas")
pytest.importorskip("sklearn")


def check_loaded(case: Case, uri: str) -> None:
    """Load the one model of the run `train` each way MLflow knows, and compare what it answers."""
    import mlflow

    model, _, flavor, predict = case
    mlflow.set_tracking_uri(uri)
    run = run_of("train", uri)
    [logged] = models_of(run, uri)
    assert str(logged.status.value) == "READY"
    # Searching for runs does not return their outputs in MLflow 3.1.
    outputs = client(uri).get_run(run.info.run_id).outputs.model_outputs
    assert [output.model_id for output in outputs] == [logged.model_id]
    loaded = mlflow.pyfunc.load_model(f"models:/{logged.model_id}")
    example = loaded.input_example
    assert len(example) == 5
    assert loaded.metadata.signature.inputs is not None
    np.testing.assert_allclose(_numbers(loaded.predict(example)), _numbers(predict(model, example)), rtol=1e-5)
    if flavor != "python_function":
        assert loaded.metadata.signature.outputs is not None
        again = getattr(mlflow, flavor).load_model(f"runs:/{run.info.run_id}/model")
        assert type(again) is type(model)
        np.testing.assert_allclose(_numbers(predict(again, example)), _numbers(predict(model, example)), rtol=1e-5)
    # What `load_artifact` reads, after it has compared the hash.
    [entry] = json.loads(run.data.tags["trackdsl.files"]).values()
    folder = downloaded(f"models:/{logged.model_id}")
    assert sha256_of_files(folder) == entry["sha256"]
    handler = handler_named(entry["handler"])
    assert handler is not None
    np.testing.assert_allclose(
        _numbers(predict(handler.read(folder), example)), _numbers(predict(model, example)), rtol=1e-5
    )


def _numbers(answer: Any) -> Any:
    found = np.asarray(answer)
    return (found == "yes").astype(float) if found.dtype.kind in "OU" else found


_HEAVY = {xgboost_estimator, xgboost_booster, lightgbm_estimator, lightgbm_booster, torch_module, keras_model}


@pytest.mark.parametrize(
    "case",
    [pytest.param(case, id=case.__name__, marks=[pytest.mark.slow] if case in _HEAVY else []) for case in CASES],
)
def test_a_model_loads_as_mlflow_s_own(sqlite_store: str, case: Callable[[], Case]) -> None:
    """Models of every library answer as the original does: with MLflow's flavour, as pyfunc and by our own handler."""
    made = case()
    record(made[0], made[1])
    deliver()
    check_loaded(made, sqlite_store)


def test_a_model_reaches_a_server(shared_server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model loads through an MLflow server too, also as a registered one."""
    # MLflow 3.1 asks for `runs:/…` among the run's own artifacts first, where its server answers 500, again and again.
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    trackdsl.configure(tracking_uri=shared_server.uri)
    made = sklearn_frame()
    name = f"registered-{Path.cwd().parent.name}"
    record(made[0], made[1], registered_model_name=name)
    deliver(shared_server.uri)
    check_loaded(made, shared_server.uri)
    [version] = client(shared_server.uri).search_model_versions(f"name='{name}'")
    assert version.run_id == run_of("train", shared_server.uri).info.run_id


class Crash(BaseException):
    """Replaces a SIGKILL of the delivery process."""


class Dying:
    """A real client that dies before or after one of its calls."""

    def __init__(self, real: Any, at: int, *, after: bool) -> None:
        self.calls = 0
        self._real = real
        self._at = at
        self._after = after

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._real, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            self.calls += 1
            if self.calls == self._at and not self._after:
                raise Crash
            result = method(*args, **kwargs)
            if self.calls == self._at:
                raise Crash
            return result

        return call


@pytest.mark.slow
def test_a_crash_anywhere_leaves_one_model(sqlite_store: str) -> None:
    """Killed between any two requests and begun again, there is one model, one output and one version, all whole."""
    import mlflow

    from trackdsl.delivery.mlflow_client._models import log_model

    record(sklearn_frame()[0], {"X": a_frame()}, registered_model_name="churn")
    [(event, folder)] = recorded()
    real = client(sqlite_store)
    before = sorted(path.relative_to(folder) for path in folder.rglob("*"))
    calls = 0
    for after in (False, True):
        for at in range(1, 100):
            run_id = real.create_run("0").info.run_id
            real.log_param(run_id, "depth", at)
            # A model of its own for each of the runs: an event of another time.
            new = events.Model(event.run, "model", event.snapshot, "churn", 3, event.time + 2 * at + after)
            dying = Dying(real, at, after=after)
            finished = False
            try:
                log_model(dying, sqlite_store, run_id, "0", new, folder)
                finished = True
            except Crash:
                log_model(real, sqlite_store, run_id, "0", new, folder)
                log_model(real, sqlite_store, run_id, "0", new, folder)
            check_whole(real, run_id, {"depth": str(at)})
            if finished:
                calls += dying.calls
                break
    assert calls >= 20  # Of two deliveries that nothing has stopped: there was something to die in.
    assert sorted(path.relative_to(folder) for path in folder.rglob("*")) == before
    assert mlflow.sklearn.load_model("models:/churn/1").n_features_in_ == 3


def check_whole(mlflow: Any, run_id: str, params: dict[str, str]) -> None:
    """A run has one model, which is ready, linked once, and one version of a registered model."""
    run = mlflow.get_run(run_id)
    [logged] = models_of(run)
    assert str(logged.status.value) == "READY"
    assert logged.params == params
    assert [(output.model_id, output.step) for output in run.outputs.model_outputs] == [(logged.model_id, 3)]
    [version] = mlflow.search_model_versions(f"run_id='{run_id}'")
    assert version.source == f"models:/{logged.model_id}"


def test_late_twins_are_removed(sqlite_store: str) -> None:
    """Where a server has carried out a request twice, the older model stays, and gets what it lacks."""
    from trackdsl.delivery.mlflow_client._models import log_model

    record(sklearn_frame()[0], {"X": a_frame()})
    [(event, folder)] = recorded()
    real = client(sqlite_store)
    run = real.create_run("0")
    real.log_param(run.info.run_id, "depth", 3)
    twins = [
        real.create_logged_model("0", "m", run.info.run_id, {"trackdsl.model": events.model_key(event)})
        for _ in range(2)
    ]
    older = min(twins, key=lambda model: (model.creation_timestamp, model.model_id))
    log_model(real, sqlite_store, run.info.run_id, "0", event, folder)
    [left] = models_of(run)
    assert left.model_id == older.model_id
    assert left.params == {"depth": "3"}

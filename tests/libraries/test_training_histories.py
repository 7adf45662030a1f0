"""What Keras, XGBoost and LightGBM return of their training, round by round, as points of metrics."""

from __future__ import annotations

import json
import os
from typing import Any

import numpy as np
import pytest

from trackdsl import log_metrics, stage, track_returns
from trackdsl.testing import RecordedRun, capture_runs

X = np.arange(24.0).reshape(12, 2)
Y = np.arange(12) % 2


def series_of(run: RecordedRun) -> dict[str, list[tuple[int, float]]]:
    return {name: [(point.step, point.value) for point in found] for name, found in run.metrics.items()}


@pytest.fixture
def keras(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Keras, on PyTorch where nothing else is chosen."""
    pytest.importorskip("torch")
    monkeypatch.setenv("KERAS_BACKEND", os.environ.get("KERAS_BACKEND", "torch"))
    return pytest.importorskip("keras")


@pytest.mark.slow
def test_a_history_of_keras(keras: Any) -> None:
    """Keras's history gives each metric by epoch, also where training continues, and a JSON file."""
    model = keras.Sequential([keras.layers.Dense(1)])
    model.compile(loss="mse")
    history = model.fit(X, Y, epochs=4, initial_epoch=2, validation_split=0.25, verbose=0)
    expected = {name: list(zip((2, 3), values, strict=True)) for name, values in history.history.items()}
    with capture_runs() as captured:
        with stage("logged"):
            log_metrics(history)

        @stage
        @track_returns
        def returned() -> Any:
            return history

        returned()
        content = json.loads(captured.one("returned").artifacts["returned.json"].read_text())
    assert set(expected) == {"loss", "val_loss"}
    assert series_of(captured.one("logged")) == expected
    assert series_of(captured.one("returned")) == expected
    assert content["history"] == history.history
    assert content["epoch"] == [2, 3]


def test_what_xgboost_records() -> None:
    """`evals_result` of XGBoost, logged and returned, gives each metric of each data set by round."""
    xgboost = pytest.importorskip("xgboost")
    rounds: dict[str, Any] = {}
    data = xgboost.DMatrix(X, Y)
    xgboost.train({"objective": "binary:logistic"}, data, 3, [(data, "train")], evals_result=rounds, verbose_eval=False)
    check(rounds, {"train/logloss": list(enumerate(rounds["train"]["logloss"]))})


def test_what_lightgbm_records() -> None:
    """`record_evaluation` of LightGBM gives each metric of each data set by round."""
    lightgbm = pytest.importorskip("lightgbm")
    history: dict[str, Any] = {}
    data = lightgbm.Dataset(np.repeat(X, 5, axis=0), np.repeat(Y, 5), free_raw_data=False)
    lightgbm.train(
        {"objective": "binary", "verbose": -1}, data, 3, [data], ["train"],
        callbacks=[lightgbm.record_evaluation(history)],
    )  # fmt: skip
    check(history, {"train/binary_logloss": list(enumerate(history["train"]["binary_logloss"]))})


def check(history: dict[str, Any], expected: dict[str, list[tuple[int, float]]]) -> None:
    """Both ways give these points, and the returned value is kept as JSON."""
    with capture_runs() as captured:
        with stage("logged"):
            log_metrics(history)
        stage(track_returns("rounds")(lambda: history))()
    assert all(len(found) == 3 for found in expected.values())
    assert series_of(captured.one("logged")) == expected
    run = captured.one("<lambda>")
    assert series_of(run) == {f"rounds/{name}": found for name, found in expected.items()}
    assert list(run.artifacts) == ["rounds.json"]

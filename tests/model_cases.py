"""Models of every library that trackdsl knows, with what they answer."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tests.recorded_models import a_frame, labels

pd = pytest.importorskip("pandas")
pytest.importorskip("sklearn")

from sklearn.ensemble import RandomForestClassifier  # noqa: E402
from sklearn.feature_extraction.text import CountVectorizer  # noqa: E402
from sklearn.linear_model import LinearRegression, LogisticRegression  # noqa: E402
from sklearn.pipeline import make_pipeline  # noqa: E402
from sklearn.preprocessing import StandardScaler  # noqa: E402

# Each case: the model, the arguments of the call, what MLflow's flavour is, and how the model answers.
Case = tuple[Any, dict[str, Any], str, Callable[[Any, Any], Any]]


def _predict(model: Any, data: Any) -> Any:
    return model.predict(data)


def sklearn_frame() -> Case:
    frame = a_frame()
    model = RandomForestClassifier(5, random_state=0).fit(frame, labels(frame))
    return (
        model,
        {"label": labels(frame), "df": frame.assign(target=1.0)[["target", "c", "b", "a"]]},
        "sklearn",
        _predict,
    )


def sklearn_pipeline_on_array() -> Case:
    frame = a_frame()
    model = make_pipeline(StandardScaler(), LinearRegression()).fit(frame.to_numpy(), frame["a"])
    return model, {"other": np.ones((4, 2)), "split": (frame.to_numpy(), frame["a"])}, "sklearn", _predict


def sklearn_text() -> Case:
    texts = ["good", "bad", "good day", "bad day"] * 3
    names = np.array(["yes", "no", "yes", "no"] * 3, dtype=object)
    return (
        make_pipeline(CountVectorizer(), LogisticRegression()).fit(texts, names),
        {"texts": texts},
        "sklearn",
        _predict,
    )


def xgboost_estimator() -> Case:
    xgboost = pytest.importorskip("xgboost")
    frame = a_frame()
    model = xgboost.XGBClassifier(n_estimators=3).fit(frame, labels(frame))
    return model, {"X": frame}, "xgboost", _predict


def xgboost_booster() -> Case:
    xgboost = pytest.importorskip("xgboost")
    frame = a_frame()
    model = xgboost.train({"max_depth": 2}, xgboost.DMatrix(frame, frame["a"]), 3)
    return model, {"X": frame}, "xgboost", lambda model, data: model.predict(xgboost.DMatrix(data))


def lightgbm_estimator() -> Case:
    lightgbm = pytest.importorskip("lightgbm")
    frame = a_frame()
    model = lightgbm.LGBMRegressor(n_estimators=3, verbose=-1).fit(frame, frame["a"])
    return model, {"X": frame}, "lightgbm", _predict


def lightgbm_booster() -> Case:
    lightgbm = pytest.importorskip("lightgbm")
    frame = a_frame()
    model = lightgbm.train({"verbose": -1}, lightgbm.Dataset(frame, frame["a"]), 3)
    return model, {"X": frame}, "lightgbm", _predict


def torch_module() -> Case:
    torch = pytest.importorskip("torch")
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Dropout(0.5), torch.nn.Linear(4, 1))

    def predict(model: Any, data: Any) -> Any:
        model.eval()
        with torch.no_grad():
            return model(torch.from_numpy(np.asarray(data))).numpy()

    return model, {"config": {"lr": 0.1}, "y": torch.ones(40), "X": torch.rand(40, 3)}, "pytorch", predict


def keras_model() -> Case:
    pytest.importorskip("torch")
    os.environ.setdefault("KERAS_BACKEND", "torch")
    keras = pytest.importorskip("keras", minversion="3")
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, activation="relu"), keras.layers.Dense(1)])
    data = np.random.RandomState(0).rand(40, 3).astype("float32")
    return model, {"x": data}, "keras", lambda model, data: model.predict(data, verbose=0)


def python_model() -> Case:
    import mlflow

    class Doubling(mlflow.pyfunc.PythonModel):  # type: ignore[misc,name-defined]
        def predict(self, context: Any, model_input: Any, params: Any = None) -> Any:
            return model_input * 2

    return Doubling(), {"data": a_frame()}, "python_function", lambda model, data: model.predict(None, data)


def plain_callable() -> Case:
    return (lambda data: data * 3), {"data": a_frame()}, "python_function", lambda model, data: model(data)


def object_that_predicts() -> Case:
    class Tripling:
        def predict(self, data: Any) -> Any:
            return data * 3

    return Tripling(), {"data": a_frame()}, "python_function", _predict


CASES = [
    sklearn_frame, sklearn_pipeline_on_array, sklearn_text, xgboost_estimator, xgboost_booster, lightgbm_estimator,
    lightgbm_booster, torch_module, keras_model, python_model, plain_callable, object_that_predicts,
]  # fmt: skip

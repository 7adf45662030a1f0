"""A model takes its own data: signatures and examples that MLflow would refuse are left out and reported."""

from __future__ import annotations

import datetime
import decimal
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import trackdsl
from tests.conftest import all_runs, client, deliver
from trackdsl import stage
from trackdsl._recording.models import record_model

pd = pytest.importorskip("pandas")

ROWS = 6
BOTH, SIGNATURE, EXAMPLE, NEITHER = {"signature", "example"}, {"signature"}, {"example"}, set[str]()

#: A column, and what of signature and example fits it.
COLUMNS: dict[str, tuple[Any, set[str]]] = {
    "category": (pd.Series(list("abcabc"), dtype="category"), NEITHER),
    "categories of integers": (pd.Series([1, 2] * 3, dtype="category"), NEITHER),
    "integers": (pd.Series(range(ROWS)), BOTH),
    "small integers": (pd.Series(range(ROWS), dtype="int8"), BOTH),
    "large integers": (pd.Series(range(ROWS), dtype="uint64"), EXAMPLE),
    "single precision": (pd.Series(range(ROWS), dtype="float32"), BOTH),
    "integers with NA": (pd.Series([1, None, 3, 4, 5, 6], dtype="Int64"), EXAMPLE),
    "integers without NA": (pd.Series([1, 2, 3, 4, 5, 6], dtype="Int64"), BOTH),
    "floats with NA": (pd.Series([1.5, None] * 3, dtype="Float64"), BOTH),
    "truth values with NA": (pd.Series([True, None] * 3, dtype="boolean"), NEITHER),
    "truth values": (pd.Series([True, False] * 3), BOTH),
    "mixed": (pd.Series([1, "a"] * 3, dtype=object), NEITHER),
    "times": (pd.Series(pd.date_range("2020", periods=ROWS)), BOTH),
    "times with a zone": (pd.Series(pd.date_range("2020", periods=ROWS, tz="Europe/Berlin")), NEITHER),
    "dates": (pd.Series([datetime.date(2020, 1, 1)] * ROWS), SIGNATURE),
    "durations": (pd.Series(pd.to_timedelta(range(ROWS), unit="h")), NEITHER),
    "periods": (pd.Series(pd.period_range("2020", periods=ROWS, freq="M")), NEITHER),
    "decimals": (pd.Series([decimal.Decimal("1.5")] * ROWS), NEITHER),
    "sparse": (pd.Series(pd.arrays.SparseArray([0.0, 0, 1, 0, 0, 0])), NEITHER),
    "text": (pd.Series(list("abcdef"), dtype=object), BOTH),
    "text with missing values": (pd.Series(["a", None] * 3, dtype=object), BOTH),
    "lists": (pd.Series([[1, 2]] * ROWS), BOTH),
    "tuples": (pd.Series([(1, 2)] * ROWS), NEITHER),
    "sets": (pd.Series([{1, 2}] * ROWS), NEITHER),
}

DATA: dict[str, tuple[Any, set[str]]] = {
    **{name: (pd.DataFrame({"x": range(ROWS), "c": column}), fits) for name, (column, fits) in COLUMNS.items()},
    "names of numbers": (pd.DataFrame(np.ones((ROWS, 2))), BOTH),
    "names of two parts": (
        pd.DataFrame(np.ones((ROWS, 2)), columns=pd.MultiIndex.from_tuples([("a", "b"), ("a", "c")])),
        NEITHER,
    ),
    "names of text and numbers": (pd.DataFrame(np.ones((ROWS, 2)), columns=["a", 1]), BOTH),
    "one name twice": (pd.DataFrame(np.ones((ROWS, 2)), columns=["a", "a"]), NEITHER),
    "an array of half precision": (np.ones((ROWS, 2), "float16"), BOTH),
    "an array of bytes": (np.ones((ROWS, 2), "uint8"), BOTH),
    "an array of pictures": (np.ones((ROWS, 2, 2), "float32"), BOTH),
    "complex": (np.ones((ROWS, 2), complex), SIGNATURE),
}


def count(data: Any) -> Any:
    """A model that takes everything."""
    return [len(data)] * len(data)


@pytest.mark.slow
def test_a_model_takes_its_own_data(sqlite_store: str) -> None:
    """pyfunc takes each kind of data that a model was fitted on, and its example; what is left out is reported."""
    import mlflow

    for name, (data, _) in DATA.items():
        with stage(name) as run:
            record_model(run, count, "m", arguments={"data": data})
    deliver()
    mlflow.set_tracking_uri(sqlite_store)
    runs = {run.info.run_name: run for run in all_runs()}
    models = {model.source_run_id: model for model in client().search_logged_models(["0"])}
    found = {}
    for name, (data, _) in DATA.items():
        run = runs[name]
        loaded = mlflow.pyfunc.load_model(f"models:/{models[run.info.run_id].model_id}")
        assert loaded.predict(data) == [ROWS] * ROWS, name
        example = loaded.input_example
        if example is not None:
            assert loaded.predict(example) == [5] * 5, name
        found[name] = {
            part
            for part, there in (("signature", loaded.metadata.signature), ("example", example))
            if there is not None
        }
        omitted = {part for part in BOTH if f"trackdsl.omitted.m.{part}" in run.data.tags}
        assert bool(omitted) == (found[name] != BOTH), name
    assert found == {name: fits for name, (_, fits) in DATA.items()}


def _xgboost(frame: Any, label: Any) -> Any:
    xgboost = pytest.importorskip("xgboost")
    return xgboost.XGBClassifier(n_estimators=2, enable_categorical=True).fit(frame, label)


def _lightgbm(frame: Any, label: Any) -> Any:
    lightgbm = pytest.importorskip("lightgbm")
    return lightgbm.LGBMClassifier(n_estimators=2, verbose=-1).fit(frame, label)


def _sklearn(frame: Any, label: Any) -> Any:
    ensemble = pytest.importorskip("sklearn.ensemble")
    return ensemble.HistGradientBoostingClassifier(max_iter=2, categorical_features="from_dtype").fit(frame, label)


@pytest.mark.parametrize(
    "fit", [pytest.param(_xgboost, marks=pytest.mark.slow), pytest.param(_lightgbm, marks=pytest.mark.slow), _sklearn]
)
def test_a_model_fitted_on_categories_takes_them(sqlite_store: str, fit: Callable[[Any, Any], Any]) -> None:
    """XGBoost, LightGBM and scikit-learn predict through pyfunc from a frame with categories as they were fitted on."""
    import mlflow

    frame = pd.DataFrame({"size": np.arange(40.0), "kind": pd.Series(list("abcd") * 10, dtype="category")})
    label = (frame["size"] > 20).astype(int)
    with stage("train") as run:
        record_model(run, fit(frame, label), "m", arguments={"frame": frame})
        trackdsl.log_model(fit(frame, label), "given", input_example=frame)
    deliver()
    mlflow.set_tracking_uri(sqlite_store)
    [found] = all_runs()
    models = client().search_logged_models(["0"])
    assert {model.name for model in models} == {"m", "given"}
    for model in models:
        loaded = mlflow.pyfunc.load_model(f"models:/{model.model_id}")
        assert len(loaded.predict(frame)) == 40
        assert (loaded.metadata.signature, loaded.input_example) == (None, None)
        for part in ("signature", "example"):
            assert "category" in found.data.tags[f"trackdsl.omitted.{model.name}.{part}"]


def test_a_model_is_kept_where_its_example_is_none(sqlite_store: str) -> None:
    """Data that cannot be converted, and parameters that JSON cannot hold, are left out; NumPy's numbers are taken."""
    import mlflow

    class Broken(list[Any]):
        def __getitem__(self, _: Any) -> Any:
            raise NotImplementedError("there are no parts")

    frame = pd.DataFrame({"a": [1.0, 2.0]})
    with stage("train") as run:
        run.log_model(count, "broken", input_example=Broken([1]))
        run.log_model(count, "object", input_example=(frame, {"t": object()}))
        run.log_model(count, "numbers", input_example=(frame, {"t": np.int64(3)}))
    deliver()
    mlflow.set_tracking_uri(sqlite_store)
    found = {model.name: model for model in client().search_logged_models(["0"])}
    assert set(found) == {"broken", "object", "numbers"}
    described = mlflow.models.get_model_info(found["numbers"].model_uri)
    assert [param.default for param in described.signature.params] == [3]
    tags = all_runs()[0].data.tags
    assert "there are no parts" in tags["trackdsl.omitted.broken.example"]
    assert "trackdsl.omitted.object.example" in tags


@pytest.mark.slow
def test_a_signature_knows_what_is_defined_further_down(sqlite_store: str) -> None:
    """A signature allows missing values and other types below the first rows, as the model's data has them."""
    import mlflow

    polars, pa = pytest.importorskip("polars"), pytest.importorskip("pyarrow")
    late = {
        "integers": pd.Series([1] * 20 + [None], dtype="Int64"),
        "truth values": pd.Series([True] * 20 + [None], dtype="boolean"),
        "mixed": pd.Series([1] * 20 + ["a"], dtype=object),
        "text": pd.Series(["a"] * 20 + [None]),
        "records": pd.Series([{"a": 1}] * 20 + [{"b": 1}]),
        "lists": pd.Series([[1, 2]] * 20 + [None]),
    }
    data: dict[str, Any] = {name: pd.DataFrame({"x": range(21), "c": column}) for name, column in late.items()}
    data["polars"] = polars.DataFrame({"x": range(21), "c": [1] * 20 + [None]})
    data["pyarrow"] = pa.table({"x": range(21), "c": [1] * 20 + [None]})
    with stage("train") as run:
        for name, frame in data.items():
            record_model(run, count, name, arguments={"data": frame})
    deliver()
    mlflow.set_tracking_uri(sqlite_store)
    models = client().search_logged_models(["0"])
    assert {model.name for model in models} == set(data)
    for model in models:
        loaded, frame = mlflow.pyfunc.load_model(model.model_uri), data[model.name]
        assert loaded.predict(frame if hasattr(frame, "iloc") else frame.to_pandas()) == [21] * 21, model.name
        if model.name in ("text", "records", "lists", "polars", "pyarrow"):
            assert loaded.metadata.signature is not None, model.name


def test_a_vectorizer_takes_its_example(sqlite_store: str) -> None:
    """A list of texts as an example is kept as an array: of a frame, a vectorizer sees only the column's name."""
    import mlflow

    text, linear = pytest.importorskip("sklearn.feature_extraction.text"), pytest.importorskip("sklearn.linear_model")
    texts = ["good", "bad", "good too", "too bad"]
    model = pytest.importorskip("sklearn.pipeline").make_pipeline(text.CountVectorizer(), linear.LogisticRegression())
    with stage("train") as run:
        run.log_model(model.fit(texts, [1, 0, 1, 0]), "m", input_example=texts)
    deliver()
    mlflow.set_tracking_uri(sqlite_store)
    loaded = mlflow.pyfunc.load_model(client().search_logged_models(["0"])[0].model_uri)
    assert loaded.predict(loaded.input_example).tolist() == [1, 0, 1, 0]

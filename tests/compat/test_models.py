"""Models, as the documents show them: signatures, examples, custom models, and what MLflow 3 refuses by itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import trackdsl
from tests.conftest import all_runs, client, deliver
from trackdsl import stage

mlflow = pytest.importorskip("mlflow")
pd = pytest.importorskip("pandas")
pytest.importorskip("sklearn")

from mlflow.models import ModelSignature, infer_signature  # noqa: E402
from mlflow.types.schema import ColSpec, Schema  # noqa: E402
from sklearn.ensemble import RandomForestClassifier  # noqa: E402
from sklearn.preprocessing import StandardScaler  # noqa: E402


class Scaled(mlflow.pyfunc.PythonModel):  # type: ignore[misc, name-defined]
    """A model with its preprocessing."""

    def __init__(self, scaler: Any, model: Any) -> None:
        self.scaler = scaler
        self.model = model

    def predict(self, context: Any, model_input: Any, params: Any = None) -> Any:
        return self.model.predict(self.scaler.transform(model_input))


def data(rows: int = 60) -> Any:
    frame = pd.DataFrame(np.random.RandomState(0).rand(rows, 3), columns=["one", "two", "three"])
    return frame, (frame["one"] > 0.5).astype(int)


def forest() -> Any:
    frame, label = data()
    return RandomForestClassifier(5, random_state=0).fit(frame, label)


def logged(uri: str, name: str) -> Any:
    """The one model of this name, as MLflow describes it."""
    mlflow.set_tracking_uri(uri)
    [found] = client(uri).search_logged_models(["0"], f"name = '{name}'")
    return mlflow.models.get_model_info(f"models:/{found.model_id}")


def test_r83_r84_an_inferred_signature(sqlite_store: str) -> None:
    """A forest with the signature that was inferred from data and predictions; MLflow loads it both of its ways."""
    frame, _ = data()
    model = forest()
    signature = infer_signature(frame[:5], model.predict(frame[:5]))
    with stage("given") as run:
        run.log_model(model, "model", signature=signature)
    with stage("inferred") as run:
        run.log_model(model, "asked", input_example=frame[:5])
    deliver()
    for name in ("model", "asked"):
        info = logged(sqlite_store, name)
        assert info.signature.inputs == signature.inputs
        assert info.signature.outputs.input_types() == signature.outputs.input_types()
        for flavor in (mlflow.sklearn, mlflow.pyfunc):
            assert (flavor.load_model(info.model_uri).predict(frame) == model.predict(frame)).all()


def test_r84_mlflow_s_own_function_inside_a_stage(here: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where MLflow refuses a forest its own error reaches the program; with the format named it lands on the run."""
    monkeypatch.setenv("MLFLOW_REQUIREMENTS_INFERENCE_TIMEOUT", "0")
    frame, _ = data()
    model = forest()
    with stage("fit") as run:
        try:
            mlflow.sklearn.log_model(model, name="model", signature=infer_signature(frame))
        except mlflow.MlflowException as error:  # From MLflow 3.12 or so on.
            assert "skops" in str(error)  # noqa: PT017 - older versions take it
        mlflow.sklearn.log_model(model, name="named", serialization_format="cloudpickle", pip_requirements=[])
        trackdsl.log_model(model, "ours")
    assert trackdsl.flush(60)
    assert {"named", "ours"} <= {
        found.name for found in client().search_logged_models(["0"], f"source_run_id = '{run.run_id}'")
    }
    assert all_runs(here)[0].info.status == "FINISHED"
    loaded = mlflow.sklearn.load_model(logged(here, "ours").model_uri)
    assert (loaded.predict(frame) == model.predict(frame)).all()


def test_r85_r86_a_signature_by_hand(sqlite_store: str) -> None:
    """A schema of columns written by hand is what MLflow holds, and what it checks input against."""
    inputs = Schema([ColSpec("double", "feature_1"), ColSpec("double", "feature_2"), ColSpec("string", "category")])
    signature = ModelSignature(inputs=inputs, outputs=Schema([ColSpec("long")]))
    with stage("fit") as run:
        run.log_model(Rounding(), "model", signature=signature)
    deliver()
    info = logged(sqlite_store, "model")
    assert info.signature == signature
    loaded = mlflow.pyfunc.load_model(info.model_uri)
    frame = pd.DataFrame({"feature_1": [0.2, 1.7], "feature_2": [1.0, 2.0], "category": ["a", "b"]})
    assert list(loaded.predict(frame)) == [0, 2]
    with pytest.raises(mlflow.MlflowException, match="category"):
        loaded.predict(frame.drop(columns="category"))


class Rounding(mlflow.pyfunc.PythonModel):  # type: ignore[misc, name-defined]
    def predict(self, context: Any, model_input: Any, params: Any = None) -> Any:
        return model_input["feature_1"].round().astype(int)


def test_r87_an_input_example(sqlite_store: str) -> None:
    """The example is kept with the model, mixed columns and all, and the signature is inferred from it."""
    example = pd.DataFrame(
        {"feature_1": [1.0, 2.0, 3.0], "feature_2": [4.0, 5.0, 6.0], "category": ["A", "B", "C"]}
    )  # fmt: skip
    with stage("fit") as run:
        run.log_model(Rounding(), "model", input_example=example)
    deliver()
    info = logged(sqlite_store, "model")
    loaded = mlflow.pyfunc.load_model(info.model_uri)
    pd.testing.assert_frame_equal(loaded.input_example, example)
    assert info.signature.inputs.input_names() == list(example)
    assert info.signature.outputs is not None


def test_r88_r89_a_custom_model_with_its_preprocessing(sqlite_store: str) -> None:
    """A `PythonModel` holds its scaler and its forest, and asks for the requirements that were given, and no others."""
    frame, label = data()
    scaler = StandardScaler().fit(frame)
    model = RandomForestClassifier(5, random_state=0).fit(scaler.transform(frame), label)
    wanted = ["scikit-learn==1.3.0", "pandas==2.0.0"]
    with stage("fit") as run:
        run.log_model(Scaled(scaler, model), "custom_model", pip_requirements=wanted)
    deliver()
    info = logged(sqlite_store, "custom_model")
    folder = Path(mlflow.artifacts.download_artifacts(info.model_uri))
    assert (folder / "requirements.txt").read_text().split() == wanted
    loaded = mlflow.pyfunc.load_model(info.model_uri)
    assert (loaded.predict(frame) == model.predict(scaler.transform(frame))).all()
    ours = trackdsl.load_model(f"runs:/{info.run_id}/custom_model", trusted=True)
    assert (ours.predict(None, frame) == loaded.predict(frame)).all()

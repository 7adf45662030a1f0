"""How a model is written: what MLflow's flavours take beside the model, and models that cannot be pickled."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import trackdsl
from tests.conftest import StartProgram, all_runs, client, deliver
from trackdsl import OptionError, stage

pytest.importorskip("sklearn")

from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.tree import DecisionTreeClassifier

X = np.arange(12.0).reshape(6, 2)
Y = np.array([0, 1] * 3)


def logged(run_name: str) -> dict[str, Any]:
    """The models of a run, by name, loaded by MLflow as pyfunc."""
    import mlflow

    [run] = [run for run in all_runs() if run.info.run_name == run_name]
    found = client().search_logged_models(["0"])
    return {
        model.name: (model, mlflow.pyfunc.load_model(f"models:/{model.model_id}"))
        for model in found
        if model.source_run_id == run.info.run_id
    }


@pytest.mark.slow
def test_estimators_are_written_as_asked(sqlite_store: str) -> None:
    """`serialization_format` and `pyfunc_predict_fn` of scikit-learn are used; MLflow and trackdsl load the model."""
    import mlflow

    pytest.importorskip("skops")
    tree = DecisionTreeClassifier().fit(X, Y)
    with stage("train") as run:
        for format_ in ("cloudpickle", "pickle", "skops"):
            run.log_model(LinearRegression().fit(X, Y), format_, serialization_format=format_)
        run.log_model(LogisticRegression().fit(X, Y), "proba", pyfunc_predict_fn="predict_proba", input_example=X)
        untrusted = run.log_model(tree, "untrusted", serialization_format="skops")
        run.log_model(tree, "trusted", serialization_format="skops", skops_trusted_types=["sklearn.tree._tree.Tree"])
    deliver()
    mlflow.set_tracking_uri(sqlite_store)
    found = logged("train")
    assert set(found) == {"cloudpickle", "pickle", "skops", "proba", "trusted"}
    for name in ("cloudpickle", "pickle", "skops", "trusted"):
        model, loaded = found[name]
        flavor = loaded.metadata.flavors["sklearn"]
        assert flavor["serialization_format"] == (name if name != "trusted" else "skops")
        np.testing.assert_allclose(loaded.predict(X), mlflow.sklearn.load_model(model.model_uri).predict(X))
        again = trackdsl.load_model(model.model_uri, trusted=True, tracking_uri=sqlite_store)
        np.testing.assert_allclose(loaded.predict(X), again.predict(X))
    assert found["proba"][1].predict(X).shape == (6, 2)
    with pytest.raises(trackdsl.ArtifactError, match=r"skops_trusted_types=\['sklearn.tree._tree.Tree'\]"):
        untrusted.wait()


@pytest.mark.slow
def test_a_python_model_brings_its_artifacts(sqlite_store: str, tmp_path: Path) -> None:
    """A Python model brings its `artifacts` and `model_config`, which its context finds at another path."""
    import mlflow

    class Reading(mlflow.pyfunc.PythonModel):  # type: ignore[misc,name-defined]
        def load_context(self, context: Any) -> None:
            self.paths = [Path(context.artifacts[name]) for name in ("../../file", "folder")]
            self.scale = context.model_config["scale"]

        def predict(self, context: Any, model_input: Any, params: Any = None) -> Any:
            file, folder = self.paths
            return [file.read_text(), (folder / "words.txt").read_text(), self.scale]

    (tmp_path / "words.txt").write_text("one")
    (tmp_path / "a" / "words.txt").mkdir(parents=True)
    (tmp_path / "a" / "words.txt" / "words.txt").write_text("two")
    artifacts = {"../../file": (tmp_path / "words.txt").as_uri(), "folder": tmp_path / "a" / "words.txt"}
    with stage("train") as run:
        run.log_model(
            Reading(), "m", artifacts=artifacts, model_config={"scale": 3}, metadata={"owner": "me"},
            params={"depth": 3}, tags={"kind": "test"}, model_type="reader", extra_pip_requirements=["shap==0.1"],
        )  # fmt: skip
        missing = run.log_model(Reading(), "missing", artifacts={"file": tmp_path / "nowhere.txt"})
    for path in (tmp_path / "words.txt", tmp_path / "a"):
        path.rename(path.with_name(f"moved-{path.name}"))
    deliver()
    mlflow.set_tracking_uri(sqlite_store)
    [(model, loaded)] = logged("train").values()
    assert loaded.predict(["x"]) == ["one", "two", 3]
    assert loaded.metadata.metadata == {"owner": "me"}
    assert (model.params["depth"], model.tags["kind"], model.model_type) == ("3", "test", "reader")
    assert "shap==0.1" in Path(mlflow.artifacts.download_artifacts(model.model_uri), "requirements.txt").read_text()
    with pytest.raises(trackdsl.ArtifactError, match=r"nowhere\.txt"):
        missing.wait()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"serialisation_format": "pickle"}, "did you mean `serialization_format`"),
        ({"serialization_format": "dill"}, "there are 'cloudpickle', 'pickle', 'skops'"),
        ({"conda_env": {}}, "pip_requirements"),
        ({"artifacts": {"a": "b"}}, "takes no 'artifacts' for sklearn"),
        ({"metadata": "me"}, "it takes a dict"),
    ],
)
def test_options_that_the_flavour_does_not_take(options: dict[str, Any], message: str) -> None:
    """An option that is unknown, of another flavour, or has an unknown value, is an error at once."""
    with stage("train") as run, pytest.raises(OptionError, match=message) as raised:
        run.log_model(LinearRegression(), "m", **options)
    assert raised.value.option == next(iter(options))


def test_a_pickle_module_is_a_module() -> None:
    """The name of a pickle module instead of the module is an error at once: the model would be lost."""
    torch = pytest.importorskip("torch")
    with stage("train") as run, pytest.raises(OptionError, match="such as `pickle`"):
        run.log_model(torch.nn.Linear(2, 1), "m", pickle_module="pickle")


@pytest.mark.slow
def test_networks_and_trees_are_written_as_asked(sqlite_store: str) -> None:
    """`pickle_module` of PyTorch, `model_format` of XGBoost and `serialization_format` of LightGBM are used."""
    import mlflow

    torch, xgboost, lightgbm = (pytest.importorskip(name) for name in ("torch", "xgboost", "lightgbm"))
    with stage("train") as run:
        run.log_model(torch.nn.Linear(2, 1), "torch", pickle_module=pickle, input_example=X.astype("float32"))
        run.log_model(xgboost.XGBClassifier(n_estimators=1).fit(X, Y), "xgboost", model_format="json")
        booster = lightgbm.LGBMRegressor(n_estimators=1, verbose=-1).fit(X, Y)
        run.log_model(booster, "lightgbm", serialization_format="pickle")
    deliver()
    mlflow.set_tracking_uri(sqlite_store)
    found = logged("train")
    assert set(found) == {"torch", "xgboost", "lightgbm"}
    for model, loaded in found.values():
        assert len(loaded.predict(X.astype("float32"))) == 6
        assert trackdsl.load_model(model.model_uri, trusted=True, tracking_uri=sqlite_store) is not None
    assert found["torch"][1].metadata.flavors["python_function"]["pickle_module_name"] == "pickle"
    assert found["xgboost"][1].metadata.flavors["xgboost"]["model_format"] == "json"
    assert found["lightgbm"][1].metadata.flavors["lightgbm"]["serialization_format"] == "pickle"


@pytest.mark.slow
def test_a_network_that_cannot_be_pickled_keeps_its_weights(start: StartProgram, sqlite_store: str) -> None:
    """Of a network that cannot be pickled the weights and the source are kept, and a tag says so."""
    import mlflow

    torch = pytest.importorskip("torch")
    program = start(
        """
        import threading, torch, trackdsl
        lock = threading.Lock()

        class Base(torch.nn.Module):
            def __init__(self):
                super().__init__()
                self.layer = torch.nn.Linear(2, 1)

        class Net(Base):
            def forward(self, x):
                with lock:
                    return self.layer(x)

        net = Net()
        with torch.no_grad():
            net.layer.weight.fill_(3.0)
        with trackdsl.stage("train") as run:
            recorded = run.log_model(net, "net")
            for wrapped in (torch.nn.DataParallel(net), torch.compile(net)):
                assert set(run.log_model(wrapped, "wrapped").load()) == set(net.state_dict())
        print(recorded.uri)
        print(float(recorded.load()["layer.weight"].sum()))
        """,
        TRACKDSL_MODE="online",
        TRACKDSL_TRACKING_URI=sqlite_store,
    )
    code, out, err = program.finish()
    assert code == 0, err
    uri, total = out.split()
    assert float(total) == 6.0
    mlflow.set_tracking_uri(sqlite_store)
    assert mlflow.pytorch.load_state_dict(uri)["layer.weight"].tolist() == [[3.0, 3.0]]
    source = Path(mlflow.artifacts.download_artifacts(uri), "source.py").read_text()
    assert -1 < source.index("class Base") < source.index("class Net")
    [run] = all_runs(sqlite_store)
    assert "load_state_dict" in run.data.tags["trackdsl.omitted.net"]
    assert torch.nn.Linear(2, 1).state_dict().keys() == {"weight", "bias"}

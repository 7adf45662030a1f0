"""scikit-learn estimators → MLflow's `sklearn` flavour, by cloudpickle.

Not skops: it takes 25 times as long for a forest, MLflow 3.1 cannot load it, and every tree is a type that its loader
must be told to trust (skops 0.15), while MLflow reads what to trust from the model itself.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from trackdsl.handlers._flavor import Flavor, Inputs, ModelHandler, constructor_summary, dump, load_pickle
from trackdsl.handlers._registry import Scalar

_FILE = "model.pkl"


class _Estimator(ModelHandler):
    def summary(self, value: Any) -> Scalar:
        return constructor_summary(value)

    def save_model(self, value: Any, folder: Path) -> Flavor:
        import cloudpickle
        import sklearn

        packages = dump(value, folder / _FILE)
        return Flavor(
            "sklearn",
            {
                "pickled_model": _FILE,
                "sklearn_version": sklearn.__version__,
                "serialization_format": "cloudpickle",
                "code": None,
            },
            {"loader_module": "mlflow.sklearn", "model_path": _FILE, "predict_fn": "predict"}
            if hasattr(value, "predict")
            else None,
            ("sklearn", cloudpickle.__name__, *packages),
        )

    def inputs(self, value: Any) -> Inputs:
        names = getattr(value, "feature_names_in_", None)
        return Inputs(None if names is None else tuple(names), getattr(value, "n_features_in_", None))

    def read_folder(self, folder: Path) -> Any:
        return load_pickle(folder / _FILE)


handler = _Estimator()

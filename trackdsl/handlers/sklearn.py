"""scikit-learn estimators → MLflow's `sklearn` flavour, with cloudpickle.

skops is not the default: it takes 25 times as long for a forest, MLflow 3.1 cannot load it, and it adds no safety,
because MLflow reads the list of trusted types from the model itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from trackdsl.handlers._constructor import constructor_summary
from trackdsl.handlers._flavor import FORMATS, Flavor, Inputs
from trackdsl.handlers._handler import Scalar
from trackdsl.handlers._model_files import read_estimator, write_estimator
from trackdsl.handlers._model_handler import ModelHandler
from trackdsl.handlers._pickled import Pickled


class _Estimator(ModelHandler):
    save_options: ClassVar[Mapping[str, tuple[str, ...]]] = {**FORMATS, "pyfunc_predict_fn": ()}

    def summary(self, value: Any) -> Scalar:
        return constructor_summary(value)

    def save_model(self, value: Any, folder: Path, pyfunc_predict_fn: str = "predict", **options: Any) -> Flavor:
        import sklearn

        file, packages = write_estimator(value, folder, **options)
        flavor = {
            "pickled_model": file,
            "sklearn_version": sklearn.__version__,
            "serialization_format": options.get("serialization_format", "cloudpickle"),
            "skops_trusted_types": options.get("skops_trusted_types"),
            "code": None,
        }
        pyfunc = {"loader_module": "mlflow.sklearn", "model_path": file, "predict_fn": pyfunc_predict_fn}
        return Flavor("sklearn", flavor, pyfunc if hasattr(value, pyfunc_predict_fn) else None, ("sklearn", *packages))

    def inputs(self, value: Any) -> Inputs:
        names = getattr(value, "feature_names_in_", None)
        return Inputs(None if names is None else tuple(names), getattr(value, "n_features_in_", None))

    def prepare(self, value: Any, example: Any) -> Any:
        if type(example) is list and all(isinstance(text, str) for text in example):
            import numpy as np

            # MLflow turns a list into a frame, and a vectorizer would iterate over the column names of that frame.
            return np.array(example)
        return example

    def read_folder(self, folder: Path) -> Any:
        return read_estimator(folder)


class _Configured(Pickled):
    """Objects that are not estimators but keep the arguments of their constructor: kernels, splitters of data."""

    def summary(self, value: Any) -> Scalar:
        return constructor_summary(value)


handler = _Estimator()
configured = _Configured()

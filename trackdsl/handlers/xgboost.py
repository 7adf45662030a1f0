"""XGBoost boosters and estimators → MLflow's `xgboost` flavour, in XGBoost's own format, which contains no code."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from trackdsl.handlers._constructor import constructor_summary
from trackdsl.handlers._flavor import Flavor, Inputs
from trackdsl.handlers._handler import Scalar
from trackdsl.handlers._model_handler import ModelHandler

_FILES = ("model.ubj", "model.json")
#: A file with the class name of the estimator. XGBoost's own format does not distinguish forests from boosted trees.
_CLASS = "estimator.txt"
_BY_TYPE = {"classifier": "XGBClassifier", "regressor": "XGBRegressor", "ranker": "XGBRanker"}
_ESTIMATORS = frozenset([*_BY_TYPE.values(), "XGBRFClassifier", "XGBRFRegressor"])


class _XGBoost(ModelHandler):
    suffix = ".ubj"
    suffixes = (".json",)
    executes = False
    save_options: ClassVar[Mapping[str, tuple[str, ...]]] = {"model_format": ("ubj", "json")}

    def summary(self, value: Any) -> Scalar:
        if hasattr(value, "get_params"):
            return constructor_summary(value)
        return f"Booster({value.num_boosted_rounds()} rounds, {value.num_features()} features)"

    def write(self, value: Any, path: Path) -> None:
        value.save_model(path)

    def read(self, path: Path) -> Any:
        import xgboost

        file = next(file for name in _FILES if (file := path / name).exists()) if path.is_dir() else path
        booster = xgboost.Booster(model_file=file)
        # An attribute that XGBoost's estimators write, see `XGBModel.save_model`.
        estimator_type = json.loads(booster.attr("scikit_learn") or "{}").get("_estimator_type")
        name = _BY_TYPE.get(estimator_type)
        note = path / _CLASS
        if note.is_file() and note.read_text() in _ESTIMATORS:
            name = note.read_text()
        if name is None:
            return booster
        estimator = getattr(xgboost, name)()
        estimator.load_model(file)
        return estimator

    def save_model(self, value: Any, folder: Path, model_format: str = "ubj") -> Flavor:
        import xgboost

        name = f"model.{model_format}"
        value.save_model(folder / name)
        # A subclass of the user could not be loaded elsewhere, so its base class in XGBoost is recorded.
        kind = next(base for base in type(value).__mro__ if base.__module__.startswith("xgboost."))
        if kind.__name__ in _ESTIMATORS:
            (folder / _CLASS).write_text(kind.__name__)
        return Flavor(
            "xgboost",
            {
                "xgb_version": xgboost.__version__,
                "data": name,
                "model_class": f"{kind.__module__}.{kind.__qualname__}",
                "model_format": model_format,
                "code": None,
            },
            {"loader_module": "mlflow.xgboost", "data": name},
            ("xgboost", "sklearn") if hasattr(value, "get_params") else ("xgboost",),
        )

    def inputs(self, value: Any) -> Inputs:
        booster = value.get_booster() if hasattr(value, "get_booster") else value
        names = booster.feature_names
        return Inputs(None if names is None else tuple(names), booster.num_features())

    def predict(self, copied: Any, example: Any) -> Any:
        if hasattr(copied, "get_params"):
            return copied.predict(example)
        import xgboost

        return copied.predict(xgboost.DMatrix(example))


handler = _XGBoost()

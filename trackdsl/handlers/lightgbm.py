"""LightGBM → MLflow's `lightgbm` flavour. Boosters are written as text without code, estimators are pickled."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from trackdsl.handlers._constructor import constructor_summary
from trackdsl.handlers._flavor import FORMATS, Flavor, Inputs
from trackdsl.handlers._handler import Scalar
from trackdsl.handlers._model_files import read_estimator, write_estimator
from trackdsl.handlers._model_handler import ModelHandler

_TEXT = "model.lgb"


class _Booster(ModelHandler):
    suffix = ".txt"
    executes = False

    def summary(self, value: Any) -> Scalar:
        return f"Booster({value.num_trees()} trees, {value.num_feature()} features)"

    def write(self, value: Any, path: Path) -> None:
        value.save_model(path)

    def read(self, path: Path) -> Any:
        import lightgbm

        return lightgbm.Booster(model_file=path / _TEXT if path.is_dir() else path)

    def save_model(self, value: Any, folder: Path) -> Flavor:
        value.save_model(folder / _TEXT)
        return _flavor("lightgbm.basic.Booster", _TEXT, ("lightgbm",))

    def inputs(self, value: Any) -> Inputs:
        return _named(value.feature_name(), value.num_feature())


class _Estimator(ModelHandler):
    save_options: ClassVar[Mapping[str, tuple[str, ...]]] = FORMATS

    def summary(self, value: Any) -> Scalar:
        return constructor_summary(value)

    def save_model(self, value: Any, folder: Path, **options: Any) -> Flavor:
        file, packages = write_estimator(value, folder, **options)
        kind = type(value)
        return _flavor(f"{kind.__module__}.{kind.__qualname__}", file, ("lightgbm", "sklearn", *packages), **options)

    def inputs(self, value: Any) -> Inputs:
        return _named(value.feature_name_, value.n_features_in_)

    def read_folder(self, folder: Path) -> Any:
        return read_estimator(folder)


def _flavor(
    kind: str,
    file: str,
    packages: tuple[str, ...],
    serialization_format: str = "cloudpickle",
    skops_trusted_types: list[str] | None = None,
) -> Flavor:
    import lightgbm

    return Flavor(
        "lightgbm",
        {
            "lgb_version": lightgbm.__version__,
            "data": file,
            "model_class": kind,
            "serialization_format": serialization_format,
            "skops_trusted_types": skops_trusted_types,
            "code": None,
        },
        {"loader_module": "mlflow.lightgbm", "data": file},
        packages,
    )


def _named(names: list[str], count: int) -> Inputs:
    # LightGBM gives these names to columns without names.
    return Inputs(None if list(names) == [f"Column_{index}" for index in range(count)] else tuple(names), count)


booster = _Booster()
estimator = _Estimator()

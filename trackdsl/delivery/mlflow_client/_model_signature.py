"""The signature and the input example of a model: written, and read back in the way of `mlflow.pyfunc`.

MLflow infers signatures that later reject the same data (categories, integers with missing values, times with a zone),
and writes examples that change when they are read. What does not fit is left out, so that the model accepts its own
data. The model itself is never loaded.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from trackdsl._core.redaction import mask_text
from trackdsl.errors import format_error, reraise_from_signal
from trackdsl.handlers import _example_files

#: The files of MLflow's examples.
_FILES = ("input_example.json", "serving_input_example.json")
#: How many rows are compared.
_ROWS = 1000


class Misfit(Exception):
    """The data differs after it was written and read."""


def add_example(described: Any, spec: dict[str, Any], folder: Path, path: Path) -> dict[str, str]:
    """Give a model its signature and its input example, as far as they fit.

    Args:
        described: the `mlflow.models.Model`.
        spec: the recorded description of the model.
        folder: its snapshot.
        path: the folder of the MLflow model.

    Returns:
        what is left out, `signature` or `example`, with the reasons.
    """
    omitted: dict[str, str] = {}
    try:
        example, answer = (
            None if spec[part] is None else _example_files.read(spec[part], folder) for part in ("example", "answer")
        )
    except Exception as error:
        reraise_from_signal(error)
        return {"example": mask_text(format_error(error))}
    given = spec["signature"]
    try:
        described.signature = _given(given) if given else _inferred(example, answer, spec["params"], spec["flavor"])
    except Exception as error:  # The signature does not fit, or MLflow cannot infer one.
        reraise_from_signal(error)
        omitted["signature"] = mask_text(format_error(error))
    if example is not None:
        try:
            _save(described, example, spec["params"], path)
            _check_example(described, example, spec["flavor"], path)
        except Exception as error:
            reraise_from_signal(error)
            omitted["example"] = mask_text(format_error(error))
            described.saved_input_example_info = None
            for name in _FILES:
                (path / name).unlink(missing_ok=True)
    return omitted


def _given(signature: dict[str, Any]) -> Any:
    from mlflow.models import ModelSignature

    return ModelSignature.from_dict(signature)


def _inferred(example: Any, answer: Any, params: dict[str, Any] | None, flavor: str) -> Any:
    """The signature that MLflow infers; None if there is no example.

    Raises:
        Exception: the example does not fit its own signature.
    """
    from mlflow.models import infer_signature

    if example is None:
        return None
    try:
        signature = infer_signature(example, answer, params)
    except Exception:  # Perhaps because of the answer, which is not checked.
        signature = infer_signature(example, None, params)
    signature = _given(signature.to_dict())
    taken = _enforced(example, signature, flavor)
    if hasattr(example, "columns") and list(getattr(taken, "columns", ())) != list(example.columns):
        raise Misfit(f"MLflow would pass only the columns {list(getattr(taken, 'columns', ()))}")
    return signature


def _save(described: Any, example: Any, params: dict[str, Any] | None, path: Path) -> None:
    from mlflow.models.utils import _save_example  # The only public way needs the model itself.

    _save_example(described, example if params is None else (example, params), str(path))


def _check_example(described: Any, example: Any, flavor: str, path: Path) -> None:
    """Compare the example with the data that a model would get from the written example.

    Raises:
        Exception: it differs, or MLflow does not accept it.
    """
    read = described.load_input_example(str(path))
    if described.signature is not None and described.signature.inputs is not None:
        read = _enforced(read, described.signature, flavor)
    if not _alike(example, read):
        raise Misfit(f"MLflow reads it back as {_described(read)}, but it is {_described(example)}")


def _enforced(data: Any, signature: Any, flavor: str) -> Any:
    from mlflow.models.utils import _enforce_schema

    return _enforce_schema(data[:_ROWS] if hasattr(data, "iloc") else data, signature.inputs, flavor)


def _alike(example: Any, read: Any) -> bool:
    """Whether a model can use one instead of the other."""
    if hasattr(example, "columns"):
        if list(example.columns) != list(getattr(read, "columns", ())) or len(example[:_ROWS]) != len(read[:_ROWS]):
            return False
        return all(_same_column(example[name][:_ROWS], read[name][:_ROWS]) for name in example.columns)
    if hasattr(example, "dtype") and hasattr(example, "shape"):
        if getattr(read, "shape", None) != example.shape:
            return False
        return hasattr(example, "tocsr") == hasattr(read, "tocsr") and _kind(example.dtype) == _kind(read.dtype)
    return True


def _same_column(one: Any, other: Any) -> bool:
    kind = _kind(one.dtype)
    if kind != _kind(other.dtype):
        return False
    return kind == "number" or all(map(_same_cell, one.tolist(), other.tolist()))


def _same_cell(one: Any, other: Any) -> bool:
    if _is_missing(one) or _is_missing(other):
        return _is_missing(one) and _is_missing(other)
    one, other = (cell.tolist() if hasattr(cell, "tolist") else cell for cell in (one, other))
    return bool(one == other)


def _kind(dtype: Any) -> str:
    """The kinds of values that models distinguish: numbers of any size count as the same kind."""
    name = str(dtype).lower()
    kind = getattr(dtype, "kind", "O")
    if (
        name == "category"
        or name.startswith(("period", "interval", "sparse"))
        or getattr(dtype, "tz", None) is not None
    ):
        return name
    if kind in "iuf" or name.startswith(("int", "uint", "float", "double")):
        return "number"
    if kind in "OUST" or name.startswith(("str", "object")):
        return "text"
    return {"b": "truth value", "M": "time"}.get(kind, name)


def _is_missing(value: Any) -> bool:
    return (
        value is None
        or type(value).__name__ in ("NAType", "NaTType")
        or (isinstance(value, float) and math.isnan(value))
    )


def _described(data: Any) -> str:
    if hasattr(data, "columns"):
        return ", ".join(f"{name}: {data.dtypes.iloc[index]}" for index, name in enumerate(data.columns))[:300]
    return f"{type(data).__name__} {getattr(data, 'dtype', '')}{getattr(data, 'shape', '')}"

"""Arrays of libraries that have no handler of their own, such as JAX, TensorFlow, xarray and h5py."""

from __future__ import annotations

import math
from typing import Any

from trackdsl.handlers._array_digest import short_digest
from trackdsl.handlers._dataset import with_digest
from trackdsl.handlers._handler import MAX_CELLS, NEEDS_OWN_FILE, Placeholder, Scalar
from trackdsl.handlers._pickled import NOT_READ
from trackdsl.handlers._types import class_name, is_array_like, offers

#: Libraries whose arrays may be in files or not computed yet.
_LAZY = ("h5py", "zarr", "dask", "netCDF4", "tables", "tensorstore")
#: Libraries whose arrays NumPy can convert.
_CONVERTIBLE = ("jax", "jaxlib", "tensorflow", "cupy", "xarray")
_MAX_DTYPE = 60
_PLAIN = (bool, int, float, str, type(None))


def content_of_array(value: Any) -> Any:
    """An array as an array of NumPy; a `Placeholder` if it is not in memory; `NEEDS_OWN_FILE` for any other value."""
    kind = type(value)
    if not (is_array_like(kind) and offers(kind, "dtype") and offers(kind, "__array__")):
        return NEEDS_OWN_FILE
    if not _is_in_memory(value):
        return Placeholder(str(summary_of_array(value)), NOT_READ, missing=False)
    if _library_of(kind) not in _CONVERTIBLE or math.prod(value.shape) > MAX_CELLS:
        return NEEDS_OWN_FILE
    import numpy as np

    return np.asarray(value)


def summary_of_array(value: Any) -> Scalar:
    """The number in a 0-d array or a scalar like NumPy's; type and shape of any other array; else the class."""
    kind = type(value)
    shape = value.shape
    if shape == () and offers(kind, "item"):
        item = value.item()
        if type(item) in _PLAIN:
            return item  # type: ignore[no-any-return]
    if not offers(kind, "dtype") or type(shape) is not tuple or not all(type(size) is int for size in shape):
        return class_name(value)
    dtype = str(value.dtype)
    if len(dtype) > _MAX_DTYPE:
        return class_name(value)
    text = f"{kind.__qualname__} {dtype} {shape}"
    return with_digest(text, lambda: _digest_of(value)) if _library_of(kind) == "xarray" else text


def _digest_of(value: Any) -> str:
    import numpy as np

    if not _is_in_memory(value):
        raise TypeError(NOT_READ)
    return short_digest(np.asarray(value))


def _library_of(kind: type) -> str:
    return kind.__module__.partition(".")[0]


def _is_in_memory(value: Any) -> bool:
    """Whether an array is neither in a file nor still to be computed."""
    library = _library_of(type(value))
    if library == "xarray":
        return bool(getattr(value.variable, "_in_memory", False))
    return library not in _LAZY

"""Anything → cloudpickle. Nothing is ever unpickled unasked."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from trackdsl.handlers._dataset import with_digest
from trackdsl.handlers._registry import (
    APART,
    MAX_CELLS,
    Handler,
    Scalar,
    Stated,
    class_name,
    handler_for,
    is_array_like,
    offers,
)

#: Why there is a line instead of data.
NOT_READ = "its data is not in memory, and was not read"
#: Libraries whose arrays are in files or yet to be computed, and those whose arrays NumPy takes as they are.
_LAZY = ("h5py", "zarr", "dask", "netCDF4", "tables", "tensorstore")
_ARRAYS = ("jax", "jaxlib", "tensorflow", "cupy", "xarray")
_MAX_DTYPE = 60
_PLAIN = (bool, int, float, str, type(None))


class Pickled(Handler):
    """The base of handlers whose values have no file format of their own."""

    suffix = ".pkl"
    executes = True

    def write(self, value: Any, path: Path) -> None:
        """See `Handler`."""
        import cloudpickle

        with open(path, "xb") as file:
            cloudpickle.dump(value, file)

    def read(self, path: Path) -> Any:
        """See `Handler`."""
        import pickle

        with open(path, "rb") as file:
            return pickle.load(file)  # noqa: S301 - the caller has checked its hash, and was asked to


class _Anything(Pickled):
    def content(self, value: Any) -> Any:
        """Lists for an array in memory, a line for one that is not; of all else nothing is known."""
        kind = type(value)
        if not (is_array_like(kind) and offers(kind, "dtype") and offers(kind, "__array__")):
            return APART
        if not _is_in_memory(value):
            return Stated(str(self.summary(value)), NOT_READ, missing=False)
        if root_of(kind) not in _ARRAYS or math.prod(value.shape) > MAX_CELLS:
            return APART
        import numpy as np

        return np.asarray(value)

    def summary(self, value: Any) -> Scalar:
        """The number in what looks like a NumPy scalar or a 0-d array, type and shape of an array; else the class."""
        kind = type(value)
        if not is_array_like(kind):
            return _named(value) if offers(kind, "__call__") else class_name(value)
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
        return with_digest(text, lambda: _digest_of(value)) if root_of(kind) == "xarray" else text


def _named(value: Any) -> str:
    """The class of what can be called, with what it holds and the function that it wraps, see `update_wrapper`."""
    from trackdsl.handlers.functions import attributes_of  # It is made of what is defined here.

    try:
        inner = object.__getattribute__(value, "__dict__").get("__wrapped__")
    except AttributeError:
        inner = None
    if not callable(inner) or type(inner) is type(value):
        return f"{class_name(value)}{attributes_of(value)}"
    return f"{class_name(value)}({handler_for(type(inner)).summary(inner)})"


def _digest_of(value: Any) -> str:
    """The digest of an array of xarray; none where that is in a file or still to be computed."""
    import numpy as np

    from trackdsl.handlers.numpy import short_digest

    if not _is_in_memory(value):
        raise TypeError(NOT_READ)
    return short_digest(np.asarray(value))


def root_of(kind: type) -> str:
    """The name of the library that a type is of."""
    return kind.__module__.partition(".")[0]


def _is_in_memory(value: Any) -> bool:
    """Whether an array is neither in a file nor still to be computed."""
    root = root_of(type(value))
    if root == "xarray":
        return bool(getattr(value.variable, "_in_memory", False))
    return root not in _LAZY


handler = _Anything()

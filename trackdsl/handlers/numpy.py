"""NumPy arrays → `.npy` files, which never contain a pickle; NumPy's numbers → numbers.

If the user chose such a path, an array of one or two dimensions is written as text (`.csv`, `.tsv`, `.txt`) or as lists
(`.json`), with its type in a small file next to it; and a dict of arrays as one `.npz` file.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trackdsl.handlers import _sidecar
from trackdsl.handlers._array_digest import arrays_profile, name_of_dtype, short_digest
from trackdsl.handlers._content import content_of
from trackdsl.handlers._dataset import DatasetProfile, one_line, with_digest
from trackdsl.handlers._handler import MAX_CELLS, NEEDS_OWN_FILE, Handler, Scalar
from trackdsl.handlers._line import line_of
from trackdsl.handlers._plain import is_plain, is_scalar
from trackdsl.handlers._types import class_name, full_name
from trackdsl.handlers.json import Json, write_json
from trackdsl.handlers.scalars import duration_text

#: An array of up to this many values is shown completely.
_MAX_SHOWN = 20
_DELIMITERS = {".csv": ",", ".tsv": "\t", ".txt": None}


class _Array(Handler):
    suffix = ".npy"
    suffixes = (".npz", ".csv", ".tsv", ".txt", ".json")

    def accepts(self, value: Any) -> bool:
        """Reject objects, which would be pickled, and subclasses, whose mask or unit would be lost."""
        import numpy as np

        return type(value) in (np.ndarray, np.memmap) and _is_kept_by_npy(value.dtype)

    def content(self, value: Any) -> Any:
        """Lists, unless they would be very long. Rows of a structured array become dicts."""
        import numpy as np

        kind = value.dtype.kind
        if value.size > MAX_CELLS or (kind in "SV" and not value.dtype.names):
            return NEEDS_OWN_FILE
        if value.dtype.names:
            return _records(value, value.dtype.names)
        if kind == "M":
            texts = np.asarray(np.datetime_as_string(value)).astype(object)
            texts[np.isnat(value)] = None
            return texts.tolist()
        if kind == "m":
            return list(value) if value.ndim else value[()]
        return (value.astype(float) if kind == "f" else value).tolist()

    def summary(self, value: Any) -> Scalar:
        kind = type(value)
        if value.shape == () and value.dtype.kind in "biufU" and kind.__name__ == "ndarray":
            return scalar.summary(value)
        name = kind.__qualname__ if kind.__module__.partition(".")[0] == "numpy" else class_name(value)
        text = f"{name} {name_of_dtype(value.dtype)} {value.shape}"
        if _is_on_disk(value):
            return one_line(text)
        if kind.__name__ == "ndarray":
            return with_content(text, value)
        return with_digest(one_line(text), lambda: short_digest(value))

    def write(self, value: Any, path: Path) -> None:
        import numpy as np

        if path.suffix == ".json":
            write_json(content_of(value.tolist() if value.dtype.kind in "biufU" else value), path)
            _write_types(value, path)
            return
        with open(path, "xb") as file:
            if path.suffix == ".npz":
                arrays = value if isinstance(value, Mapping) else {"arr_0": value}
                refused = [name for name, array in arrays.items() if not self.accepts(array)]
                if refused:
                    raise TypeError(f"these are not plain numeric arrays: {refused[:5]}")
                _write_npz(file, arrays)
            elif path.suffix in _DELIMITERS:
                # `%s` is the shortest text that is read back as the same number.
                np.savetxt(file, value, fmt="%s", delimiter=_DELIMITERS[path.suffix] or " ", encoding="utf-8")
            else:
                np.lib.format.write_array(file, np.asarray(value), allow_pickle=False)
        if path.suffix in _DELIMITERS:
            _write_types(value, path)

    def read(self, path: Path) -> Any:
        import numpy as np

        types = _sidecar.types_of(path)
        if "dtype" in types and 0 in types["shape"]:
            return np.empty(types["shape"], types["dtype"])
        if path.suffix == ".json":
            import json

            plain = np.array(json.loads(path.read_text(encoding="utf-8")))
            return _retyped(plain, types) if "dtype" in types else plain
        if path.suffix in _DELIMITERS:
            if "dtype" in types:
                texts = np.loadtxt(path, dtype=str, delimiter=_DELIMITERS[path.suffix], comments=None, encoding="utf-8")
                return _retyped(texts, types)
            return np.genfromtxt(path, dtype=None, delimiter=_DELIMITERS[path.suffix], encoding="utf-8", comments="\0")
        if path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as file:
                arrays = {name: file[name] for name in file.files}
            return arrays["arr_0"] if list(arrays) == ["arr_0"] else arrays
        return np.load(path, allow_pickle=False)

    def dataset(self, value: Any) -> DatasetProfile | None:
        return arrays_profile({None: value})

    def dataset_of_parts(self, parts: Mapping[Any, Any]) -> DatasetProfile | None:
        plain = all(full_name(type(part)) == "numpy.ndarray" for part in parts.values())
        return arrays_profile(parts) if plain else None


class _Scalar(Json):
    """A scalar of NumPy. One that JSON has no number for is shown as text, and stored as a pickle."""

    def accepts(self, value: Any) -> bool:
        return is_plain(value.item()) and value.dtype.kind in "biufU"

    def content(self, value: Any) -> Any:
        import numpy as np

        kind = value.dtype.kind
        if kind in "biu":
            return value.item()
        if kind == "f":
            return float(value)
        if kind in "mM" and np.isnat(value):
            return None
        if kind == "m":
            duration = value.astype("m8[us]").item()
            return duration_text(duration) if hasattr(duration, "days") else str(value)
        if kind == "V" and value.dtype.names:
            return {name: value[name] for name in value.dtype.names}
        return NEEDS_OWN_FILE if kind in "SV" else str(complex(value) if kind == "c" else value)

    def summary(self, value: Any) -> Scalar:
        if value.dtype.kind == "V":
            return f"{class_name(value)} of {value.dtype.itemsize} bytes"
        item = value.item() if value.dtype.kind in "biufU" else None
        return item if is_scalar(item) and item is not None else one_line(str(value))

    def write(self, value: Any, path: Path) -> None:
        write_json(value.item(), path)


def _records(array: Any, names: tuple[str, ...]) -> Any:
    """The rows of a structured array as dicts, in lists of the array's shape."""
    if array.ndim:
        return [_records(part, names) for part in array]
    return {name: array[name][()] for name in names}


def with_content(text: str, array: Any) -> str:
    """The summary of an array: its values as JSON if there are few, else its type, its shape and a digest.

    Args:
        text: the type and shape of the array.
        array: a plain array in memory.
    """
    if array.size > _MAX_SHOWN or array.dtype.kind not in "biufcUmM":
        return with_digest(one_line(text), lambda: short_digest(array))
    line = line_of(_plain_items(array))[0]
    return line if array.ndim == 1 else f"{text} {line}"


def _plain_items(array: Any) -> list[Any]:
    """The values of an array as lists; numbers of less than 64 bits with the digits that NumPy prints."""
    if array.ndim > 1:
        return [_plain_items(part) for part in array]
    if array.dtype.kind == "f" and array.dtype.itemsize < 8:
        return [float(str(value)) for value in array]
    return [str(value) for value in array] if array.dtype.kind in "mMc" else array.tolist()


def _is_on_disk(array: Any) -> bool:
    """Whether an array, or the array that it is a view of, is mapped from a file."""
    import numpy as np

    for _ in range(10):
        if isinstance(array, np.memmap):
            return True
        array = getattr(array, "base", None)
    return False


def _write_types(array: Any, path: Path) -> None:
    """Write the type and the shape of an array next to the text file that it was written to."""
    import numpy as np

    def differs() -> str:
        if not array.size and not _sidecar.types_of(path):
            return "an empty text file cannot hold the dtype"
        read_back = handler.read(path)
        if (read_back.dtype, read_back.shape) != (array.dtype, array.shape):
            return f"{read_back.dtype} {read_back.shape} instead of {array.dtype} {array.shape}"
        same = np.array_equal(read_back, array, equal_nan=array.dtype.kind in "fcmM")
        return "" if same else "some values change when written as text"

    def describe() -> dict[str, Any]:
        if array.dtype.names:
            raise TypeError("a structured array cannot be read back from text")
        return {"dtype": array.dtype.str, "shape": list(array.shape)}

    _sidecar.write_types(path, differs, describe)


def _retyped(array: Any, types: Mapping[str, Any]) -> Any:
    """An array of texts, or one read from JSON, with its original type and shape."""
    import numpy as np

    dtype = np.dtype(types["dtype"])
    if array.dtype.kind in "UO" and dtype.kind in "bc":  # NumPy cannot convert such text itself.
        make = "True".__eq__ if dtype.kind == "b" else complex
        array = np.array([make(text) for text in array.ravel().tolist()])
    return array.astype(dtype).reshape(types["shape"])


def _is_kept_by_npy(dtype: Any) -> bool:
    """Whether `.npy` keeps this dtype. It keeps neither objects nor types such as bfloat16."""
    from numpy.lib import format as npy

    if dtype.hasobject or dtype.kind == "T":
        return False
    try:
        return bool(npy.descr_to_dtype(npy.dtype_to_descr(dtype)) == dtype) and dtype.metadata is None
    except (TypeError, ValueError):
        return False


def _write_npz(file: Any, arrays: Mapping[Any, Any]) -> None:
    """Write arrays by name. `numpy.savez` cannot: some names are its own parameters."""
    import zipfile

    import numpy as np

    with zipfile.ZipFile(file, "w", allowZip64=True) as folder:
        for name, array in arrays.items():
            with folder.open(f"{name}.npy", "w", force_zip64=True) as part:
                np.lib.format.write_array(part, np.asanyarray(array), allow_pickle=False)


handler = _Array()
scalar = _Scalar()

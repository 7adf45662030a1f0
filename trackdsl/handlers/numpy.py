"""NumPy arrays → `.npy`, never with a pickle inside; NumPy's numbers → numbers.

As `.csv` and `.txt` an array of one or two dimensions is text, and as `.json` lists: reading those finds the type anew.
A dict of arrays is one `.npz` where a path with that suffix was chosen.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from trackdsl.handlers import _sidecar
from trackdsl.handlers._dataset import DatasetProfile, one_line, tensor_profile, with_digest
from trackdsl.handlers._digest import GROUP, Digest, feed_objects
from trackdsl.handlers._line import digest_of, line_of
from trackdsl.handlers._registry import APART, MAX_CELLS, Handler, Scalar, class_name
from trackdsl.handlers.json import Json, is_plain, is_scalar, write_json
from trackdsl.handlers.scalars import duration_text

#: Bytes of a piece that is copied: it stays in the processor's cache until it is hashed.
PIECE = 1 << 19
#: An array of so many values is shown whole.
_MAX_SHOWN = 20
#: Of an array of more bytes than this, about so many values go into its short digest.
_MAX_DIGESTED = 1 << 19
_SAMPLE = 2048
_DELIMITERS = {".csv": ",", ".tsv": "\t", ".txt": None}


class _Array(Handler):
    suffix = ".npy"
    suffixes = (".npz", ".csv", ".tsv", ".txt", ".json")

    def accepts(self, value: Any) -> bool:
        """No objects, which would be pickled, and no subclass, whose mask or unit would be lost."""
        import numpy as np

        return type(value) in (np.ndarray, np.memmap) and _is_told_by_npy(value.dtype)

    def content(self, value: Any) -> Any:
        """Lists, unless they would be very long; rows with fields by the names of those."""
        import numpy as np

        kind = value.dtype.kind
        if value.size > MAX_CELLS or (kind in "SV" and not value.dtype.names):
            return APART
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
            from trackdsl.handlers._content import content_of  # It looks into values by what is defined here.

            write_json(content_of(value.tolist() if value.dtype.kind in "biufU" else value), path)
            _note_types(value, path)
            return
        with open(path, "xb") as file:
            if path.suffix == ".npz":
                arrays = value if isinstance(value, Mapping) else {"arr_0": value}
                refused = [name for name, array in arrays.items() if not self.accepts(array)]
                if refused:
                    raise TypeError(f"no plain array of numbers: {refused[:5]}")
                _write_npz(file, arrays)
            elif path.suffix in _DELIMITERS:
                # `%s` is the shortest text that gives back the same number.
                np.savetxt(file, value, fmt="%s", delimiter=_DELIMITERS[path.suffix] or " ", encoding="utf-8")
            else:
                np.lib.format.write_array(file, np.asarray(value), allow_pickle=False)
        if path.suffix in _DELIMITERS:
            _note_types(value, path)

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
                found = {name: file[name] for name in file.files}
            return found["arr_0"] if list(found) == ["arr_0"] else found
        return np.load(path, allow_pickle=False)

    def dataset(self, value: Any) -> DatasetProfile | None:
        return arrays_profile({None: value})


class _Scalar(Json):
    """A number of NumPy's own; what is no number to JSON is told as text, and kept as a pickle."""

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
            spent = value.astype("m8[us]").item()
            return duration_text(spent) if hasattr(spent, "days") else str(value)
        if kind == "V" and value.dtype.names:
            return {name: value[name] for name in value.dtype.names}
        return APART if kind in "SV" else str(complex(value) if kind == "c" else value)

    def summary(self, value: Any) -> Scalar:
        if value.dtype.kind == "V":
            return f"{class_name(value)} of {value.dtype.itemsize} bytes"
        item = value.item() if value.dtype.kind in "biufU" else None
        return item if is_scalar(item) and item is not None else one_line(str(value))

    def write(self, value: Any, path: Path) -> None:
        write_json(value.item(), path)


def _records(array: Any, names: tuple[str, ...]) -> Any:
    """Rows with fields as dicts, in lists of the array's shape."""
    if array.ndim:
        return [_records(part, names) for part in array]
    return {name: array[name][()] for name in names}


def with_content(text: str, array: Any) -> str:
    """What is shown of an array: its values where they are few, as JSON, else its type and shape, and a digest.

    Args:
        text: its type and shape.
        array: a plain array, in memory.
    """
    if array.size > _MAX_SHOWN or array.dtype.kind not in "biufcUmM":
        return with_digest(one_line(text), lambda: short_digest(array))
    line = line_of(_plain_items(array))[0]
    return line if array.ndim == 1 else f"{text} {line}"


def short_digest(array: Any) -> str:
    """Eight digits that are the same in every process for the same array; of a sample of one that is large.

    The sample is the beginning, the end, and values at even steps between them: two large arrays that differ elsewhere
    alone read the same.
    """
    import numpy as np
    import xxhash

    if type(array) is not np.ndarray and isinstance(array, np.ma.MaskedArray):
        if array.nbytes > _MAX_DIGESTED:
            array = array.reshape(-1)[:: array.size // _SAMPLE | 1]
        # What is below the mask is no content.
        parts = [np.ma.getmaskarray(array), array.filled(np.zeros((), array.dtype))]
        return digest_of([*map(short_digest, parts)])
    array = np.asarray(array)
    dtype = array.dtype
    digest = xxhash.xxh3_64(f"{dtype if dtype.names else dtype.str} {array.shape}".encode())
    objects = dtype.hasobject or dtype.names or dtype.kind == "T"
    if array.nbytes > _MAX_DIGESTED or (objects and array.size > _SAMPLE):
        flat = array.reshape(-1) if array.flags.c_contiguous else array.flat
        end, step = _SAMPLE // 4, array.size // (_SAMPLE // 2) | 1
        array = np.concatenate([flat[:end], flat[::step], flat[-end:]])
    if objects:
        return digest_of([digest.hexdigest(), array.ravel().tolist()])
    if dtype.kind in "fc" and np.finfo(dtype).nmant == 63:  # Some bytes of such a number may be anything.
        array = array.astype("f8" if dtype.kind == "f" else "c16")
    if array.size and dtype.itemsize:
        digest.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return digest.hexdigest()[:8]


def _plain_items(array: Any) -> list[Any]:
    """The values of an array; numbers of few bits with as many digits as tell them apart, as NumPy prints them."""
    if array.ndim > 1:
        return [_plain_items(part) for part in array]
    if array.dtype.kind == "f" and array.dtype.itemsize < 8:
        return [float(str(value)) for value in array]
    return [str(value) for value in array] if array.dtype.kind in "mMc" else array.tolist()


def _is_on_disk(array: Any) -> bool:
    """Whether an array is read from a file as it is used."""
    import numpy as np

    for _ in range(10):
        if isinstance(array, np.memmap):
            return True
        array = getattr(array, "base", None)
    return False


def _note_types(array: Any, path: Path) -> None:
    """Note the type and the shape of an array that is written as text."""
    import numpy as np

    def differs() -> str:
        if not array.size and not _sidecar.types_of(path):
            return "a file of no values says nothing of its type"
        found = handler.read(path)
        if (found.dtype, found.shape) != (array.dtype, array.shape):
            return f"{found.dtype} {found.shape}, and not {array.dtype} {array.shape}"
        same = np.array_equal(found, array, equal_nan=array.dtype.kind in "fcmM")
        return "" if same else "values change as text"

    def describe() -> dict[str, Any]:
        if array.dtype.names:
            raise TypeError("rows with fields cannot be read back from text")
        return {"dtype": array.dtype.str, "shape": list(array.shape)}

    _sidecar.note_types(path, differs, describe)


def _retyped(array: Any, types: Mapping[str, Any]) -> Any:
    """Text, or what JSON has for it, as the array that it was."""
    import numpy as np

    dtype = np.dtype(types["dtype"])
    if array.dtype.kind in "UO" and dtype.kind in "bc":  # NumPy reads no such text by itself.
        make = "True".__eq__ if dtype.kind == "b" else complex
        array = np.array([make(text) for text in array.ravel().tolist()])
    return array.astype(dtype).reshape(types["shape"])


def arrays_profile(arrays: Mapping[str | None, Any]) -> DatasetProfile:
    """The profile of one array, or of several by name."""
    digest = Digest("array")
    for index, (name, array) in enumerate(arrays.items()):
        digest.note(name)
        feed_array(digest, str(index), array)
    told = {name: (mlflow_dtype(array.dtype), array.shape, int(array.nbytes)) for name, array in arrays.items()}
    return tensor_profile(digest, told)


def feed_array(digest: Digest, stream: str, array: Any) -> None:
    """Feed the type, shape and values of an array, in the order of its indices whatever its layout."""
    import numpy as np

    plain = np.asarray(array)
    digest.note(str(plain.dtype.descr) if plain.dtype.names else str(plain.dtype), list(plain.shape))
    if isinstance(array, np.ma.MaskedArray):
        mask = np.ma.getmaskarray(array)
        _feed_values(digest, f"{stream}.mask", mask)
        # What is below the mask is no content.
        plain = np.where(mask, np.zeros((), plain.dtype), plain)
    _feed_values(digest, stream, plain)


def feed_bytes(digest: Digest, stream: str, array: Any) -> None:
    """Feed the values of an array whose values are their bytes."""
    import numpy as np

    if array.size and array.dtype.itemsize:
        if array.flags.c_contiguous:
            digest.feed(stream, array.reshape(-1).view(np.uint8))
        else:
            for piece in _pieces(array):
                digest.feed(stream, piece.reshape(-1).view(np.uint8))


def has_missing(array: Any) -> bool:
    """Whether there is a NaN or a NaT in a contiguous array."""
    import numpy as np

    kind, flat = array.dtype.kind, array.reshape(-1)
    if kind == "c":
        flat, kind = flat.view(flat.real.dtype), "f"
    if kind in "mM":
        return bool(flat.size) and bool(np.minimum.reduce(flat.view(np.int64)) == np.iinfo(np.int64).min)
    if kind != "f":
        return False
    # The least of several numbers is NaN where one of them is; that takes half the time of looking at each.
    return bool(flat.size) and bool(np.isnan(np.minimum.reduce(flat)))


def name_of_dtype(dtype: Any) -> str:
    """A dtype in a word."""
    return f"structured of {len(dtype.names)} fields" if dtype.names else str(dtype)[:60]


def mlflow_dtype(dtype: Any) -> str:
    """A dtype as MLflow tells it: without the length of text, see `clean_tensor_type` in mlflow/types/utils.py."""
    return {"U": "str", "S": "bytes"}.get(dtype.kind, str(dtype.name))


def _is_told_by_npy(dtype: Any) -> bool:
    """Whether reading gives this dtype back: not the objects and, of bfloat16 and its like, no more than the size."""
    from numpy.lib import format as npy

    if dtype.hasobject or dtype.kind == "T":
        return False
    try:
        return bool(npy.descr_to_dtype(npy.dtype_to_descr(dtype)) == dtype) and dtype.metadata is None
    except (TypeError, ValueError):
        return False


def _write_npz(file: Any, arrays: Mapping[Any, Any]) -> None:
    """Write arrays as `numpy.savez` would, which has names of its own that no array may have."""
    import zipfile

    import numpy as np

    with zipfile.ZipFile(file, "w", allowZip64=True) as folder:
        for name, array in arrays.items():
            with folder.open(f"{name}.npy", "w", force_zip64=True) as part:
                np.lib.format.write_array(part, np.asanyarray(array), allow_pickle=False)


def _feed_values(digest: Digest, stream: str, array: Any) -> None:
    import numpy as np

    dtype = array.dtype
    if dtype.names:  # Between the fields there may be bytes that are nobody's.
        for index, name in enumerate(dtype.names):
            _feed_values(digest, f"{stream}.{index}", array[name])
    elif dtype.hasobject or dtype.kind == "T":
        for start in range(0, array.size, GROUP):
            feed_objects(digest, stream, array.flat[start : start + GROUP].tolist())
    elif dtype.kind in "fc" and np.finfo(dtype).nmant == 63:
        # The 80 bits of an x87 number lie in 96 or 128, of which the rest may be anything.
        for piece in _pieces(array):
            parts = piece.reshape(-1).view(np.longdouble).view(np.uint8).reshape(-1, np.dtype(np.longdouble).itemsize)
            feed_bytes(digest, stream, np.ascontiguousarray(parts[:, :10]))
    else:
        feed_bytes(digest, stream, array)


def _pieces(array: Any) -> Iterator[Any]:
    """An array in the order of its indices, as contiguous pieces of about `PIECE` bytes."""
    import numpy as np

    if array.nbytes <= PIECE or array.ndim == 0:
        yield np.ascontiguousarray(array)
        return
    row = array.nbytes // len(array)
    if row > PIECE:
        for inner in array:
            yield from _pieces(inner)
        return
    step = max(1, PIECE // max(row, 1))
    for start in range(0, len(array), step):
        yield np.ascontiguousarray(array[start : start + step])


handler = _Array()
scalar = _Scalar()

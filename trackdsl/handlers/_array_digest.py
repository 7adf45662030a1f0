"""Digests of NumPy arrays: short ones for parameters, and complete ones for dataset inputs.

NumPy is imported only inside the functions: their callers have an array already.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from trackdsl.handlers._dataset import DatasetProfile, tensor_profile
from trackdsl.handlers._digest import GROUP, Digest, feed_objects
from trackdsl.handlers._value_digest import digest_of

#: Arrays are copied in pieces of this many bytes, which stay in the CPU's cache until they are hashed.
PIECE = 1 << 19
#: The short digest of an array with more bytes than this covers about `_SAMPLE` values.
_MAX_DIGESTED = 1 << 19
_SAMPLE = 2048


def short_digest(array: Any) -> str:
    """Eight hexadecimal digits that are the same for equal arrays in every process.

    A large array is sampled: its beginning, its end, and values at regular steps between them. Two large arrays that
    differ only in other values have the same digest.
    """
    import numpy as np
    import xxhash

    if type(array) is not np.ndarray and isinstance(array, np.ma.MaskedArray):
        if array.nbytes > _MAX_DIGESTED:
            array = array.reshape(-1)[:: array.size // _SAMPLE | 1]
        # Values under the mask may be anything, so they are set to zero.
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
    if dtype.kind in "fc" and np.finfo(dtype).nmant == 63:  # Padding bytes may be anything.
        array = array.astype("f8" if dtype.kind == "f" else "c16")
    if array.size and dtype.itemsize:
        digest.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return digest.hexdigest()[:8]


def arrays_profile(arrays: Mapping[str | None, Any]) -> DatasetProfile:
    """The profile of one array, or of several by name."""
    digest = Digest("array")
    for index, (name, array) in enumerate(arrays.items()):
        digest.add_facts(name)
        feed_array(digest, str(index), array)
    tensors = {name: (mlflow_dtype(array.dtype), array.shape, int(array.nbytes)) for name, array in arrays.items()}
    return tensor_profile(digest, tensors)


def feed_array(digest: Digest, stream: str, array: Any) -> None:
    """Feed the type, shape and values of an array. Its layout in memory does not matter."""
    import numpy as np

    plain = np.asarray(array)
    digest.add_facts(str(plain.dtype.descr) if plain.dtype.names else str(plain.dtype), list(plain.shape))
    if isinstance(array, np.ma.MaskedArray):
        mask = np.ma.getmaskarray(array)
        _feed_values(digest, f"{stream}.mask", mask)
        # Values under the mask may be anything, so they are set to zero.
        plain = np.where(mask, np.zeros((), plain.dtype), plain)
    _feed_values(digest, stream, plain)


def feed_bytes(digest: Digest, stream: str, array: Any) -> None:
    """Feed the bytes of an array of numbers."""
    import numpy as np

    if array.size and array.dtype.itemsize:
        if array.flags.c_contiguous:
            digest.feed(stream, array.reshape(-1).view(np.uint8))
        else:
            for piece in _pieces(array):
                digest.feed(stream, piece.reshape(-1).view(np.uint8))


def has_missing(array: Any) -> bool:
    """Whether a contiguous array contains a NaN or a NaT."""
    import numpy as np

    kind, flat = array.dtype.kind, array.reshape(-1)
    if kind == "c":
        flat, kind = flat.view(flat.real.dtype), "f"
    if kind in "mM":
        return bool(flat.size) and bool(np.minimum.reduce(flat.view(np.int64)) == np.iinfo(np.int64).min)
    if kind != "f":
        return False
    # The minimum is NaN if any value is. This takes half the time of checking each value.
    return bool(flat.size) and bool(np.isnan(np.minimum.reduce(flat)))


def name_of_dtype(dtype: Any) -> str:
    """A short text for a dtype."""
    return f"structured of {len(dtype.names)} fields" if dtype.names else str(dtype)[:60]


def mlflow_dtype(dtype: Any) -> str:
    """MLflow's name for a dtype: without the length of text, see `clean_tensor_type` in mlflow/types/utils.py."""
    return {"U": "str", "S": "bytes"}.get(dtype.kind, str(dtype.name))


def _feed_values(digest: Digest, stream: str, array: Any) -> None:
    import numpy as np

    dtype = array.dtype
    if dtype.names:  # Padding bytes between the fields may be anything.
        for index, name in enumerate(dtype.names):
            _feed_values(digest, f"{stream}.{index}", array[name])
    elif dtype.hasobject or dtype.kind == "T":
        for start in range(0, array.size, GROUP):
            feed_objects(digest, stream, array.flat[start : start + GROUP].tolist())
    elif dtype.kind in "fc" and np.finfo(dtype).nmant == 63:
        # An x87 number has 80 bits in a field of 96 or 128 bits; the padding may be anything.
        for piece in _pieces(array):
            parts = piece.reshape(-1).view(np.longdouble).view(np.uint8).reshape(-1, np.dtype(np.longdouble).itemsize)
            feed_bytes(digest, stream, np.ascontiguousarray(parts[:, :10]))
    else:
        feed_bytes(digest, stream, array)


def _pieces(array: Any) -> Iterator[Any]:
    """Contiguous pieces of an array, of about `PIECE` bytes each, in the order of its indices."""
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

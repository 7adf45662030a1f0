"""Complete digests of pandas frames.

A column in one piece of memory is hashed directly. If a frame was made from an array in C order, the values of its
columns alternate in memory. They are copied in blocks that fit into the CPU's cache, so that each byte is fetched
from memory only once. A large frame is hashed by two threads.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from trackdsl.handlers._array_digest import feed_bytes, has_missing
from trackdsl.handlers._arrow_digest import feed_arrow
from trackdsl.handlers._dataset import column_type
from trackdsl.handlers._digest import GROUP, Digest, feed_objects

_ROWS = 2048
_COLUMNS = 128
#: A frame with at least this many bytes is hashed by two threads.
_LARGE = 32 << 20
_CHUNK = 1 << 18

Missing = dict[int, bool]


def digest_frame(frame: Any, kind: str = "DataFrame") -> tuple[Digest, int, list[tuple[Any, str, bool]]]:
    """The digest of a frame, its number of rows, and the name, MLflow type and completeness of each column."""
    import pandas as pd

    plain = pd.DataFrame(frame, copy=False)
    digest = Digest(kind)
    digest.add_facts(list(plain.shape), list(plain.columns), list(plain.columns.names))
    _feed_index(digest, plain.index)
    missing: Missing = {}
    numbers = []
    types = []
    for position in range(plain.shape[1]):
        values, kind_of_column = _feed_column(digest, position, plain.iloc[:, position], missing)
        types.append(kind_of_column)
        if values is not None:
            numbers.append((position, values))
    _feed_all_whole(digest, [column for column in numbers if column[1].flags.c_contiguous], missing)
    for positions, block in _blocks([column for column in numbers if not column[1].flags.c_contiguous]):
        _feed_block(digest, positions, block, missing)
    columns = [(name, types[position], not missing.get(position)) for position, name in enumerate(plain.columns)]
    return digest, len(plain), columns


def _feed_column(digest: Digest, position: int, column: Any, missing: Missing) -> tuple[Any, str]:
    """Feed a column, and return its MLflow type. A column of plain numbers is not fed but returned, to be fed later."""
    import numpy as np

    values, stream = column.array, str(position)
    digest.add_facts(str(column.dtype))
    if isinstance(column.dtype, np.dtype):
        plain = column.to_numpy()
        if plain.dtype == object:
            kinds = feed_objects(digest, stream, plain)
            missing[position] = kinds != {str} and bool(column.hasnans)
            return None, column_type(kinds)
        return plain, mlflow_type(column.dtype)
    missing[position] = _feed_extension(digest, stream, values)
    return None, mlflow_type(column.dtype)


def _feed_all_whole(digest: Digest, columns: Sequence[tuple[int, Any]], missing: Missing) -> None:
    hashed = [digest.stream(str(position)) for position, _ in columns]

    def feed(part: slice) -> None:
        for one, (position, values) in zip(hashed[part], columns[part], strict=True):
            missing[position] = _feed_whole(one, values)

    _in_parallel(feed, _parts(len(columns), sum(values.nbytes for _, values in columns)))


def _parts(count: int, size: int) -> list[slice]:
    """The columns for each thread: two parts if they are large."""
    half = (count + 1) // 2
    return [slice(0, half), slice(half, None)] if size >= _LARGE and count > 1 else [slice(None)]


def _feed_whole(hashed: Any, values: Any) -> bool:
    """Feed a contiguous column of numbers, and return whether a value is missing."""
    import numpy as np

    flat = values.view("u1")
    if values.dtype.kind not in "fcmM":
        hashed.update(flat)
        return False
    size, missing = values.itemsize, False
    step = _CHUNK // size
    simple = values.dtype.char in "fd" and values.dtype.isnative
    for start in range(0, len(values), step):
        hashed.update(flat[start * size : (start + step) * size])
        if simple:  # Like `has_missing`, but without checking the type in each step.
            least = np.minimum.reduce(values[start : start + step])
            missing = missing or bool(least != least)
        else:
            missing = missing or has_missing(values[start : start + step])
    return missing


def _feed_extension(digest: Digest, stream: str, values: Any) -> bool:
    """Feed a column of an extension type of pandas or of another library."""
    import numpy as np
    import pandas as pd

    missing = bool(values.isna().any())
    if isinstance(values, pd.Categorical):
        digest.add_facts(bool(values.ordered))
        _feed_index(digest, values.categories, f"{stream}.categories")
        feed_bytes(digest, stream, np.asarray(values.codes))
    elif hasattr(values, "asi8"):  # Times with a time zone, and periods.
        feed_bytes(digest, stream, values.asi8)
    elif isinstance(values, pd.arrays.IntervalArray):
        for side in ("left", "right"):
            _feed_index(digest, getattr(values, side), f"{stream}.{side}")
    elif isinstance(values.dtype, pd.StringDtype) and values.dtype.storage == "python":
        feed_objects(digest, stream, values.to_numpy(dtype=object, na_value=None))
    elif hasattr(values, "__arrow_array__") and not _is_masked(values):
        feed_arrow(digest, stream, values.__arrow_array__())
    else:
        _feed_pieces(digest, stream, values)
    return missing


def _feed_pieces(digest: Digest, stream: str, values: Any) -> None:
    import numpy as np
    import pandas as pd

    for start in range(0, len(values), GROUP):
        piece = values[start : start + GROUP]
        if _is_masked(piece):
            mask = piece.isna()
            feed_bytes(digest, f"{stream}.mask", mask)
            feed_bytes(digest, stream, piece.to_numpy(dtype=piece.dtype.numpy_dtype, na_value=piece.dtype.type(0)))
        elif isinstance(piece, pd.arrays.SparseArray):
            feed_bytes(digest, stream, np.asarray(piece))
        else:
            feed_objects(digest, stream, list(piece))


def _is_masked(values: Any) -> bool:
    import pandas as pd

    return isinstance(values, (pd.arrays.IntegerArray, pd.arrays.FloatingArray, pd.arrays.BooleanArray))


def _feed_index(digest: Digest, index: Any, stream: str = "index") -> None:
    import pandas as pd

    if isinstance(index, pd.MultiIndex):
        digest.add_facts(list(index.names), index.nlevels)
        for level in range(index.nlevels):
            _feed_index(digest, index.get_level_values(level), f"{stream}.{level}")
        return
    ranged = _as_range(index)
    digest.add_facts(index.name, len(index), None if ranged is None else [ranged.start, ranged.step], str(index.dtype))
    if ranged is None:
        import numpy as np

        series = pd.Series(index, copy=False)
        if isinstance(series.dtype, np.dtype):
            plain = series.to_numpy()
            feed_objects(digest, stream, plain) if plain.dtype == object else feed_bytes(digest, stream, plain)
        else:
            _feed_extension(digest, stream, series.array)


def _as_range(index: Any) -> range | None:
    """The range that equals an index of integers; None for any other index. To pandas, both indexes are equal."""
    import numpy as np
    import pandas as pd

    if isinstance(index, pd.RangeIndex):
        index_range = range(index.start, index.stop, index.step)
        return range(index_range.start, 0, 1) if len(index_range) == 1 else index_range if index_range else range(0)
    if index.dtype != np.int64 or not len(index):
        return None
    values = index.to_numpy()
    start, step = int(values[0]), int(values[1]) - int(values[0]) if len(values) > 1 else 1
    if step == 0 or abs(start) + abs(step) * len(values) > 1 << 62:
        return None
    for at in range(0, len(values), GROUP):
        part = values[at : at + GROUP]
        if not np.array_equal(part, np.arange(start + at * step, start + (at + len(part)) * step, step)):
            return None
    return range(start, 0, 1) if len(values) == 1 else range(start, start + step * len(values), step)


def _blocks(strided: Sequence[tuple[int, Any]]) -> Iterator[tuple[list[int], Any]]:
    """The columns that are views of the same array: their positions, and that array."""
    import numpy as np

    at = 0
    while at < len(strided):
        _, first = strided[at]
        end, apart = at + 1, 0
        while end < len(strided) and end - at < _COLUMNS:
            column = strided[end][1]
            step = _address(column) - _address(strided[end - 1][1])
            if (column.dtype, column.strides) != (first.dtype, first.strides) or step != (apart or step):
                break
            end, apart = end + 1, step
        shape, strides = (len(first), end - at), (first.strides[0], apart)
        yield [position for position, _ in strided[at:end]], np.lib.stride_tricks.as_strided(first, shape, strides)
        at = end


def _address(array: Any) -> int:
    return int(array.__array_interface__["data"][0])


def _feed_block(digest: Digest, positions: Sequence[int], block: Any, missing: Missing) -> None:
    # Streams are created here, because `Digest` is not safe for threads.
    hashed = [digest.stream(str(position)) for position in positions]

    def feed(part: slice) -> None:
        _feed_across(hashed[part], positions[part], block[:, part], missing)

    _in_parallel(feed, _parts(len(positions), block.nbytes))


def _feed_across(hashed: Sequence[Any], positions: Sequence[int], block: Any, missing: Missing) -> None:
    import numpy as np

    rows, count = block.shape
    buffer = np.empty((count, _ROWS), block.dtype)
    looks = block.dtype.kind in "fcmM"
    for start in range(0, rows, _ROWS):
        piece = block[start : start + _ROWS]
        if len(piece) < _ROWS:
            buffer = np.empty((count, len(piece)), block.dtype)
        np.copyto(buffer, piece.T)
        for one, column in zip(hashed, buffer.view("u1"), strict=True):
            one.update(column)
        if looks and has_missing(buffer):
            for position, column in zip(positions, buffer, strict=True):
                missing[position] = missing.get(position, False) or has_missing(column)


def _in_parallel(feed: Callable[[slice], None], parts: Sequence[slice]) -> None:
    """Feed the first part in a thread and the others here. If no thread can be started, feed all parts here."""
    failed: list[BaseException] = []

    def first() -> None:
        try:
            feed(parts[0])
        except BaseException as error:  # It is raised again in the calling thread.
            failed.append(error)

    if len(parts) > 1 and (os.cpu_count() or 1) > 1:
        worker = threading.Thread(target=first, name="trackdsl-digest", daemon=True)
        with contextlib.suppress(RuntimeError):  # No thread can be started when the program ends.
            worker.start()
    else:
        worker = None
    if worker is None or worker.ident is None:
        worker = None
        feed(parts[0])
    for part in parts[1:]:
        feed(part)
    if worker is not None:
        worker.join()
    if failed:
        raise failed[0]


def mlflow_type(dtype: Any) -> str:
    """MLflow's type for a column, see `_infer_numpy_dtype` in mlflow/types/utils.py; `any` if there is none."""
    kind = getattr(dtype, "kind", "O")
    size = int(getattr(dtype, "itemsize", None) or getattr(getattr(dtype, "numpy_dtype", None), "itemsize", None) or 8)
    name = str(dtype)
    if kind == "b":
        return "boolean"
    if kind in "iu" and name != "category":
        bits = size * 8 + (kind == "u")
        return "integer" if bits <= 32 else "long" if bits <= 64 else "any"
    if kind == "f":
        return "float" if size <= 4 else "double" if size <= 8 else "any"
    if kind == "M":
        return "datetime"
    if name.startswith(("str", "string")) or kind == "U":
        return "string"
    return "any"

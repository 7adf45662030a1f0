"""pandas frames as Parquet. A frame is written in slices, so that a frame of a gigabyte needs only some more megabytes.

Whether Parquet can hold a frame is tested with an empty frame of the same columns, which is written and read.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

#: The size of a slice, which becomes one row group, in bytes.
_SLICE = 32 << 20
_MAX_ROWS = 1 << 20
_SAMPLE = 50
#: The types of Python objects that a column may contain, besides missing values: each with its Arrow type, and its name
#: in the metadata that pandas reads.
_KINDS = {
    "str": ("string", "unicode"), "str_": ("string", "unicode"), "bytes": ("binary", "bytes"),
    "bool": ("bool_", "bool"), "int": ("int64", "int64"), "float": ("float64", "float64"), "date": ("date32", "date"),
    "Decimal": ("", "decimal"), "list": ("", "list"), "ndarray": ("", "list"),
}  # fmt: skip
_MODULES = frozenset(["builtins", "numpy", "datetime", "decimal"])


def schema_of(frame: Any) -> Any:
    """The Arrow schema of a frame, with the metadata from which pandas restores it. `attrs` do not count as content.

    Raises:
        Exception: Parquet cannot hold the frame, or a different frame would be read back.
    """
    import pandas as pd
    import pyarrow as pa

    frame = pd.DataFrame(
        frame, copy=False
    )  # A plain frame, because `attrs` and subclasses would be copied for every slice.
    if not frame.columns.is_unique or not len(frame.columns):
        raise ValueError("column names are not unique, or there are none")
    if len({type(name) for name in frame.columns}) > 1:
        raise TypeError("column names are of several types")
    empty = frame.iloc[:0]
    ranged = isinstance(frame.index, pd.RangeIndex)
    schema = pa.Schema.from_pandas(empty, preserve_index=None if ranged else True)
    pandas_metadata = json.loads(schema.metadata[b"pandas"])
    levels = (frame.index.get_level_values(level) for level in range(frame.index.nlevels))
    for position, values in enumerate((*_columns(frame), *levels)):
        if values.dtype == object:
            kind, pandas_metadata["columns"][position]["pandas_type"] = _type_of_objects(values)
            schema = schema.set(position, schema.field(position).with_type(kind))
    metadata = {**schema.metadata, **_kept_beside(frame)}
    _check(empty, schema.with_metadata({**metadata, b"pandas": json.dumps(pandas_metadata).encode()}))
    if ranged:
        pandas_metadata["index_columns"][0].update(
            start=frame.index.start, stop=frame.index.stop, step=frame.index.step
        )
    return schema.with_metadata({**metadata, b"pandas": json.dumps(pandas_metadata).encode()})


def holds(frame: Any) -> bool:
    """Return True if Parquet gives back an equal frame.

    Raises:
        Exception: it does not.
    """
    import pandas as pd

    columns = frame.columns
    named = isinstance(columns, pd.RangeIndex) or (columns.is_unique and set(map(type, columns)) == {str})
    names = {type(name) for name in (*columns.names, *frame.index.names)} <= {str, type(None)}
    ranged = isinstance(frame.index, pd.RangeIndex)
    # With thousands of columns, computing the schema takes a second.
    if not (named and names and ranged and len(columns) and set(frame.dtypes) <= _simple()):
        schema_of(frame)
    return True


@functools.cache
def _simple() -> frozenset[Any]:
    """Types that Parquet keeps, whatever the values are."""
    import numpy as np

    names = ("?", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f4", "f8", "M8[ns]", "M8[us]")
    return frozenset(map(np.dtype, names))


def write_parquet(frame: Any, path: Path) -> None:
    """Write a frame.

    Raises:
        Exception: see `schema_of`; or the objects of a column have different types.
    """
    import pandas as pd
    import pyarrow as pa
    import pyarrow.parquet as pq

    frame = pd.DataFrame(frame, copy=False)
    schema = schema_of(frame)
    columns = list(_columns(frame))
    levels = range(frame.index.nlevels) if len(schema) > len(columns) else ()
    # Columns are converted one by one. pyarrow would convert one for each CPU at the same time.
    floating = [str(field.type) in ("float", "double") for field in schema]
    repeated: Any = [field.name for field, is_float in zip(schema, floating, strict=True) if not is_float]
    # For numbers that do not repeat, a dictionary takes twice the time and a fifth more bytes.
    with open(path, "xb") as file, pq.ParquetWriter(file, schema, use_dictionary=repeated or False) as writer:
        for start, end in _slices(frame):
            index = frame.index[start:end]
            pieces = [*(column.iloc[start:end] for column in columns), *(index.get_level_values(i) for i in levels)]
            arrays = [
                pa.array(piece, type=field.type if piece.dtype == object else None, from_pandas=True)
                for piece, field in zip(pieces, schema, strict=True)
            ]
            writer.write_table(pa.Table.from_arrays(arrays, schema=schema))


def read_parquet(source: Any) -> Any:
    """Read a frame, with the types that Parquet does not have: categories other than text, and times in seconds."""
    import pandas as pd
    import pyarrow.parquet as pq

    table = pq.read_table(source)
    frame = table.to_pandas()
    kept = json.loads((table.schema.metadata or {}).get(b"trackdsl", b"{}"))
    for position, stored in kept.get("categories", {}).items():
        categories = pd.Index(_from_text(stored["values"]))
        dtype = pd.CategoricalDtype(categories, ordered=stored["ordered"])
        frame.isetitem(int(position), frame.iloc[:, int(position)].astype(dtype))
    for position in kept.get("seconds", ()):
        column = frame.iloc[:, position]
        frame.isetitem(position, column.dt.as_unit("s"))
    if kept.get("freq"):
        frame.index = type(frame.index)(frame.index, freq=kept["freq"])
    return frame


def _columns(frame: Any) -> Iterator[Any]:
    return (frame.iloc[:, index] for index in range(len(frame.columns)))


def _type_of_objects(values: Any) -> tuple[Any, str]:
    """The Arrow type for a column of Python objects, and the name of that type for pandas."""
    import pandas as pd
    import pyarrow as pa

    objects = values.to_numpy()
    kinds = set(map(type, objects)) - {type(None), type(pd.NA), type(pd.NaT)}
    if float in kinds and len(kinds) > 1 and pd.isna([v for v in objects if type(v) is float]).all():
        kinds.discard(float)
    if not kinds:
        return pa.null(), "empty"
    (kind,) = kinds if len(kinds) == 1 else (type(None),)
    if kind.__module__ not in _MODULES or kind.__name__ not in _KINDS:
        raise TypeError(f"{values.name!r} holds objects of {sorted(kind.__name__ for kind in kinds)}")
    if kind is int and values.hasnans:
        raise TypeError(f"{values.name!r} holds integers and missing values: they would be read as floats")
    name, pandas_type = _KINDS[kind.__name__]
    arrow_type = getattr(pa, name)() if name else pa.infer_type(objects, from_pandas=True)
    if any(kind_name in str(arrow_type) for kind_name in ("struct", "map", "null")):
        raise TypeError(f"{values.name!r} holds dicts, each of which would be read with the keys of all of them")
    return arrow_type, pandas_type


def _kept_beside(frame: Any) -> dict[bytes, bytes]:
    """Metadata for what Parquet would lose: categories other than text, times in seconds, the frequency of an index."""
    categories, seconds = {}, []
    for position, dtype in enumerate(frame.dtypes):
        # If no row has a category, categories of text are lost too.
        if dtype == "category" and (dtype.categories.dtype.kind in "iufbM" or frame.iloc[:, position].isna().all()):
            categories[position] = {"values": _as_text(dtype.categories), "ordered": bool(dtype.ordered)}
        elif str(dtype).startswith("datetime64[s"):
            seconds.append(position)
    kept = {"categories": categories, "seconds": seconds, "freq": _frequency(frame.index)}
    return {b"trackdsl": json.dumps(kept).encode()} if any(kept.values()) else {}


def _frequency(index: Any) -> str | None:
    """The frequency of an index as text; None if it could not be restored from that text."""
    from pandas.tseries.frequencies import to_offset

    freq = getattr(index, "freq", None)
    if freq is None or not str(index.dtype).startswith(("datetime64", "timedelta64")):
        return None
    return str(freq.freqstr) if to_offset(freq.freqstr) == freq else None


def _as_text(index: Any) -> str:
    import base64

    import pyarrow as pa

    sink = pa.BufferOutputStream()
    batch = pa.record_batch({"values": pa.array(index, from_pandas=True)})
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    return base64.b64encode(sink.getvalue()).decode()


def _from_text(text: str) -> Any:
    import base64

    import pyarrow as pa

    return pa.ipc.open_stream(base64.b64decode(text)).read_all()["values"].to_pandas().rename(None)


def _check(empty: Any, schema: Any) -> None:
    """Check that a frame without rows is read back as it was written.

    Raises:
        Exception: it is not.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    sink = pa.BufferOutputStream()
    pq.write_table(schema.empty_table(), sink)
    read_back = read_parquet(pa.BufferReader(sink.getvalue()))
    same_names = read_back.columns.equals(empty.columns) and list(read_back.columns.names) == list(empty.columns.names)
    if not same_names or list(read_back.index.names) != list(empty.index.names):
        raise ValueError("names of columns or of the index would change")
    for level in range(empty.index.nlevels):
        one, other = (part.index.get_level_values(level).dtype for part in (read_back, empty))
        if str(one) != str(other) and object not in (one, other) and (one.kind, other.kind) != ("M", "M"):
            raise TypeError(f"the index of {other} would be read as one of {one}")
    for one, other in zip(read_back.dtypes, empty.dtypes, strict=True):
        if str(one) != str(other) and object not in (one, other):
            raise TypeError(f"{other} would be read as {one}")


def _slices(frame: Any) -> Iterator[tuple[int, int]]:
    """The first row of each slice, and the row after its last."""
    step = max(1, min(_MAX_ROWS, int(_SLICE // max(_row_bytes(frame), 1))))
    for start in range(0, max(len(frame), 1), step):
        yield start, min(start + step, len(frame))


def _row_bytes(frame: Any) -> float:
    """The approximate size of a row in bytes. The size of objects is estimated from a sample."""
    import sys

    rows = max(len(frame), 1)
    size = frame.memory_usage(index=True, deep=False).sum() / rows
    for column in _columns(frame):
        if column.dtype == object:
            some = column.iloc[:: max(1, rows // _SAMPLE)].to_list()[:_SAMPLE]
            size += sum(getattr(v, "nbytes", 0) + sys.getsizeof(v) + _held_by(v) for v in some) / max(len(some), 1)
    return float(size)


def _held_by(value: Any) -> int:
    return 32 * len(value) if isinstance(value, list) else 0

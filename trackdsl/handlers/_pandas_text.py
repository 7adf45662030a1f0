"""pandas frames as CSV and JSON. The types that these formats do not store are kept in a file next to them."""

from __future__ import annotations

import datetime
import decimal
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from trackdsl.handlers import _sidecar
from trackdsl.handlers._content import content_of

SEPARATORS = {".csv": ",", ".tsv": "\t", ".txt": "\t"}
_MAX_CATEGORIES = 10_000
#: How many positions of missing texts are stored, if the column also has empty texts.
_MAX_MISSING = 10_000
#: How to convert text to objects, by the name of their type.
_MAKERS: dict[str, Callable[[str], Any]] = {
    "str": str,
    "int": int,
    "float": float,
    "bool": "True".__eq__,
    "date": datetime.date.fromisoformat,
    "time": datetime.time.fromisoformat,
    "Decimal": decimal.Decimal,
}


def write_text(frame: Any, path: Path) -> None:
    """Write a frame as CSV or JSON, according to the suffix, and its types next to it if they are needed."""
    import pandas as pd

    plain = pd.DataFrame(frame, copy=False)
    if path.suffix == ".json":
        _write_json(plain, path)
    else:
        plain.to_csv(path, sep=SEPARATORS[path.suffix], index=says_more(plain.index), mode="x", encoding="utf-8",
                     errors="backslashreplace", lineterminator="\n")  # fmt: skip
    _sidecar.write_types(path, lambda: _difference(read_text(path), plain), lambda: _types_of(plain))


def read_text(path: Path) -> Any:
    """Read a frame from CSV or JSON, with the types next to it."""
    import pandas as pd

    types = _sidecar.types_of(path)
    if "types" in types:
        return _frame(_cells_of_json(path) if path.suffix == ".json" else _cells_of_csv(path), types)
    if path.suffix == ".json":
        with open(path, encoding="utf-8") as file:
            orient = "records" if file.read(1) == "[" else "split"
        return pd.read_json(path, orient=orient, precise_float=True)
    return pd.read_csv(path, sep=SEPARATORS[path.suffix], low_memory=False)


def says_more(index: Any) -> bool:
    """Whether an index is more than the row number."""
    import pandas as pd

    plain = isinstance(index, pd.RangeIndex) and (index.start, index.step) == (0, 1) and index.name is None
    return not plain


def _write_json(frame: Any, path: Path) -> None:
    data = [
        [None if is_missing else cell for cell, is_missing in zip(column.tolist(), column.isna().tolist(), strict=True)]
        for column in (frame.iloc[:, position] for position in range(len(frame.columns)))
    ]
    rows = [list(row) for row in zip(*data, strict=True)] if data else [[] for _ in range(len(frame))]
    labels = content_of(frame.columns.tolist())
    tree: Any
    # `split` keeps the index. Without an index to keep, people expect `records`.
    if says_more(frame.index) or not frame.columns.is_unique or not rows:
        tree = {"columns": labels, "index": content_of(frame.index.tolist()), "data": content_of(rows)}
    else:
        tree = content_of([dict(zip(map(str, frame.columns), row, strict=True)) for row in rows])
    with open(path, "x", encoding="utf-8", errors="backslashreplace") as file:
        json.dump(tree, file, ensure_ascii=False)


def _difference(read_back: Any, frame: Any) -> str:
    import pandas as pd

    try:
        pd.testing.assert_frame_equal(read_back, frame, check_exact=True, check_flags=False)
    except AssertionError as error:
        return " ".join(str(error).split())[:300]
    for one, other in ((read_back.index, frame.index), (read_back.columns, frame.columns)):
        if list(map(type, one.names)) != list(map(type, other.names)):
            return f"names {list(one.names)} instead of {list(other.names)}"
    return ""


# --- types


def _types_of(frame: Any) -> dict[str, Any]:
    """The types of a frame in a form that JSON can hold.

    Raises:
        TypeError: the frame cannot be restored from text.
    """
    index = frame.index
    levels = [index.get_level_values(level) for level in range(index.nlevels)] if says_more(index) else []
    return {
        "columns": _index_types(frame.columns),
        "types": [_types(frame.iloc[:, position]) for position in range(len(frame.columns))],
        "index": [_index_types(level, labels=False) for level in levels],
        "rows": len(frame),
    }


def _index_types(index: Any, *, labels: bool = True) -> dict[str, Any]:
    import pandas as pd

    if index.nlevels > 1:
        raise TypeError("columns with several levels cannot be read back from text")
    if index.name is not None and type(index.name) not in (str, int, float, bool):
        raise TypeError(f"a name that is a {type(index.name).__name__} cannot be read back from text")
    types: dict[str, Any] = {"name": index.name}
    if isinstance(index, pd.RangeIndex):
        return {**types, "range": [index.start, index.stop, index.step]}
    types.update(_types(index.to_series()))
    freq = getattr(index, "freqstr", None)
    if freq is not None and str(index.dtype).startswith(("datetime64", "timedelta64")):
        types["freq"] = freq
    return {**types, "values": list(map(str, index))} if labels else types


def _types(values: Any) -> dict[str, Any]:
    dtype = values.dtype
    types: dict[str, Any] = {"dtype": str(dtype)}
    if types["dtype"].startswith(("interval", "Sparse")):
        raise TypeError(f"{types['dtype']} cannot be read back from text")
    if types["dtype"] == "category":
        if len(dtype.categories) > _MAX_CATEGORIES:
            raise TypeError(f"{len(dtype.categories)} categories are too many to be stored next to a file")
        inner = dtype.categories
        types["categories"] = {**_types(inner.to_series()), "values": list(map(str, inner))}
        types["ordered"] = bool(dtype.ordered)
    missing = values.isna().to_numpy()
    if missing.any():
        types["missing"] = True if (values[~missing] != "").all() else missing.nonzero()[0].tolist()[:_MAX_MISSING]
    if types["dtype"] == "object":
        kinds = {type(value).__name__ for value in values[~missing]}
        if len(kinds) > 1 or not kinds <= set(_MAKERS):
            raise TypeError(f"objects of {sorted(kinds)} cannot be read back from text")
        types["objects"] = next(iter(kinds), "str")
        lost = {repr(value) for value in values[missing]}
        types["none"] = lost == {"None"}
    return types


# --- cells


def _cells_of_csv(path: Path) -> list[list[str | None]]:
    """The columns of a file as text. The columns of the index come first."""
    import pandas as pd

    try:
        cells = pd.read_csv(path, sep=SEPARATORS[path.suffix], header=None, dtype=str, na_filter=False,
                            skip_blank_lines=False, lineterminator="\n")  # fmt: skip
    except pd.errors.EmptyDataError:  # There are no columns.
        return []
    return [cells.iloc[1:, position].tolist() for position in range(len(cells.columns))]


def _cells_of_json(path: Path) -> list[list[str | None]]:
    tree = json.loads(path.read_text(encoding="utf-8"))
    if isinstance(tree, list):
        columns = [list(column) for column in zip(*(row.values() for row in tree), strict=True)]
    else:
        index = [part if isinstance(part, list) else [part] for part in tree["index"]]
        rows = [labels + row for labels, row in zip(index, tree["data"], strict=True)]
        columns = [list(column) for column in zip(*rows, strict=True)]
    return [[cell if cell is None or isinstance(cell, str) else str(cell) for cell in column] for column in columns]


def _frame(cells: list[list[str | None]], types: dict[str, Any]) -> Any:
    import pandas as pd

    kinds = types["types"]
    # In JSON, an index is the row number even if it is not needed.
    cells = (cells if kinds or types["index"] else []) or [[] for _ in (*types["index"], *kinds)]
    extra = len(cells) - len(kinds)
    levels, columns = cells[:extra], cells[extra:]
    rows = types.get("rows", len(cells[0]) if cells else 0)
    values = [_values(column, kind) for column, kind in zip(columns, kinds, strict=True)]
    series = [
        pd.Series(each, dtype=each.dtype) for each in values
    ]  # Without the type, objects that are texts would become pandas strings.
    frame = pd.concat(series, axis=1) if series else pd.DataFrame(index=range(rows))
    frame.columns = _index([], types["columns"])
    if types["index"]:
        kinds = types["index"]
        made = [_index(level, kind) for level, kind in zip(levels, kinds, strict=True)]
        frame.index = made[0] if len(made) == 1 else pd.MultiIndex.from_arrays(made, names=[k["name"] for k in kinds])
    return frame


def _index(cells: list[str | None], types: dict[str, Any]) -> Any:
    import pandas as pd

    if "range" in types:
        return pd.RangeIndex(*types["range"], name=types["name"])
    values = _values(types.get("values", cells), types)
    index = pd.Index(values, dtype=values.dtype, name=types["name"])
    return type(index)(index, freq=types["freq"]) if "freq" in types else index


def _values(cells: list[str | None], types: dict[str, Any]) -> Any:
    """The values of a column, from texts and the type of the column."""
    import numpy as np
    import pandas as pd

    dtype = types["dtype"]
    missing = types.get("missing", False)
    rows = frozenset(missing) if isinstance(missing, list) else ()
    cells = [
        None if cell is None or (cell == "" and (missing is True or row in rows)) else cell
        for row, cell in enumerate(cells)
    ]
    if dtype == "category":
        inner = types["categories"]
        categories = pd.Index(_values(inner["values"], inner))
        return pd.Categorical(_values(cells, {**inner, "missing": missing}), categories, ordered=types["ordered"])
    if dtype == "object":
        make = _MAKERS[types["objects"]]
        missing_value = None if types.get("none") else float("nan")
        objects = np.empty(len(cells), object)
        objects[:] = [missing_value if cell is None else make(cell) for cell in cells]
        return objects
    if dtype.startswith("datetime64"):
        moments = pd.to_datetime(pd.Series(cells, dtype=object), format="ISO8601", utc="," in dtype)
        return moments.astype(dtype).array
    if dtype.startswith("timedelta64"):
        return pd.to_timedelta(pd.Series(cells, dtype=object)).astype(dtype).array
    if dtype.startswith("period"):
        return pd.PeriodIndex([pd.NaT if cell is None else cell for cell in cells], dtype=dtype).array
    kind = pd.api.types.pandas_dtype(dtype)
    make = _MAKERS[{"b": "bool", "i": "int", "u": "int", "f": "float"}.get(kind.kind, "str")]
    made = [None if cell is None else make(cell) for cell in cells]
    if isinstance(kind, np.dtype):
        return np.array([float("nan") if value is None else value for value in made], dtype=kind)
    return pd.array(made, dtype=kind)

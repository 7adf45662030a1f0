"""Choose examples of a model's input among the arguments of a call.

A library is only checked for if the program has imported it.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from typing import Any

from trackdsl._core.redaction import is_secret_name
from trackdsl.handlers._flavor import Inputs

ROWS = 5
_NAMES = ("x", "x_train", "features", "data", "inputs", "df", "frame", "train", "texts", "text", "documents", "corpus")
_ARRAYS = ("numpy", "torch", "jax", "jaxlib", "tensorflow")
_MAX_CELLS = 1_000_000
#: This many cells of a frame are searched for types that the first rows do not have. For them, the example gets up to
#: `_MAX_KINDS` rows for each column, and up to `_MAX_MORE` rows in all.
_MAX_SEARCHED = 200_000
_MAX_KINDS = 5
_MAX_MORE = 20


def candidates(arguments: Mapping[str, Any], wanted: Inputs) -> Iterator[tuple[Any, bool]]:
    """Examples from the arguments of a call, the best first.

    Args:
        arguments: the arguments by name; items of tuples and dicts count as arguments too.
        wanted: the data that the model takes.

    Yields:
        an example of a few rows, and whether its columns are exactly those that the model takes.
    """
    data = [(name, value) for name, value in _opened(arguments) if _is_data(value)]
    if wanted.names is not None:
        for _, value in data:
            selected = _select(value, wanted.names)
            if selected is not None:
                yield selected, True
                return
    if wanted.count is not None:
        for _, value in data:
            if _width(value) == wanted.count:
                taken = rows_of(value)
                # A model without column names was fitted on an array.
                unnamed = wanted.names is None and hasattr(taken, "to_numpy")
                yield taken.to_numpy() if unnamed else taken, True
                return
        return
    named = [value for name in _NAMES for found_as, value in data if found_as.lower() == name]
    for value in [*named, *(value for _, value in data if _width(value) is not None)]:
        taken = rows_of(value)
        if isinstance(taken, list) or getattr(taken, "ndim", 0) == 1:
            # MLflow turns a list into a frame, and a vectorizer would iterate over the column names of that frame.
            taken = _texts(taken)
        if taken is not None:
            yield taken, False


def rows_of(value: Any, count: int | None = ROWS) -> Any:
    """A copy of a few rows of data, as an object of pandas, NumPy or SciPy or as a list; None for any other value."""
    columns = _columns_of(value)
    if columns is not None:
        return None if _hides(columns) else _rows_of_table(value, count)
    pandas = sys.modules.get("pandas")
    if pandas is not None and isinstance(value, pandas.Series):
        return value.iloc[:count].to_numpy(copy=True)
    if is_sparse(value):
        return value.tocsr()[:count].copy()
    if is_array(value):
        return array_of(value[:count] if value.ndim else value)
    if isinstance(value, (list, tuple)):
        return list(value[:count])
    return None


def _columns_of(value: Any) -> Any:
    """The names of the columns of a frame or table; None for any other value."""
    pandas, polars, pyarrow = (sys.modules.get(name) for name in ("pandas", "polars", "pyarrow"))
    if pandas is not None and isinstance(value, pandas.DataFrame):
        return value.columns
    if polars is not None and isinstance(value, polars.DataFrame):
        return value.columns
    if pyarrow is not None and isinstance(value, (pyarrow.Table, pyarrow.RecordBatch)):
        return value.schema.names
    return None


def _rows_of_table(value: Any, count: int | None) -> Any:
    if hasattr(value, "iloc"):
        return (value if count is None else value.iloc[_representative_rows(value, count)]).reset_index(drop=True)
    if count is not None:
        rows = _rows_with_missing(value, count)
        value = value.take(rows) if hasattr(value, "itercolumns") else value[rows]
    return value.to_pandas()


def _representative_rows(frame: Any, count: int) -> list[int]:
    """The indices of the first rows of a frame, and of some more rows with missing values and other types.

    A signature from only the first rows would reject the data that the model was fitted on.
    """
    rows = dict.fromkeys(range(min(count, len(frame))))
    columns = [position for position, dtype in enumerate(frame.dtypes) if _is_mixed(dtype)]
    searched = _MAX_SEARCHED // max(len(columns), 1)
    for position in columns:
        first: dict[Any, int] = {}
        for row, cell in enumerate(frame.iloc[:searched, position].tolist()):
            first.setdefault(frozenset(cell) if isinstance(cell, dict) else type(cell), row)
        rows.update(dict.fromkeys(list(first.values())[:_MAX_KINDS]))
    return list(rows)[: count + _MAX_MORE]


def _is_mixed(dtype: Any) -> bool:
    """Whether the cells of a column may have several types or be missing."""
    return str(dtype) == "object" or (getattr(dtype, "na_value", None) is not None and str(dtype) != "category")


def _rows_with_missing(table: Any, count: int) -> list[int]:
    """The indices of the first rows of a polars or pyarrow table, and of some rows with missing values."""
    rows = dict.fromkeys(range(min(count, len(table))))
    for column in table.iter_columns() if hasattr(table, "iter_columns") else table.itercolumns():
        missing = column.null_count() if callable(column.null_count) else column.null_count
        if missing:
            nulls = column.is_null()
            rows[nulls.arg_max() if hasattr(nulls, "arg_max") else nulls.index(True).as_py()] = None
    return list(rows)[: count + _MAX_MORE]


def answer_of(value: Any) -> Any:
    """The output of a model in a form that can be stored; None if it cannot be stored."""
    pandas = sys.modules.get("pandas")
    if pandas is not None and isinstance(value, pandas.Series):
        return value.reset_index(drop=True)
    return value if isinstance(value, (dict, str, int, float)) else rows_of(value, None)


def _opened(arguments: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, value in arguments.items():
        if is_secret_name(name):
            continue
        if type(value) is tuple:
            yield from ((name, part) for part in value[:20])
        elif isinstance(value, dict):
            yield from ((str(key), part) for key, part in list(value.items())[:20] if not is_secret_name(str(key)))
        else:
            yield name, value


def _is_data(value: Any) -> bool:
    if _width(value) is not None or (is_array(value) and value.ndim > 2):
        return _few_cells(value)
    pandas = sys.modules.get("pandas")
    if pandas is not None and isinstance(value, pandas.Series):
        return len(value) > 0 and type(value.iloc[0]) is str
    return type(value) is list and bool(value) and type(value[0]) is str


def _texts(values: Any) -> Any:
    import numpy as np

    return np.array([str(text) for text in values]) if all(isinstance(text, str) for text in values) else None


def _few_cells(value: Any) -> bool:
    """Whether a few rows have so few cells that a person can read them and a text file can hold them."""
    cells = 1
    for size in value.shape[1:]:
        cells *= size
    return bool(value.shape[0]) and cells * ROWS <= _MAX_CELLS


def _width(value: Any) -> int | None:
    """The number of columns of a table; None for any other value."""
    columns = _columns_of(value)
    if columns is not None:
        return len(columns)
    if is_sparse(value) or (is_array(value) and value.ndim == 2):
        return int(value.shape[1])
    return None


def _select(value: Any, names: tuple[Any, ...]) -> Any:
    """The columns with these names; None if the value does not have all of them."""
    if not hasattr(value, "columns"):
        return None
    present = getattr(value, "column_names", None)  # In pyarrow, `columns` is the data.
    if not set(names) <= set(value.columns if present is None else present):
        return None
    pandas = sys.modules.get("pandas")
    if pandas is not None and isinstance(value, pandas.DataFrame):
        picked = value.iloc[_representative_rows(value, ROWS)][list(names)]
        return rows_of(picked, None) if picked.shape[1] == len(names) else None
    return rows_of(value.select(list(names)))


def _hides(columns: Any) -> bool:
    return any(is_secret_name(str(name)) for name in columns)


def is_array(value: Any) -> bool:
    root = type(value).__module__.partition(".")[0]
    return root in _ARRAYS and hasattr(value, "ndim") and hasattr(value, "dtype") and hasattr(value, "shape")


def is_sparse(value: Any) -> bool:
    sparse = sys.modules.get("scipy.sparse")
    return sparse is not None and bool(sparse.issparse(value)) and value.ndim == 2


def array_of(value: Any) -> Any:
    import numpy as np

    if hasattr(value, "detach"):
        value = value.detach().cpu()
        value = value.float() if str(value.dtype) == "torch.bfloat16" else value
        return value.numpy().copy()
    return np.array(value)

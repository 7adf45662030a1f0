"""Short digests of tables, computed from some of their rows and columns, because a decorated call must be quick.

Two tables of the same size that differ only in other cells have the same digest. The digest of a parameter marked
`Dataset` covers everything.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from typing import Any

from trackdsl.handlers._array_digest import short_digest
from trackdsl.handlers._value_digest import digest_of

#: How many numbers of a column are covered, at regular steps; and how many other values, at its beginning and its end.
_NUMBERS = 256
_ROWS = 16
#: How many columns are covered if they have several types.
_MAX_COLUMNS = 8


def digest_of_frame(frame: Any, dtypes: Sequence[Any]) -> str:
    """The digest of a pandas frame.

    Args:
        frame: any frame.
        dtypes: the types of its first columns.
    """
    parts = [_of_index(frame.index)]
    if len(set(dtypes)) == 1 and type(dtypes[0]).__module__ != "pandas" and dtypes[0].kind in "biufc":
        parts.append(_of_numbers(frame.iloc[:: len(frame) // _NUMBERS | 1].to_numpy()))
    else:
        parts.extend(_of_array(column.array) for _, column in islice(frame.items(), _MAX_COLUMNS))
    return digest_of(parts)


def digest_of_series(series: Any) -> str:
    """The digest of a pandas series."""
    return digest_of([_of_index(series.index), _of_array(series.array)])


def digest_of_index(index: Any) -> str:
    """The digest of a pandas index."""
    return digest_of([_of_index(index)])


def digest_of_array(array: Any) -> str:
    """The digest of a pandas extension array."""
    return digest_of([_of_array(array)])


def digest_of_columns(columns: Iterable[Any], length: int, items: Callable[[Any, int, int], list[Any]]) -> str:
    """The digest of the first and last rows of the first columns of a table.

    Args:
        columns: all columns.
        length: the number of rows.
        items: returns the values of a column, given the first row and the number of rows.
    """
    ranges = [(0, length)] if length <= 2 * _ROWS else [(0, _ROWS), (length - _ROWS, _ROWS)]
    return digest_of([items(column, *rows) for column in islice(columns, _MAX_COLUMNS) for rows in ranges])


def _of_index(index: Any) -> list[Any]:
    if hasattr(index, "start") and hasattr(index, "step"):
        return [index.start, index.stop, index.step]
    if index.nlevels == 1:
        return _of_array(index.array)
    return [str(item) for end in _ends(index) for item in end.tolist()]


def _of_array(values: Any) -> list[Any]:
    if type(values).__name__ in ("NumpyExtensionArray", "PandasArray"):
        values = values.to_numpy()
        return _of_numbers(values) if not values.dtype.hasobject else _of_ends(values)
    if hasattr(values, "asi8"):  # Times; the summary shows their type and time zone.
        return _of_numbers(values.asi8)
    if hasattr(values, "codes"):
        return [*_of_numbers(values.codes), *_of_index(values.categories)]
    return _of_ends(values)


def _of_numbers(values: Any) -> list[Any]:
    return [short_digest(values[:: len(values) // _NUMBERS | 1])]


def _of_ends(values: Any) -> list[Any]:
    return [item for end in _ends(values) for item in end.tolist()]


def _ends(values: Any) -> list[Any]:
    return [values] if len(values) <= 2 * _ROWS else [values[:_ROWS], values[-_ROWS:]]

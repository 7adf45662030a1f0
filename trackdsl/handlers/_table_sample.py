"""Short digests of tables, of some of their rows and columns: in a decorated call there is no time for all of them.

Two tables of the same size that differ only elsewhere read the same; the digest of a `Dataset` covers everything.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from typing import Any

from trackdsl.handlers._array_digest import short_digest
from trackdsl.handlers._value_digest import digest_of

#: Of numbers so many are taken, at even steps; of anything else so many at the beginning and at the end.
_NUMBERS = 256
_ROWS = 16
#: Of columns of several types, so many.
_MAX_COLUMNS = 8


def digest_of_frame(frame: Any, dtypes: Sequence[Any]) -> str:
    """The digest of a frame of pandas.

    Args:
        frame: any.
        dtypes: of its first columns.
    """
    parts = [_of_index(frame.index)]
    if len(set(dtypes)) == 1 and type(dtypes[0]).__module__ != "pandas" and dtypes[0].kind in "biufc":
        parts.append(_of_numbers(frame.iloc[:: len(frame) // _NUMBERS | 1].to_numpy()))
    else:
        parts.extend(_of_array(column.array) for _, column in islice(frame.items(), _MAX_COLUMNS))
    return digest_of(parts)


def digest_of_series(series: Any) -> str:
    """The digest of a series of pandas."""
    return digest_of([_of_index(series.index), _of_array(series.array)])


def digest_of_index(index: Any) -> str:
    """The digest of an index of pandas."""
    return digest_of([_of_index(index)])


def digest_of_array(array: Any) -> str:
    """The digest of an extension array of pandas."""
    return digest_of([_of_array(array)])


def digest_of_columns(columns: Iterable[Any], length: int, items: Callable[[Any, int, int], list[Any]]) -> str:
    """The digest of the first columns of a table, at its beginning and at its end.

    Args:
        columns: all of them.
        length: how many rows there are.
        items: gives the values of a column from a row on, so many.
    """
    places = [(0, length)] if length <= 2 * _ROWS else [(0, _ROWS), (length - _ROWS, _ROWS)]
    return digest_of([items(column, *place) for column in islice(columns, _MAX_COLUMNS) for place in places])


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
    if hasattr(values, "asi8"):  # Times, whose type and zone the summary tells.
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

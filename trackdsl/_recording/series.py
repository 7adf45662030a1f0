"""Metrics of any form → points: numbers, and series of numbers by step. Other values are reported with a reason.

A list, or a column of a frame, is a series: its first value gets the step of the call, each further value the next
step. If the data has steps of its own (a column `step` or `epoch`, an index of integers), these count.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from trackdsl._core.redaction import mask_prose
from trackdsl._recording.columns import (
    FRAMES,
    HISTORIES,
    MAX_POINTS,
    Column,
    column_of,
    is_of,
    step_names,
    steps_or_labels,
    table_of,
)
from trackdsl._recording.metric_names import name_rounds
from trackdsl._recording.numbers import is_mapping, is_missing, is_number, is_single, leaves, to_number
from trackdsl.errors import format_error, reraise_from_signal
from trackdsl.handlers._scalar_text import name_of_key
from trackdsl.handlers._types import class_name, is_array_like

#: A returned series or frame with more labels or columns than this is data, not a row of metrics.
MAX_LABELS = 100


class Points:
    """The points of one call.

    Args:
        start: the step of the call.

    Attributes:
        values: the numbers at that step, by name.
        omitted: name → why a value is not a point.
    """

    def __init__(self, start: int) -> None:
        self.values: dict[str, float] = {}
        self.omitted: dict[str, str] = {}
        self._start = start
        self._series: dict[int, list[dict[str, float]]] = {}
        self._left = MAX_POINTS

    def add_all(self, metrics: Any) -> None:
        """Add numbers, series and structures by name.

        Raises:
            TypeError, ValueError: the values have no names.
        """
        if table_of(metrics) is not None or is_of(type(metrics), FRAMES, "Series"):
            self.add("", metrics)
            return
        if not is_mapping(metrics):
            metrics = _by_name(metrics)
        self._add_parts("", metrics)

    def add(self, name: str, value: Any) -> None:
        """Add the value of one name."""
        try:
            self._add(name, value)
        except Exception as error:
            reraise_from_signal(error)
            self._omit(name, value, format_error(error))

    def series(self) -> Iterator[tuple[int, dict[str, float]]]:
        """The points of the series, grouped by step."""
        for step, groups in self._series.items():
            for values in groups:
                yield step, values

    def _add(self, name: str, value: Any) -> None:
        if isinstance(value, str) or (name and is_single(value)):
            self.values[name] = to_number(value)
            return
        columns = table_of(value)
        if columns is not None:
            for column in columns:
                self._add_column(_joined(name, column.name), column)
            return
        only = column_of(value)
        if only is None and is_mapping(value):
            self._add_parts(f"{name}/", value)
        elif only is None:
            self.values[name] = to_number(value)
        elif only.labels is not None:
            self._add_labelled(name, only)
        else:
            self._add_series(name or only.name or "value", only)

    def _add_parts(self, prefix: str, value: Any) -> None:
        # A table or series inside is one part.
        for name, part in leaves(value, prefix, whole=lambda _, part: table_of(part) is not None):
            self.add(name, part)

    def _add_column(self, name: str, column: Column) -> None:
        if column.labels is not None:
            self._add_labelled(name, column)
            return
        try:
            self._add_series(name or "value", column)
        except Exception as error:
            reraise_from_signal(error)
            self._omit(name or "value", column.items, format_error(error))

    def _add_labelled(self, name: str, column: Column) -> None:
        for label, item in zip(column.labels or (), column.items, strict=True):
            self.add(_joined(name, label), item)

    def _add_series(self, name: str, column: Column) -> None:
        count = len(column.items)
        if count > self._left:
            raise ValueError(f"{count} values are more than the {MAX_POINTS} points that one call may have")
        found: list[tuple[int, float]] = []
        for index, item in enumerate(column.items):
            if is_missing(item) or (column.holes and item != item):
                continue
            if not (isinstance(item, str) or is_single(item)):
                raise TypeError(f"its value {index} is a {class_name(item)}")
            found.append((self._start + index if column.steps is None else column.steps[index], to_number(item)))
        if not found:
            raise ValueError("there is no value in it")
        self._left -= count
        for step, number in found:
            groups = self._series.setdefault(step, [])
            free = next((group for group in groups if name not in group), None)
            if free is None:
                groups.append({name: number})
            else:
                free[name] = number

    def _omit(self, name: str, value: Any, why: str) -> None:
        self.omitted[name] = mask_prose(f"{type(value).__name__} is not a number: {why}")[:500]


def is_history(value: Any, around: str = "") -> bool:
    """Whether a returned value is a history of training, or a row of metrics.

    These are: a `History` of Keras; a dict of equally long lists of floats with names of metrics, as XGBoost and
    LightGBM fill it, or with a list of steps; a frame or records of numbers with a column of steps; a pandas series
    with a label for each number.

    Args:
        value: any object.
        around: the name that the value has, see `name_rounds`.
    """
    kind = type(value)
    try:
        if issubclass(kind, dict):
            return _is_dict_of_rounds(value, around)
        if is_of(kind, ("pandas",), "Series"):
            labelled = len(value) <= MAX_LABELS and steps_or_labels(value.index)[1] is not None
            return labelled and _is_numeric(value.tolist())
        if is_of(kind, HISTORIES, "History"):
            return True
        if is_of(kind, FRAMES, "DataFrame", "Table", "RecordBatch"):
            names = list(value.schema.names if hasattr(value, "schema") else map(str, value.columns))
            if not step_names(names) or len(names) > MAX_LABELS or not len(value):
                return False
        elif not (issubclass(kind, list) and value and step_names(_texts(value[0]))):
            return False
        columns = table_of(value)
    except Exception:  # The object only resembles a frame or history.
        return False
    return bool(columns) and all(column.steps is not None and _is_numeric(column.items) for column in columns or ())


def _by_name(metrics: Any) -> dict[Any, Any]:
    with contextlib.suppress(TypeError, ValueError):
        if not is_array_like(type(metrics)):
            return dict(metrics)
    raise TypeError(f"{class_name(metrics)} has no names: give numbers by name, such as {{'loss': 0.3}}, or a frame")


def _is_dict_of_rounds(value: Mapping[Any, Any], around: str) -> bool:
    lists = list(value.values())
    if not lists or not all(type(items) is list for items in lists) or len(set(map(len, lists))) != 1:
        return False
    if len(lists[0]) > MAX_POINTS or not all(map(_is_numeric, lists)):
        return False
    names = list(map(name_of_key, value))
    if name_rounds(names):
        return True
    # Integers with any other names may be sizes.
    named = bool(step_names(_texts(value))) or name_rounds(names, around)
    return named and any(not (is_missing(item) or isinstance(item, int)) for items in lists for item in items)


def _is_numeric(items: Sequence[Any]) -> bool:
    return all(is_missing(item) or is_number(item) for item in items)


def _texts(value: Any) -> list[str]:
    return [key for key in value if isinstance(key, str)] if issubclass(type(value), Mapping) else []


def _joined(*names: str) -> str:
    return "/".join(filter(None, names))

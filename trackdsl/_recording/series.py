"""Metrics of any form → points: numbers, and series of numbers by step. Other values are reported with a reason.

A list, or a column of a frame, is a series: its first value gets the step of the call, each further value the next
step. If the data has steps of its own (a column `step` or `epoch`, an index of integers), these count.
"""

from __future__ import annotations

import contextlib
from array import array
from collections import deque
from collections.abc import Iterator, Mapping, Sequence, ValuesView
from dataclasses import dataclass
from typing import Any

from trackdsl._core.redaction import mask_prose
from trackdsl._recording.metric_names import name_rounds
from trackdsl._recording.numbers import is_mapping, is_missing, is_number, is_single, leaves, to_number
from trackdsl.errors import format_error, reraise_from_signal
from trackdsl.handlers._scalar_text import name_of_key
from trackdsl.handlers._types import class_name, full_name, is_array_like

#: More points than this in one call are data, not a metric.
MAX_POINTS = 100_000
#: A returned series or frame with more labels or columns than this is data, not a row of metrics.
MAX_LABELS = 100
#: The names of columns with steps, the finest first.
STEP_NAMES = (
    "step", "global_step", "_step", "trainer/global_step", "train/global_step", "steps", "timestep", "iteration",
    "iter", "iterations", "training_iteration", "epoch", "epochs", "round",
)  # fmt: skip
_SEQUENCES = (list, tuple, range, deque, array)
_FRAMES = ("pandas", "polars", "pyarrow")
_HISTORIES = ("keras", "tf_keras", "tensorflow")


@dataclass(frozen=True)
class Column:
    """A series of values.

    Attributes:
        items: the values.
        steps: one for each value, if the data has steps.
        labels: one for each value, if the data has labels instead of steps.
        name: the name of the column, or an empty text.
        holes: whether NaN means a missing value, as in frames.
    """

    items: Sequence[Any]
    steps: Sequence[int] | None = None
    labels: Sequence[str] | None = None
    name: str = ""
    holes: bool = False


class Points:
    """The points of one call.

    Args:
        start: the step of the call.

    Attributes:
        values: the numbers at that step, by name.
        omitted: name → why a value is no point.
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
        if table_of(metrics) is not None or _is_of(type(metrics), _FRAMES, "Series"):
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
        self.omitted[name] = mask_prose(f"{type(value).__name__} is no number: {why}")[:500]


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
        if _is_of(kind, ("pandas",), "Series"):
            return len(value) <= MAX_LABELS and _positions(value.index)[1] is not None and _is_numeric(value.tolist())
        if _is_of(kind, _HISTORIES, "History"):
            return True
        if _is_of(kind, _FRAMES, "DataFrame", "Table", "RecordBatch"):
            names = list(value.schema.names if hasattr(value, "schema") else map(str, value.columns))
            if not _step_names(names) or len(names) > MAX_LABELS or not len(value):
                return False
        elif not (issubclass(kind, list) and value and _step_names(_texts(value[0]))):
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
    named = bool(_step_names(_texts(value))) or name_rounds(names, around)
    return named and any(not (is_missing(item) or isinstance(item, int)) for items in lists for item in items)


def _is_numeric(items: Sequence[Any]) -> bool:
    return all(is_missing(item) or is_number(item) for item in items)


def _texts(value: Any) -> list[str]:
    return [key for key in value if isinstance(key, str)] if issubclass(type(value), Mapping) else []


def column_of(value: Any) -> Column | None:
    """A list, an array of one dimension, or a series, as a column; None for other objects."""
    kind = type(value)
    if issubclass(kind, ValuesView):
        value, kind = list(value), list
    if issubclass(kind, _SEQUENCES):
        return None if hasattr(kind, "_fields") else Column(value)
    if not is_array_like(kind) and not _is_of(kind, ("pyarrow",), "ChunkedArray", "Array"):
        return None
    shape = getattr(value, "shape", (0,))
    if len(shape) != 1:
        return None
    if len(value) > MAX_POINTS:
        return Column(range(len(value)))  # It is too long, so it is not read.
    if _is_of(kind, ("pandas",), "Series"):
        steps, labels = _positions(value.index)
        return Column(value.tolist(), steps, labels, "" if labels else _text(value.name))
    own = _text(value.name) if _is_of(kind, ("polars",), "Series") else ""
    return Column(_items(value), name=own)


def table_of(value: Any) -> list[Column] | None:
    """The columns of frames, records and histories of training; None for other objects."""
    kind = type(value)
    if issubclass(kind, dict):
        return _of_mapping(value)
    if issubclass(kind, (list, tuple)):
        return _of_records(value)
    if _is_of(kind, _FRAMES, "DataFrame", "Table", "RecordBatch"):
        return _of_frame(value)
    if _is_of(kind, _HISTORIES, "History"):
        epochs = list(value.epoch)
        return [
            Column(list(items), epochs if len(epochs) == len(items) else None, name=str(name))
            for name, items in value.history.items()
        ]
    return None


def _of_mapping(value: Mapping[Any, Any]) -> list[Column] | None:
    """The columns of a dict of lists, one of which holds the steps of all lists with its length."""
    for name in _step_names([key for key in value if isinstance(key, str)]):
        column = column_of(value[name])
        steps = None if column is None else _whole(column.items)
        if steps:
            others = [(name_of_key(key), part) for key, part in value.items() if key != name]
            found = [column for key, part in others for column in _with_steps_of(key, part, steps)]
            if any(other.steps is steps for other in found):
                return found
    return None


def _with_steps_of(name: str, value: Any, steps: list[int]) -> Iterator[Column]:
    column = column_of(value)
    if column is not None and len(column.items) == len(steps):
        yield Column(column.items, steps, name=name)
    elif issubclass(type(value), dict):
        for key, part in value.items():
            yield from _with_steps_of(f"{name}/{name_of_key(key)}", part, steps)
    else:
        yield Column([value], labels=[name])


def _of_records(value: Sequence[Any]) -> list[Column] | None:
    if not 0 < len(value) <= MAX_POINTS or hasattr(type(value), "_fields") or not all(map(_is_record, value)):
        return None
    names = dict.fromkeys(name for record in value for name in record)
    return _with_steps(
        {name_of_key(name): [record.get(name) for record in value] for name in names}, len(value), None, None
    )


def _is_record(value: Any) -> bool:
    return issubclass(type(value), Mapping)


def _of_frame(value: Any) -> list[Column]:
    if hasattr(value, "iloc"):
        names = ["/".join(map(str, name)) if isinstance(name, tuple) else str(name) for name in value.columns]
        columns: list[Any] = [value.iloc[:, index] for index in range(len(names))]
        steps, labels = _positions(value.index) if len(value) <= MAX_POINTS else (None, None)
    else:
        names = list(value.columns if hasattr(value, "get_columns") else value.schema.names)
        columns = value.get_columns() if hasattr(value, "get_columns") else list(value.columns)
        steps, labels = None, None
    count = len(columns[0]) if columns else 0
    if count > MAX_POINTS:
        return [Column(range(count), name=name) for name in names]
    found = {name: _items(column) for name, column in zip(names, columns, strict=True)}
    return _with_steps(found, count, steps, labels)


def _with_steps(
    columns: Mapping[str, Sequence[Any]], count: int, steps: Sequence[int] | None, labels: Sequence[str] | None
) -> list[Column]:
    for name in _step_names(columns):
        whole = _whole(columns[name])
        if whole:
            others = {key: items for key, items in columns.items() if key != name}
            return [Column(items, whole, name=key, holes=True) for key, items in others.items()]
    if labels is not None:
        return [
            Column([items[row] for items in columns.values()], labels=list(columns), name=label)
            for row, label in enumerate(labels)
        ]
    if count == 1 and steps is None:
        return [Column([items[0] for items in columns.values()], labels=list(columns))]
    return [Column(items, steps, name=key, holes=True) for key, items in columns.items()]


def _positions(index: Any) -> tuple[list[int] | None, list[str] | None]:
    """The steps or the labels in a pandas index; neither if it only counts the rows, or holds other values."""
    names = [name if isinstance(name, str) else "" for name in index.names]
    if len(names) > 1 and len(_step_names(names)) == len(names):  # Such as `set_index(["epoch", "step"])`.
        index = index.get_level_values(names.index(_step_names(names)[0]))
    entries = index.tolist()
    if any(isinstance(entry, (str, bool, tuple)) for entry in entries):
        return None, ["/".join(map(str, entry)) if isinstance(entry, tuple) else str(entry) for entry in entries]
    steps = _whole(entries)
    return (None if steps is None or steps == list(range(len(steps))) else steps), None


def _step_names(names: Any) -> list[str]:
    return sorted(
        (name for name in names if name.lower() in STEP_NAMES), key=lambda name: STEP_NAMES.index(name.lower())
    )


def _whole(items: Sequence[Any]) -> list[int] | None:
    """The items as integers; None if one is not an integer."""
    found = []
    for item in items:
        if not is_number(item) or type(item) is bool or item != item // 1:  # NaN is excluded too.
            return None
        found.append(int(item))
    return found or None


def _items(value: Any) -> list[Any]:
    for way in ("tolist", "to_list", "to_pylist"):
        if hasattr(value, way):
            return list(getattr(value, way)())
    return list(value)


def _joined(*names: str) -> str:
    return "/".join(filter(None, names))


def _text(name: Any) -> str:
    return "" if name is None else str(name)


def _is_of(kind: type, packages: Sequence[str], *names: str) -> bool:
    """Whether a type is, or derives from, one of these classes, by name, so that nothing is imported."""
    return any(base.__name__ in names and full_name(base).partition(".")[0] in packages for base in kind.__mro__)

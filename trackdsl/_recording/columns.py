"""Lists, arrays, frames and histories of training → columns, with the steps or labels that the data itself has."""

from __future__ import annotations

from array import array
from collections import deque
from collections.abc import Iterator, Mapping, Sequence, ValuesView
from dataclasses import dataclass
from typing import Any

from trackdsl._recording.numbers import is_number
from trackdsl.handlers._scalar_text import name_of_key
from trackdsl.handlers._types import full_name, is_array_like

#: More points than this in one call are data, not a metric.
MAX_POINTS = 100_000
#: The names of columns with steps, the finest first.
STEP_NAMES = (
    "step", "global_step", "_step", "trainer/global_step", "train/global_step", "steps", "timestep", "iteration",
    "iter", "iterations", "training_iteration", "epoch", "epochs", "round",
)  # fmt: skip
_SEQUENCES = (list, tuple, range, deque, array)
FRAMES = ("pandas", "polars", "pyarrow")
HISTORIES = ("keras", "tf_keras", "tensorflow")


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


def column_of(value: Any) -> Column | None:
    """A list, an array of one dimension, or a series, as a column; None for other objects."""
    kind = type(value)
    if issubclass(kind, ValuesView):
        value, kind = list(value), list
    if issubclass(kind, _SEQUENCES):
        return None if hasattr(kind, "_fields") else Column(value)
    if not is_array_like(kind) and not is_of(kind, ("pyarrow",), "ChunkedArray", "Array"):
        return None
    shape = getattr(value, "shape", (0,))
    if len(shape) != 1:
        return None
    if len(value) > MAX_POINTS:
        return Column(range(len(value)))  # It is too long, so it is not read.
    if is_of(kind, ("pandas",), "Series"):
        steps, labels = steps_or_labels(value.index)
        return Column(value.tolist(), steps, labels, "" if labels else _text(value.name))
    own = _text(value.name) if is_of(kind, ("polars",), "Series") else ""
    return Column(_items(value), name=own)


def table_of(value: Any) -> list[Column] | None:
    """The columns of frames, records and histories of training; None for other objects."""
    kind = type(value)
    if issubclass(kind, dict):
        return _of_mapping(value)
    if issubclass(kind, (list, tuple)):
        return _of_records(value)
    if is_of(kind, FRAMES, "DataFrame", "Table", "RecordBatch"):
        return _of_frame(value)
    if is_of(kind, HISTORIES, "History"):
        epochs = list(value.epoch)
        return [
            Column(list(items), epochs if len(epochs) == len(items) else None, name=str(name))
            for name, items in value.history.items()
        ]
    return None


def _of_mapping(value: Mapping[Any, Any]) -> list[Column] | None:
    """The columns of a dict of lists, one of which holds the steps of all lists with its length."""
    for name in step_names([key for key in value if isinstance(key, str)]):
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
        steps, labels = steps_or_labels(value.index) if len(value) <= MAX_POINTS else (None, None)
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
    for name in step_names(columns):
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


def steps_or_labels(index: Any) -> tuple[list[int] | None, list[str] | None]:
    """The steps or the labels in a pandas index; neither if it only counts the rows, or holds other values."""
    names = [name if isinstance(name, str) else "" for name in index.names]
    if len(names) > 1 and len(step_names(names)) == len(names):  # Such as `set_index(["epoch", "step"])`.
        index = index.get_level_values(names.index(step_names(names)[0]))
    entries = index.tolist()
    if any(isinstance(entry, (str, bool, tuple)) for entry in entries):
        return None, ["/".join(map(str, entry)) if isinstance(entry, tuple) else str(entry) for entry in entries]
    steps = _whole(entries)
    return (None if steps is None or steps == list(range(len(steps))) else steps), None


def step_names(names: Any) -> list[str]:
    """The names among these that columns with steps have, such as `epoch`; the finest first."""
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


def _text(name: Any) -> str:
    return "" if name is None else str(name)


def is_of(kind: type, packages: Sequence[str], *names: str) -> bool:
    """Whether a type is, or derives from, one of these classes, by name, so that nothing is imported."""
    return any(base.__name__ in names and full_name(base).partition(".")[0] in packages for base in kind.__mro__)

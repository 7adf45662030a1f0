"""Rows of a table → a file and an event; delivery appends the rows to the table at MLflow.

The format is that of `mlflow.log_table`: `{"columns": [...], "data": [[...], ...]}`.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import uuid
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from trackdsl._core.artifact_paths import masked_path, portable_path
from trackdsl._core.events import Table
from trackdsl._core.handle import RunHandle
from trackdsl._core.redaction import is_secret, is_secret_name, mask_entry, mask_name, mask_prose, mask_text, remember
from trackdsl._recording import artifacts as _artifacts
from trackdsl._recording import images as _images
from trackdsl._recording.emit import append_tags
from trackdsl.errors import OptionError, format_error, report, reraise_from_signal
from trackdsl.handlers._content import content_of
from trackdsl.handlers._registry import handler_for, handler_of
from trackdsl.handlers._scalar_text import name_of_key
from trackdsl.handlers._types import class_name, is_array_like

#: The suffixes that `MlflowClient.log_table` accepts, and the characters it refuses; see mlflow/tracking/client.py.
_SUFFIXES = (".json", ".parquet")
_REFUSED = "\"',:[]{}"
_INT64 = 1 << 63

Rows = tuple[list[Any], list[list[Any]]]


def append_table(run: RunHandle, data: Any, artifact_file: str) -> None:
    """Append rows to a table; see `Run.log_table`.

    Raises:
        OptionError: a table cannot have this path.
    """
    _check(artifact_file)
    if run.target.discards:
        return
    artifact_file = masked_path(artifact_file)
    try:
        artifact_path = portable_path(artifact_file)
        columns, rows = rows_of(data)
        names = _distinct([mask_name(_text(name_of_key(column))) for column in columns])
        cells = _Cells(run, artifact_path)
        secret = [is_secret_name(name) for name in names]
        plain = [
            [
                remember(value) if hidden and is_secret(name, value) else cells.cell(name, value)
                for name, hidden, value in zip(names, secret, row, strict=True)
            ]
            for row in rows
        ]
        relative = _write(run, json.dumps({"columns": names, "data": plain}, ensure_ascii=False))
        append_tags(run, cells.notes)
    except Exception as error:
        reraise_from_signal(error)
        reason = mask_prose(format_error(error))
        report("table", f"trackdsl could not keep rows of the table {artifact_file!r}: {reason}", key=artifact_file)
        append_tags(run, {f"trackdsl.omitted.{artifact_file}": reason[:500]})
        return
    run.emit(Table(run.key, artifact_path, relative), vital=True)


def rows_of(data: Any) -> Rows:
    """The names of the columns, and the rows.

    Args:
        data: a dict of columns, a list of dicts, or a frame of pandas, polars or pyarrow.

    Raises:
        TypeError: it is none of these.

    >>> rows_of({"x": [1, 2], "y": "a"})
    (['x', 'y'], [[1, 'a'], [2, 'a']])
    """
    if isinstance(data, Mapping):
        return _of_columns(dict(data))
    if isinstance(data, (list, tuple)) and not hasattr(data, "_fields"):
        return _of_records(data)
    if hasattr(data, "column_names") and hasattr(data, "itercolumns"):  # pyarrow
        return list(data.column_names), _turned([column.to_pylist() for column in data.itercolumns()])
    if hasattr(data, "columns") and callable(getattr(data, "rows", None)):  # polars
        return list(data.columns), [list(row) for row in data.rows()]
    if hasattr(data, "columns") and hasattr(data, "iloc"):  # pandas
        columns = [".".join(map(str, name)) if isinstance(name, tuple) else name for name in data.columns]
        return columns, _turned([data.iloc[:, index].tolist() for index in range(len(columns))])
    raise TypeError(f"{class_name(data)} is not a table: give a dict of columns, a list of dicts, or a frame")


def _of_columns(columns: dict[Any, Any]) -> Rows:
    """Read a dict as `mlflow.log_table` does: a scalar fills every row; columns of different lengths are one row."""
    lists = {name: _listed(value) for name, value in columns.items()}
    lengths = {len(values) for values in lists.values() if values is not None}
    if len(lengths) != 1:
        return list(columns), [list(columns.values())] if columns else []
    (length,) = lengths
    every = [[columns[name]] * length if values is None else values for name, values in lists.items()]
    return list(columns), [list(row) for row in zip(*every, strict=True)]


def _of_records(records: Any) -> Rows:
    found: list[dict[Any, Any]] = []
    for record in records:
        parts = handler_for(type(record)).children(record)
        if parts is None:
            raise TypeError(f"a row that is a {class_name(record)} has no columns")
        found.append(dict(mask_entry(parts)))
    columns = list(dict.fromkeys(name for record in found for name in record))
    return columns, [[record.get(name) for name in columns] for record in found]


def _listed(value: Any) -> list[Any] | None:
    """The values of a column; None for a single value."""
    if isinstance(value, (list, tuple, range)):
        return list(value)
    if (
        is_array_like(type(value)) and len(value.shape) == 1 and hasattr(value, "tolist")
    ):  # Arrays, tensors, series of pandas
        return list(value.tolist())
    for way in ("to_list", "to_pylist"):  # polars, pyarrow
        if hasattr(value, way) and hasattr(value, "__len__"):
            return list(getattr(value, way)())
    return None


def _turned(columns: list[list[Any]]) -> list[list[Any]]:
    return [list(row) for row in zip(*columns, strict=True)]


class _Cells:
    """Converts values to JSON. A value that JSON cannot hold becomes one file, however many cells contain it.

    Args:
        run: whose table it is.
        artifact_path: of the table.

    Attributes:
        notes: tags that report such values.
    """

    def __init__(self, run: RunHandle, artifact_path: str) -> None:
        self._run = run
        self._artifact_path = artifact_path
        self._files: dict[int, tuple[Any, Any]] = {}
        self.notes: dict[str, str] = {}

    def cell(self, column: str, value: Any) -> Any:
        """The content of one cell."""
        kind = type(value)
        if value is None or kind is bool:
            return value
        if kind is float:
            return _number(value)
        if kind is int:
            return value if -_INT64 <= value < _INT64 else str(value)
        if kind is str:
            return _text(mask_text(value))
        if _images.is_picture(value):
            return self._once(value, lambda: _images.record_cell(self._run, value, self._artifact_path))
        tree = content_of(value, partial(self._keep, column), partial(self._add_reason, column))
        return _settled(tree)

    def _once(self, value: Any, make: Callable[[], Any]) -> Any:
        if id(value) not in self._files:
            self._files[id(value)] = (value, make())  # The value is kept, so that no other object gets its `id`.
        return self._files[id(value)][1]

    def _keep(self, column: str, _: tuple[str, ...], value: Any) -> Any:
        handler = handler_of(value)
        if handler.executes:  # One pickle for each row would be too much.
            self._add_reason(column, (), f"JSON cannot hold {class_name(value)}: its class is recorded")
            return class_name(value)
        folder = f"table_files/{self._artifact_path.rpartition('.')[0]}"
        self._add_reason(column, (), f"JSON cannot hold {class_name(value)}: files are kept in {folder}")
        artifact_path = f"{folder}/{uuid.uuid4()}{handler.suffix}"
        return self._once(value, lambda: _artifacts.keep_object(self._run, artifact_path, value, handler))

    def _add_reason(self, column: str, _: tuple[str, ...], why: str) -> None:
        self.notes.setdefault(f"trackdsl.omitted.{self._artifact_path}/{column}", mask_prose(why)[:500])


def _number(value: float) -> float | str | None:
    # JSON has none for infinity; `mlflow.load_table` reads this text back as what it was.
    return value if math.isfinite(value) else None if value != value else str(value)


def _settled(tree: Any) -> Any:
    """A tree with everything replaced that JSON, or MLflow's reader of it, cannot hold."""
    if isinstance(tree, dict):
        return {_text(key): _settled(part) for key, part in tree.items()}
    if isinstance(tree, list):
        return [_settled(part) for part in tree]
    if isinstance(tree, str):
        return _text(tree)
    if isinstance(tree, float):
        return _number(tree)
    if isinstance(tree, int) and not -_INT64 <= tree < _INT64:
        return str(tree)
    return tree


def _text(text: str) -> str:
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode("utf-8")


def _distinct(names: list[str]) -> list[str]:
    found: dict[str, None] = {}
    for name in names:
        free, count = name, 1
        while free in found:
            count += 1
            free = f"{name}#{count}"
        found[free] = None
    return list(found)


def _check(artifact_file: Any) -> None:
    path = str(artifact_file)
    if not path.endswith(_SUFFIXES):
        raise OptionError(
            f"log_table(..., {path!r}): a table's path ends in .json or .parquet, such as "
            f"{os.path.splitext(path)[0] or 'table'}.json.",
            option="artifact_file",
        )
    found = sorted(set(path).intersection(_REFUSED))
    if found:
        raise OptionError(
            f"log_table(..., {path!r}): MLflow refuses {' '.join(found)} in a table's path; leave it out.",
            option="artifact_file",
        )


def _write(run: RunHandle, text: str) -> str:
    path, relative = run.target.new_file("rows.json")
    try:
        path.write_text(text, encoding="utf-8")
    except BaseException:
        shutil.rmtree(path.parent, ignore_errors=True)
        raise
    return relative

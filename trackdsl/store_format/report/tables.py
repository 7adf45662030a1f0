"""The first rows of tables in files, read at a bounded cost whatever a file contains."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import msgspec

#: The rows and columns of a table that are shown.
ROWS, COLUMNS = 10, 12
#: The most characters of a row in a text file.
_LONGEST_ROW = 1_000_000
#: A larger JSON file, in bytes, is not turned into objects as a whole; and one with more items not even taken apart.
_LARGEST_OBJECT, _MOST_ITEMS = 400_000, 1_000_000
#: The bytes that the first row group of a Parquet file may have in memory, of the columns that are shown.
_LARGEST_GROUP = 64_000_000


@dataclass(frozen=True)
class Table:
    """The beginning of a table.

    Attributes:
        columns: the names of all columns.
        rows: the first rows.
        count: how many rows there are.
    """

    columns: Sequence[Any]
    rows: Sequence[Sequence[Any]]
    count: int


def read_table(suffix: str, content: bytes) -> Table:
    """The beginning of a table.

    Args:
        suffix: that of the file's name: a key of `READERS`.
        content: the file's content.

    Raises:
        Exception: it is none, is damaged, or is larger inside than it should be. Each reader has errors of its own.
    """
    return READERS[suffix](content)


def _csv(content: bytes, delimiter: str = ",") -> Table:
    lines = _Lines(io.TextIOWrapper(io.BytesIO(content), "utf-8-sig", newline=""))
    reader = csv.reader(lines, delimiter=delimiter)
    columns = next(reader, [])
    rows: list[list[str]] = []
    count = 0
    for row in reader:
        lines.length = 0
        if row:
            count += 1
            if len(rows) < ROWS:
                rows.append(row[:COLUMNS])
    return Table(columns, rows, count)


class _Lines(Iterator[str]):
    """The lines of a file, until those of one row are too long together: a quoted text may have any number of lines."""

    def __init__(self, lines: Iterator[str]) -> None:
        self._lines = lines
        self.length = 0

    def __next__(self) -> str:
        line = next(self._lines)
        self.length += len(line)
        if self.length > _LONGEST_ROW:
            raise ValueError("a row is too long")
        return line


def _tsv(content: bytes) -> Table:
    return _csv(content, "\t")


def _json(content: bytes) -> Table:
    """A table of `log_table`, or a list of objects, or an object of objects."""
    found = json.loads(content) if len(content) <= _LARGEST_OBJECT else _taken_apart(content)
    if isinstance(found, dict) and isinstance(found.get("columns"), list) and isinstance(found.get("data"), list):
        rows = [row for row in islice(map(_value, found["data"]), ROWS) if isinstance(row, list)]
        return Table(found["columns"], rows, len(found["data"]))
    if isinstance(found, list):
        objects = [_value(row) for row in found[:ROWS]]
        if not objects or not all(isinstance(row, dict) for row in objects):
            return Table([], [], 0)
        columns = list(dict.fromkeys(key for row in objects for key in row))
        return Table(columns, [[row.get(key, "") for key in columns] for row in objects], len(found))
    first = {key: _value(value) for key, value in islice(found.items(), ROWS)} if isinstance(found, dict) else {}
    inside = [row for row in first.values() if isinstance(row, dict)]
    if len(inside) < 2:
        return Table([], [], 0)
    # For example a classification report: an object for each class, and a few single numbers.
    columns = list(dict.fromkeys(key for row in inside for key in row))
    return Table(["", *columns], [[name, *_values(row, columns)] for name, row in first.items()], len(found))


def _taken_apart(content: bytes) -> Any:
    """A large JSON file: its rows stay pieces of the file, and only the first of them are read, by `_value`."""
    if content.count(b",") > _MOST_ITEMS:
        raise ValueError("it has too many items")
    if content.lstrip()[:1] == b"[":
        return msgspec.json.decode(content, type=list[msgspec.Raw])
    found = msgspec.json.decode(content, type=dict[str, msgspec.Raw])
    if {"columns", "data"} <= found.keys():
        return {
            "columns": msgspec.json.decode(found["columns"], type=list[Any]),
            "data": msgspec.json.decode(found["data"], type=list[msgspec.Raw]),
        }
    return found


def _value(value: Any) -> Any:
    return msgspec.json.decode(value) if isinstance(value, msgspec.Raw) else value


def _values(row: Any, columns: Sequence[str]) -> list[Any]:
    return [row.get(key, "") for key in columns] if isinstance(row, dict) else [row]


def _parquet(content: bytes) -> Table:
    import pyarrow
    import pyarrow.parquet

    file = pyarrow.parquet.ParquetFile(pyarrow.BufferReader(content))
    names = file.schema_arrow.names
    if not file.metadata.num_rows:
        return Table(names, [], 0)
    group = file.metadata.row_group(0)
    wanted = set(names[:COLUMNS])
    parts = [group.column(at) for at in range(group.num_columns)]
    # A column with fields inside has a part for each of them, whose path begins with its name.
    if sum(one.total_uncompressed_size for one in parts if one.path_in_schema.split(".")[0] in wanted) > _LARGEST_GROUP:
        raise ValueError("its first rows are too large")
    batches = file.iter_batches(ROWS, row_groups=[0], columns=names[:COLUMNS], use_threads=False)
    first: list[Mapping[str, Any]] = next(iter(batches)).to_pylist()
    return Table(names, [[row[name] for name in names[:COLUMNS]] for row in first], file.metadata.num_rows)


READERS = {".csv": _csv, ".tsv": _tsv, ".json": _json, ".parquet": _parquet}

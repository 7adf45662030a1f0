"""The two formats of a table's file at MLflow, and the union of rows with different columns.

Source of the formats: `MlflowClient.log_table`, which writes pandas' `to_json(orient="split")` or Parquet.
"""

from __future__ import annotations

import io
import json
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Table:
    """Columns and rows; a row may be shorter than the columns: its other cells are missing."""

    columns: list[str] = field(default_factory=list)
    rows: list[list[Any]] = field(default_factory=list)

    def append(self, other: Table) -> None:
        """Append rows; new columns come last.

        >>> table = Table(["a"], [[1]])
        >>> table.append(Table(["b", "a"], [[2, 3]]))
        >>> table.columns, table.padded()
        (['a', 'b'], [[1, None], [3, 2]])
        """
        if other.columns == self.columns[: len(other.columns)]:
            self.rows += other.rows
            return
        self.columns += [name for name in other.columns if name not in self.columns]
        indices = [self.columns.index(name) for name in other.columns]
        for row in other.rows:
            whole = [None] * len(self.columns)
            for index, value in zip(indices, row, strict=False):
                whole[index] = value
            self.rows.append(whole)

    def padded(self) -> list[list[Any]]:
        """The rows, each with a cell for every column."""
        width = len(self.columns)
        return [row if len(row) == width else row + [None] * (width - len(row)) for row in self.rows]


def as_table(content: Any) -> Table:
    """A table from its JSON form.

    Raises:
        ValueError: it is not a table.
    """
    if isinstance(content, dict):
        columns, rows = content.get("columns"), content.get("data")
        if isinstance(columns, list) and isinstance(rows, list) and all(isinstance(row, list) for row in rows):
            return Table([str(name) for name in columns], rows)
    raise ValueError("there is a file that is not a table")


def parse(content: bytes, path: str) -> Table:
    """The table in a file.

    Raises:
        ValueError: the file is not a table.
        ImportError: pyarrow is missing, and the file is Parquet.
    """
    if not path.endswith(".parquet"):
        return as_table(json.loads(content))
    import pyarrow.parquet

    table = pyarrow.parquet.read_table(io.BytesIO(content))
    columns = [[_plain(value) for value in column.to_pylist()] for column in table.itercolumns()]
    return Table(list(table.column_names), [list(row) for row in zip(*columns, strict=True)])


def render(table: Table, path: str) -> bytes:
    """The file of a table."""
    rows = table.padded()
    if not path.endswith(".parquet"):
        text = json.dumps({"columns": table.columns, "data": rows}, ensure_ascii=False)
        return text.encode("utf-8", "backslashreplace")
    import pyarrow.parquet

    columns = [[row[index] for row in rows] for index in range(len(table.columns))]
    written = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table([_array(values) for values in columns], names=table.columns), written)
    return written.getvalue()


def _array(values: list[Any]) -> Any:
    """A column of one type. Values of several types, or structures of different types, become JSON for Parquet."""
    import pyarrow

    try:
        if not any(isinstance(value, (dict, list)) for value in values):
            return pyarrow.array(values)
    except (pyarrow.ArrowException, OverflowError):
        pass
    return pyarrow.array([value if value is None or isinstance(value, str) else json.dumps(value) for value in values])


def _plain(value: Any) -> Any:
    """A value in the JSON form that the log of a table stores."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, dict):
        return {str(key): _plain(part) for key, part in value.items()}
    if isinstance(value, list):
        return [_plain(part) for part in value]
    return value.isoformat() if hasattr(value, "isoformat") else str(value)

"""The files of runs whose content a report shows: figures and tables."""

from __future__ import annotations

import base64
import csv
import io
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import PurePosixPath
from typing import Any

from trackdsl.store_format.report.node import RunNode

#: The rows and columns of a table, and the characters of a cell, that are shown.
_ROWS, _COLUMNS, _LONGEST_CELL = 10, 12, 120
#: Images by the first bytes of their content; an SVG has no such bytes, and is inert as an image.
_IMAGES = {
    b"\x89PNG\r\n\x1a\n": "image/png",
    b"\xff\xd8\xff": "image/jpeg",
    b"GIF8": "image/gif",
    b"RIFF": "image/webp",
}
_FIGURES = (".png", ".jpg", ".jpeg", ".gif", ".webp", ".svg")
_TABLES = (".csv", ".tsv", ".json")
_PAGES = (".html", ".htm")
#: A number in a text file with more digits than help.
_LONG_NUMBER = re.compile(r"-?\d+\.\d{7,}(e[-+]?\d+)?", re.IGNORECASE)
#: A page with scripts would be empty or wrong without them.
_SCRIPT = re.compile(r"<script\b", re.IGNORECASE)


@dataclass(frozen=True)
class ShownFile:
    """A file whose content is shown.

    Attributes:
        run: the run.
        path: its path there.
        image: its content as the address of an image; None if it is none.
        page: its content as HTML that needs no scripts; None if it is none.
        columns: the names of a table's columns.
        rows: its first rows, as text.
        more: how many rows and columns are not shown.
    """

    run: RunNode
    path: str
    image: str | None = None
    columns: Sequence[str] = ()
    rows: Sequence[Sequence[str]] = ()
    more: tuple[int, int] = (0, 0)
    page: str | None = None

    @property
    def weight(self) -> int:
        """The approximate number of bytes that it adds to a page."""
        if self.image is not None or self.page is not None:
            # Escaping makes a page longer.
            return len(self.image or "") + len(self.page or "") * 5 // 4
        return sum(len(cell) + 9 for row in [self.columns, *self.rows] for cell in row)


def kind_of(path: str, *, parquet: bool) -> str:
    """`figure`, `page` or `table`; empty for any other file."""
    suffix = PurePosixPath(path).suffix.lower()
    if suffix in _FIGURES:
        return "figure"
    if suffix in _PAGES:
        return "page"
    return "table" if suffix in _TABLES or (parquet and suffix == ".parquet") else ""


def shown_file(run: RunNode, path: str, content: bytes) -> ShownFile | None:
    """A file as it is shown; None if its content is not what its name says, or needs scripts."""
    suffix = PurePosixPath(path).suffix.lower()
    if suffix in _FIGURES:
        image = _image(content, suffix)
        return None if image is None else ShownFile(run, path, image)
    if suffix in _PAGES:
        page = content.decode("utf-8", "replace")
        return None if _SCRIPT.search(page) else ShownFile(run, path, page=page)
    try:
        columns, rows = _TABLE_READERS[suffix](content)
    # Parquet readers raise errors of their own for damaged files.
    except Exception:
        return None
    if not columns or not rows:
        return None
    shown = [[_cell(cell) for cell in row[:_COLUMNS]] for row in rows[:_ROWS]]
    more = max(0, len(rows) - _ROWS), max(0, len(columns) - _COLUMNS)
    return ShownFile(run, path, None, [_cell(name) for name in columns[:_COLUMNS]], shown, more)


def _image(content: bytes, suffix: str) -> str | None:
    if suffix == ".svg":
        kind: str | None = "image/svg+xml" if b"<svg" in content[:2000] else None
    else:
        kind = next((name for start, name in _IMAGES.items() if content.startswith(start)), None)
    return None if kind is None else f"data:{kind};base64,{base64.b64encode(content).decode()}"


_Table = tuple[list[Any], list[list[Any]]]


def _csv(content: bytes, delimiter: str = ",") -> _Table:
    lines = csv.reader(io.StringIO(content.decode("utf-8-sig")), delimiter=delimiter)
    columns = next(lines, [])
    return columns, [row for row in lines if row]


def _tsv(content: bytes) -> _Table:
    return _csv(content, "\t")


def _json(content: bytes) -> _Table:
    """A table of `log_table`, or a list of objects."""
    found = json.loads(content)
    if isinstance(found, dict) and isinstance(found.get("columns"), list) and isinstance(found.get("data"), list):
        return found["columns"], [row for row in found["data"] if isinstance(row, list)]
    if isinstance(found, list) and found and all(isinstance(row, dict) for row in found[:_ROWS]):
        columns = list(dict.fromkeys(key for row in found[:_ROWS] for key in row))
        return columns, [[row.get(key, "") for key in columns] for row in found if isinstance(row, dict)]
    if isinstance(found, dict) and sum(isinstance(row, dict) for row in found.values()) > 1:
        # For example a classification report: an object for each class, and a few single numbers.
        inside = [row for row in islice(found.values(), _ROWS) if isinstance(row, dict)]
        columns = list(dict.fromkeys(key for row in inside for key in row))
        return ["", *columns], [[name, *_values(row, columns)] for name, row in found.items()]
    return [], []


def _values(row: Any, columns: Sequence[str]) -> list[Any]:
    return [row.get(key, "") for key in columns] if isinstance(row, dict) else [row]


def _parquet(content: bytes) -> _Table:
    import pyarrow.parquet

    file = pyarrow.parquet.ParquetFile(io.BytesIO(content))
    columns = file.schema_arrow.names
    first: list[Mapping[str, Any]] = next(iter(file.iter_batches(_ROWS))).to_pylist() if file.metadata.num_rows else []
    rows = [[row[name] for name in columns] for row in first]
    # The rest is counted, and not read.
    return columns, rows + [[]] * (file.metadata.num_rows - len(rows))


_TABLE_READERS = {".csv": _csv, ".tsv": _tsv, ".json": _json, ".parquet": _parquet}


def _cell(value: Any) -> str:
    if isinstance(value, str) and _LONG_NUMBER.fullmatch(value):
        value = float(value)
    text = f"{value:.6g}" if isinstance(value, float) else "" if value is None else str(value)
    return text if len(text) <= _LONGEST_CELL else f"{text[: _LONGEST_CELL - 1]}…"

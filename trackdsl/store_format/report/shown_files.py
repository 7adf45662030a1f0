"""The files of runs whose content a report shows: figures, pages and tables."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from trackdsl.store_format.report.node import RunNode
from trackdsl.store_format.report.pictures import SUFFIXES, address_of, scaled
from trackdsl.store_format.report.tables import COLUMNS, READERS, ROWS, read_table

#: The characters of a cell that are shown.
_LONGEST_CELL = 120
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
        size: in bytes.
        image: its content as the address of an image; None if it is none.
        page: its content as HTML that needs no scripts; None if it is none.
        columns: the names of a table's columns.
        rows: its first rows, as text.
        more: how many rows and columns are not shown.
        scaled: the width and height of a picture that is shown smaller; None for all other files.
    """

    run: RunNode
    path: str
    size: int
    image: str | None = None
    columns: Sequence[str] = ()
    rows: Sequence[Sequence[str]] = ()
    more: tuple[int, int] = (0, 0)
    page: str | None = None
    scaled: tuple[int, int] | None = None

    @property
    def weight(self) -> int:
        """The approximate number of bytes that it adds to a page."""
        if self.image is not None or self.page is not None:
            # Escaping makes a page longer.
            return len(self.image or "") + len(self.page or "") * 5 // 4
        return sum(len(cell) + 9 for row in [self.columns, *self.rows] for cell in row)


def kind_of(path: str) -> str:
    """`figure`, `page` or `table`; empty for any other file."""
    suffix = PurePosixPath(path).suffix.lower()
    if suffix in SUFFIXES:
        return "figure"
    if suffix in _PAGES:
        return "page"
    return "table" if suffix in READERS else ""


def shown_file(run: RunNode, path: str, content: bytes) -> ShownFile | None:
    """A file as it is shown; None if its content is not what its name says, or needs scripts."""
    suffix = PurePosixPath(path).suffix.lower()
    if suffix in SUFFIXES:
        image = address_of(content, suffix)
        return None if image is None else ShownFile(run, path, len(content), image)
    if suffix in _PAGES:
        page = content.decode("utf-8", "replace")
        return None if _SCRIPT.search(page) else ShownFile(run, path, len(content), page=page)
    try:
        found = read_table(suffix, content)
    # Readers raise errors of their own for damaged files.
    except Exception:
        return None
    if not found.columns or not found.rows:
        return None
    rows = [[_cell(cell) for cell in row[:COLUMNS]] for row in found.rows[:ROWS]]
    columns = [_cell(name) for name in found.columns[:COLUMNS]]
    more = max(0, found.count - ROWS), max(0, len(found.columns) - COLUMNS)
    return ShownFile(run, path, len(content), None, columns, rows, more)


def scaled_file(run: RunNode, path: str, content: bytes, largest: int) -> ShownFile | None:
    """A picture that is scaled down to a number of bytes; None if it cannot be."""
    found = scaled(content, largest)
    if found is None:
        return None
    return ShownFile(run, path, len(content), found.address, scaled=(found.width, found.height))


def _cell(value: Any) -> str:
    if isinstance(value, str) and _LONG_NUMBER.fullmatch(value):
        value = float(value)
    text = f"{value:.6g}" if isinstance(value, float) else "" if value is None else str(value)
    return text if len(text) <= _LONGEST_CELL else f"{text[: _LONGEST_CELL - 1]}…"

"""The segments of a journal: their files, and positions in them."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import NamedTuple

from trackdsl._core import events
from trackdsl.journal import _format as fmt
from trackdsl.journal._files import open_regular

_SEGMENT = re.compile(r"([0-9]{6}|[1-9][0-9]{6,17})\.seg")
#: The offset behind a segment that is missing.
GONE = 1 << 48


class Position(NamedTuple):
    """A position between two events: segment number and offset."""

    segment: int
    offset: int


START = Position(0, 0)


def segment_path(directory: Path, number: int) -> Path:
    """The file of a segment."""
    return directory / f"{number:06d}.seg"


def segments(directory: Path) -> list[int]:
    """The numbers of a journal's segments, in order."""
    try:
        with os.scandir(directory) as entries:
            names = [entry.name for entry in entries if entry.is_file(follow_symlinks=False)]
    except FileNotFoundError:
        return []
    return sorted(int(match[1]) for match in map(_SEGMENT.fullmatch, names) if match)


def missing_segments(directory: Path, position: Position) -> list[int]:
    """The numbers of undelivered segments that are missing between others, or that were partly read."""
    present = segments(directory)
    first = position.segment or 1
    if position.offset >= GONE:  # It was reported already.
        first += 1
    return [number for number in range(first, max([position.segment, *present]) + 1) if number not in present]


def beginning(path: Path) -> bytes:
    """The bytes of a segment's header."""
    with open(open_regular(path), "rb") as file:
        return file.read(fmt.HEADER_SIZE)


def newer_schema(directory: Path) -> int | None:
    """The schema version of a journal whose events are too new to read, else None.

    A program writes only one version.
    """
    for number in segments(directory)[:1]:
        try:
            header = fmt.Header.unpack(beginning(segment_path(directory, number)))
        except OSError:
            return None
        return header.schema if header is not None and header.schema > events.SCHEMA else None
    return None

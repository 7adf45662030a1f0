"""Segments that are opened before they are needed, so that nothing is lost while space or descriptors run out."""

from __future__ import annotations

import contextlib
import errno
import os
from pathlib import Path

from trackdsl.journal import _format as fmt
from trackdsl.journal._allocation import Segment, allocate, open_spare
from trackdsl.journal._limits import Limits


class SpareSegments:
    """The next segment of a journal, and a smaller one in reserve for the ends of runs if the disk is full.

    Args:
        directory: the journal's folder.
        limits: the sizes of segments.

    Attributes:
        directory: the journal's folder. It changes when the journal gets its final name.
    """

    def __init__(self, directory: Path, limits: Limits) -> None:
        self.directory = directory
        self._size = limits.first_segment
        self._largest = limits.largest_segment
        self._reserve_size = limits.reserve
        self._next: Segment | None = None
        self._reserve: Segment | None = None
        # A spare descriptor, closed when no other is free: opening and mapping a file takes two, keeping it open takes
        # one.
        self._descriptor: int | None = None

    def open_first(self) -> Segment:
        """Open the reserve and the first segment.

        Raises:
            OSError: the disk is full, or no descriptor is free.
        """
        self._reserve = self._open("reserve", self._reserve_size)
        return self._open("next", self._size)

    def take_next(self, needed: int) -> Segment | None:
        """The segment that was opened ahead, if it has at least `needed` bytes."""
        segment = self._next
        if segment is None or segment.size < needed:
            return None
        self._next = None
        return segment

    def open_now(self, needed: int) -> Segment:
        """Open a segment of at least `needed` bytes.

        Raises:
            OSError: the disk is full, or no descriptor is free.
        """
        return self._open("next" if self._next is None else "larger", max(self._size, needed))

    def take_reserve(self) -> Segment | None:
        """The reserve; None if it is in use already, or could not be opened."""
        segment, self._reserve = self._reserve, None
        return segment

    def refill(self, *, reserve: bool) -> None:
        """Open what is missing, as far as possible.

        Args:
            reserve: whether to open the reserve too.
        """
        with contextlib.suppress(OSError):  # It is reported when an event is lost.
            if self._descriptor is None:
                self._descriptor = open_spare()
            if reserve and self._reserve is None:
                self._reserve = self._open("reserve", self._reserve_size)
            if self._next is None:
                self._next = self._open("next", self._size)
                self._size = min(self._size * 2, self._largest)

    def remove_next(self) -> None:
        """Remove the file of the next segment, which no event will need."""
        if self._next is not None:
            with contextlib.suppress(OSError):
                os.unlink(self.directory / "next")

    def close(self) -> None:
        """Close all descriptors and mappings."""
        for segment in (self._next, self._reserve):
            if segment is not None:
                segment.map.close()
        self._next = self._reserve = None
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _open(self, name: str, size: int) -> Segment:
        size = -(-size // fmt.PAGE) * fmt.PAGE
        try:
            return allocate(self.directory / name, size)
        except OSError as error:
            if self._descriptor is None or error.errno not in (errno.EMFILE, errno.ENFILE):
                raise
        os.close(self._descriptor)
        self._descriptor = None
        try:
            return allocate(self.directory / name, size)
        finally:
            with contextlib.suppress(OSError):
                self._descriptor = open_spare()

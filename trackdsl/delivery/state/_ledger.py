"""Writing ledgers: what delivery has to remember besides its progress; `store_format.ledger` describes the file."""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from trackdsl.delivery.store._errors import explained
from trackdsl.errors import logger
from trackdsl.journal._files import open_regular, replace, sync
from trackdsl.store_format.ledger import NAME, Change, Kind, commits, frame, is_torn, latest, read
from trackdsl.store_format.state_before_ledgers import StateBefore, of_journal, of_server

#: A file with fewer changes is never replaced.
_FEW = 1000
#: How many changes are written in one frame when the file is replaced.
_IN_ONE_FRAME = 1000

K = TypeVar("K")
V = TypeVar("V")
#: The keys and values of one kind, as they are now.
Items = Callable[[], Iterable[tuple[Any, Any]]]


class Ledger:
    """A ledger that this process writes, and no other.

    Args:
        path: its file.
        before: what earlier versions wrote to other files; they are removed once it is written here.

    Attributes:
        damaged: whether a part of the file could not be read, other than a commit that was being written.
    """

    def __init__(self, path: Path, before: StateBefore | None = None) -> None:
        self._path = path
        self._before = before if before is not None and before.files else None
        self._items: dict[int, Items] = {}
        #: What is not loaded yet. A later version may have added kinds that this one does not know.
        self._unloaded: dict[int, list[Change]] = {}
        self._end = 0
        self._count = 0
        self._listed = False
        self._unsettled = False
        self.damaged = False
        content = read(path)
        for commit in commits(content):
            self.damaged = self.damaged or commit.start != self._end
            self._take(commit.changes)
            self._end = commit.end
        self.damaged = self.damaged or not is_torn(content[self._end :])
        if self.damaged or self._end < len(content):
            what = "a part" if self.damaged else "the torn end"
            logger.warning("trackdsl: %s of %s is %s", what, path, "damaged" if self.damaged else "left out")
        if self._before is not None:
            for commit in commits(frame(self._before.changes)):
                self._take(commit.changes)
            try:
                self._carry_over()
            except OSError as error:
                logger.warning("trackdsl cannot write %s; it tries again: %s", path, error)
        self._longest = max(_FEW, 2 * self._count)

    def load(self, kind: Kind[K, V], items: Callable[[], Iterable[tuple[K, V]]]) -> dict[K, V]:
        """The keys and values of a kind as the file has them.

        Args:
            kind: the kind.
            items: returns its keys and values later, when the file is replaced.
        """
        self._items[kind.number] = items
        return latest(self._unloaded.pop(kind.number, ()), kind)

    def write(
        self, changes: Iterable[tuple[int, Any, Any]], *, to_disk: bool = False, before_progress: bool = False
    ) -> None:
        """Write changes, all or none.

        Args:
            changes: made by `Kind.change`.
            to_disk: whether to flush them to the disk.
            before_progress: whether to flush them at the next call of `settle`.

        Raises:
            OSError: nothing was written.
        """
        changes = list(changes)
        if not changes:
            return
        if self._before is not None:
            self._carry_over()
        self._append(frame(changes), to_disk)
        self._count += len(changes)
        self._unsettled = self._unsettled or before_progress

    def to_disk(self) -> None:
        """Flush the file to the disk.

        Raises:
            OSError: it cannot be flushed.
        """
        if self._before is not None:
            self._carry_over()
        if self._end:
            with contextlib.suppress(FileNotFoundError):  # The journal was deleted; the rest of it is still delivered.
                sync(self._path)

    def settle(self) -> None:
        """Flush what nothing but the ledger will know once progress is written down.

        Raises:
            Unavailable: it cannot be flushed.
        """
        if self._unsettled:
            with explained("what delivery has to remember cannot be written"):
                self.to_disk()
            self._unsettled = False

    def tidy(self) -> None:
        """Replace the file if it has become much longer than what it means, and remove it if that is nothing.

        Call this only while the functions that `load` was given return nothing that may still be undone.
        """
        if (
            self._before is not None
            or not self._count
            or (self._count < self._longest and any(True for _ in self._all()))
        ):
            return
        try:
            self._replace()
        except OSError as error:  # It is only long.
            logger.warning("trackdsl cannot replace %s: %s", self._path, error)
            self._longest = 2 * self._count

    def repair(self) -> None:
        """Replace a damaged file by what could be read of it; its owner has written that down."""
        if self.damaged and self._before is None:
            self.damaged = False
            try:
                self._replace()
            except OSError as error:  # The next process reads it as this one did.
                logger.warning("trackdsl cannot replace %s: %s", self._path, error)

    def _take(self, changes: list[Change]) -> None:
        self._count += len(changes)
        for change in changes:
            self._unloaded.setdefault(change.kind, []).append(change)

    def _carry_over(self) -> None:
        before = self._before
        assert before is not None
        if before.changes:
            self._append(frame(before.changes), True)
        # A file that stays, or that a power cut brings back, would bring back what has changed since.
        for path in before.files:
            path.unlink(missing_ok=True)
        for folder in {path.parent for path in before.files}:
            sync(folder)
        self._before = None

    def _append(self, commit: bytes, to_disk: bool) -> None:
        descriptor = open_regular(self._path, os.O_WRONLY | os.O_CREAT)
        try:
            size = os.fstat(descriptor).st_size
            if size > self._end:  # The last commit is torn.
                os.ftruncate(descriptor, self._end)
            elif size < self._end:  # Somebody has removed or cut the file: it is written again as soon as possible.
                os.ftruncate(descriptor, 0)
                self._end = self._longest = 0
            if os.pwrite(descriptor, commit, self._end) != len(commit):
                os.ftruncate(descriptor, self._end)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self._path))
            self._end += len(commit)
            if to_disk:
                os.fsync(descriptor)
        finally:
            os.close(descriptor)
        if to_disk and not self._listed:
            sync(self._path.parent)
            self._listed = True

    def _replace(self) -> None:
        content, count = bytearray(), 0
        changes = self._all()
        while part := list(itertools.islice(changes, _IN_ONE_FRAME)):
            content += frame(part)
            count += len(part)
        if count:
            replace(self._path, bytes(content), to_disk=True)
        else:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._path)
        self._end, self._count, self._listed = len(content), count, False
        self._longest = max(_FEW, 2 * count)

    def _all(self) -> Iterator[tuple[int, Any, Any]]:
        for changes in self._unloaded.values():
            yield from changes
        for kind, items in self._items.items():
            for key, value in items():
                yield kind, key, value


def journal_ledger(directory: Path) -> Ledger:
    """The ledger of a journal."""
    return Ledger(directory / NAME, of_journal(directory))


def server_ledger(folder: Path) -> Ledger:
    """The ledger in the folder of a server."""
    return Ledger(folder / NAME, of_server(folder))

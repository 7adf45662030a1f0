"""A target: a store that runs go to, and this process's journal for it.

A target makes its journal at the first event, and another one in a forked child.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path

from trackdsl._config import resolve as settings
from trackdsl._core import gc_workaround
from trackdsl._core.events import LOST_EVENTS, Tags, encode
from trackdsl.errors import log_once, report
from trackdsl.journal import _delivery_hooks
from trackdsl.journal._allocation import advice
from trackdsl.journal._files import open_regular
from trackdsl.journal._limits import limits
from trackdsl.journal._spool import JOURNALS
from trackdsl.journal._spool_choice import find as find_spool
from trackdsl.journal._writer import LossCounter, Writer

#: How often a program checks whether its delivery process runs, in nanoseconds.
WATCH = 1_000_000_000
#: Replaces the tracking URI if records stay in the folder of a test.
CAPTURED = "trackdsl-capture:"
#: Replaces the tracking URI if records are thrown away.
DISCARDED = "trackdsl-nowhere:"
UNDELIVERED = (CAPTURED, DISCARDED)
_DELETED = "what was not delivered when the journal was deleted, in the middle of this run"
#: How many runs that have just ended are remembered: some 100 kB.
_MOST_ENDED = 150


class Target:
    """A store that runs go to, and this process's journal for it.

    Args:
        uri: the tracking URI, with relative SQLite paths made absolute.
        cwd: the working directory; MLflow puts local artifacts below it.
        spool: the spool folder, or None for the configured one.
        deliver: whether to start a delivery process.

    Attributes:
        delivers: whether records are delivered to MLflow.
        open_runs: the opening event of each open run, by its id. The event enters before it is appended, and leaves
            before the run's end is appended. A new journal begins with these events.
        ended: the id, opening event and end of each run that ended since the last check found the journal. A new
            journal repeats them, because the deleted one may have held the only record of these ends.
        deleted: the folders of journals that were deleted while they were written.
        discards: whether records are thrown away.
    """

    discards = False

    __slots__ = (
        "_files",
        "_making",
        "_retry_at",
        "append",
        "cwd",
        "deleted",
        "delivers",
        "ended",
        "open_runs",
        "spool",
        "unrecorded",
        "uri",
        "watch_at",
        "writer",
    )

    def __init__(self, uri: str, cwd: str, *, spool: Path | None = None, deliver: bool = True) -> None:
        self.uri = uri
        self.cwd = cwd
        self.spool = spool
        self.writer: Writer | None = None
        self.unrecorded = 0
        self.watch_at = 0
        self.delivers = deliver
        self.open_runs: dict[bytes, bytes] = {}
        self.ended: deque[tuple[bytes, bytes, bytes]] = deque(maxlen=_MOST_ENDED)
        self.deleted: list[Path] = []
        self._files = itertools.count(1)
        self._making = threading.RLock()
        self._retry_at = 0
        self.append: Callable[..., None] = self._append_first

    def new_file(self, name: str) -> tuple[Path, str]:
        """A path for the snapshot of an artifact.

        Returns:
            the path to write to, and that path relative to the journal's folder of files.

        Raises:
            OSError: the journal or the folder cannot be created.
        """
        self.check()
        writer = self.writer or self._make()
        if writer is None:
            raise OSError(5, "trackdsl has no journal to keep files in")
        number = f"{next(self._files):06d}"
        files = os.path.join(writer.directory, "files")
        folder = os.path.join(files, number)
        try:
            os.mkdir(folder, 0o700)
        except FileNotFoundError:  # It is the first file; else the journal may just have been deleted.
            with contextlib.suppress(FileExistsError):
                os.mkdir(files, 0o700)
            os.mkdir(folder, 0o700)
        return Path(folder, name), f"{number}/{name}"

    def append_line(self, name: str, line: str) -> bool:
        """Append a line to a file in the journal's folder, for the delivery process; False if there is no journal."""
        writer = self.writer
        if writer is None:
            return False
        try:
            descriptor = open_regular(writer.directory / name, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
            with open(descriptor, "a", encoding="ascii") as file:
                file.write(line)
        except OSError as error:
            report("note", f"trackdsl cannot write to its journal's folder ({error}); no system metrics are sampled")
            return False
        return True

    def watch(self, now: int) -> None:
        """Check the journal and its delivery process. Call it once the time, in nanoseconds, is past `watch_at`."""
        self.watch_at = now + WATCH
        self.check()
        if self.writer is not None:
            self.writer.prepare()
        if self.delivers and self.writer is not None and settings.mode() == "online":
            _delivery_hooks.start(self.writer.directory.parent.parent)

    def check(self) -> None:
        """If the journal was deleted, continue in a new one."""
        writer = self.writer
        if writer is None:
            return
        known = len(self.ended)
        if not writer.is_current():
            self._replace(writer)
            return
        with contextlib.suppress(IndexError):  # Another thread may do the same.
            for _ in range(known):  # Keep those that were added in the meantime.
                self.ended.popleft()

    def close(self) -> None:
        """Release the journal's lock; a later event makes a new journal."""
        writer, self.writer, self.append = self.writer, None, self._append_first
        self.open_runs = {}
        self.ended.clear()
        _made.discard(self)
        if writer is not None:
            writer.mark_end()
            writer.close()

    def reset_after_fork(self) -> None:
        """In a forked child: leave the inherited journal to the parent."""
        if self.writer is not None:
            self.writer.forget()
        self.writer = None
        self.open_runs = {}
        self.ended = deque(maxlen=_MOST_ENDED)
        self.deleted = []
        self.unrecorded = self.watch_at = self._retry_at = 0
        self._files = itertools.count(1)
        self._making = threading.RLock()
        self.append = self._append_first

    def _append_first(self, payload: bytes, run: LossCounter | None = None, vital: bool = False) -> None:
        known = self.writer
        writer = known or self._make()
        if writer is not None:
            # A new journal already holds the opening events of open runs, perhaps this one.
            if known is not None or not any(payload is begun for begun in list(self.open_runs.values())):
                writer.append(payload, run, vital)
            return
        self.unrecorded += 1
        if run is not None:
            run.lost += 1

    def _make(self) -> Writer | None:
        gc_workaround.install()  # Here, before the first run is current, however the program came to record it.
        with self._making:
            if self.delivers:
                settings.mode()  # A bad setting is reported before anything is made, and every time.
            now = time.monotonic_ns()
            if self.writer is not None or now < self._retry_at:
                return self.writer
            try:
                self.writer = self._create()
            except (OSError, RuntimeError) as error:  # platformdirs raises RuntimeError if there is no home folder.
                self._retry_at = now + limits().no_journal_retry
                report(
                    "spool",
                    f"trackdsl cannot write its journal ({error}): the program "
                    f"continues and nothing is recorded. {advice(error)}",
                    key=str(getattr(error, "errno", None)),
                )
                return None
            for payload in list(self.open_runs.values()):
                self.writer.append(payload, None, True)
            writer = self.writer
            writer.replace = lambda: self._replace(writer)
            self.append = self.writer.append
            _made.add(self)
            _mark_end_of_child(self.writer)
        for name, message in settings.unknown_variables().items():
            log_once(message, key=f"variable:{name}")
        self.watch(time.time_ns())
        return self.writer

    def _replace(self, gone: Writer) -> Writer | None:
        """Replace a deleted journal by a new one.

        Returns:
            the new writer; None if no new journal is needed, or none can be made.
        """
        with self._making:
            if self.writer is not gone:
                return self.writer
            self.deleted.append(gone.directory)
            self.unrecorded += gone.lost
            self.writer, self.append, self._retry_at = None, self._append_first, 0
            ended = sorted(self.ended) if self.delivers else []  # By id: a parent before its children.
            writer = self._make() if self.open_runs or ended else None
            if writer is not None:
                for id_ in list(self.open_runs):
                    writer.append(encode(Tags(id_, {LOST_EVENTS: _DELETED})), None, True)
                for id_, begun, end in ended:
                    for payload in (begun, encode(Tags(id_, {LOST_EVENTS: _DELETED})), end):
                        writer.append(payload, None, True)
            gone.close(writer)
            report(
                "journal-deleted",
                f"The journal {gone.directory} was deleted while this program records to it: what was not delivered by "
                "then is lost. New records go to a new journal.",
                key=gone.directory.name,
            )
            return writer

    def _create(self) -> Writer:
        from trackdsl.journal import _origin

        spool = self.spool or find_spool()
        directory = spool / JOURNALS / f"{time.time_ns():020d}-{os.getpid()}-{os.urandom(4).hex()}"
        record = _origin.origin(self.uri, self.cwd, self.deleted[-1].name if self.deleted else "")
        writer = Writer.create(directory, lambda hidden: _origin.write_origin(hidden, record))
        if self.delivers:
            _origin.ask_git(directory)
        return writer


class _Nowhere(Target):
    """Throws all records away: for processes that another process records for."""

    __slots__ = ()

    discards = True

    def __init__(self) -> None:
        super().__init__(DISCARDED, "/", deliver=False)
        self.append = self._discard

    def watch(self, now: int) -> None:
        """See `Target`: there is nothing to check."""
        self.watch_at = now + WATCH

    def close(self) -> None:
        """See `Target`."""
        self.open_runs = {}
        self.ended.clear()

    def reset_after_fork(self) -> None:
        """See `Target`."""
        self.close()

    def _discard(self, payload: bytes, run: LossCounter | None = None, vital: bool = False) -> None: ...


#: The target of runs that are not recorded, in processes where others are.
NOWHERE: Target = _Nowhere()


def _mark_end_of_child(writer: Writer) -> None:
    """Mark the end of a child of `multiprocessing`, which does not run `atexit` functions."""
    processes = sys.modules.get("multiprocessing.process")
    if processes is not None and processes.parent_process() is not None:
        from multiprocessing.util import Finalize

        Finalize(None, writer.mark_end, exitpriority=-1000)


#: All targets with a journal. An open run keeps its target, even if new runs get another one for the same settings.
_made: set[Target] = set()


def with_journal() -> list[Target]:
    """All targets of this process that have a journal."""
    return list(_made)

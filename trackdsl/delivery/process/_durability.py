"""Flushing journals to the disk, so that a power cut loses at most a second.

The program leaves this to the delivery process: an `fsync` takes milliseconds, and the page cache survives everything
except a crash of the machine.
"""

from __future__ import annotations

import contextlib
import os
import threading
from pathlib import Path

from trackdsl.journal._files import sync
from trackdsl.journal._segments import segment_path, segments
from trackdsl.journal._spool import journals
from trackdsl.store_format.ledger import NAME

_EVERY = 1.0


class Durability:
    """Flushes the journals of a spool once a second, in a thread, since a store may keep the worker busy for longer.

    Args:
        spool: the spool's folder.
    """

    def __init__(self, spool: Path) -> None:
        self._spool = spool
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run, name="trackdsl-durability", daemon=True)
        self._files: dict[Path, int] = {}
        self._sealed: dict[Path, int] = {}

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread, after a flush that may be in progress."""
        self._done.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        while not self._done.wait(_EVERY):
            self.sync(list(journals(self._spool)))

    def sync(self, directories: list[Path]) -> None:
        """Flush what may have changed."""
        self._files = {directory: self._files.get(directory, 0) for directory in directories}
        self._sealed = {directory: self._sealed.get(directory, 0) for directory in directories}
        for directory in directories:
            # All segments that were written since the last time: a busy program fills several in a second.
            unsealed = [number for number in segments(directory) if number > self._sealed.get(directory, 0)]
            for number in unsealed:
                _sync(segment_path(directory, number))
            self._sealed[directory] = max([self._sealed.get(directory, 0), *unsealed[:-1]])
            for name in ("origin", NAME, "progress", "dropped"):
                _sync(directory / name)
            self._sync_files(directory)

    def _sync_files(self, directory: Path) -> None:
        done = self._files[directory]
        folders = [folder for folder in _numbered(directory / "files") if int(folder.name) > done]
        for folder in folders:
            # Not `rglob`, which raises if a delivered folder is removed in the meantime.
            for inside, _, names in os.walk(folder):
                for name in names:
                    _sync(Path(inside, name))
        # A file may still be copied to the last folder.
        self._files[directory] = max([done, *(int(folder.name) for folder in folders[:-1])])


def _numbered(files: Path) -> list[Path]:
    try:
        return sorted(folder for folder in files.iterdir() if folder.name.isascii() and folder.name.isdecimal())
    except OSError:
        return []


def _sync(path: Path) -> None:
    with contextlib.suppress(OSError):
        sync(path)

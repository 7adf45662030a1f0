"""Bringing journals to the disk itself, so that a power cut costs a second at most.

The program leaves this to the delivery process: an `fsync` takes milliseconds, and the page cache survives everything
but the machine.
"""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path

from trackdsl.journal._reader import segments

_EVERY = 1.0


class Durability:
    """Syncs the journals of a spool, once a second."""

    def __init__(self) -> None:
        self._next = 0.0
        self._files: dict[Path, int] = {}

    def sync(self, directories: list[Path]) -> None:
        """Sync what may have changed; does nothing more often than once a second."""
        now = time.monotonic()
        if now < self._next:
            return
        self._next = now + _EVERY
        self._files = {directory: self._files.get(directory, 0) for directory in directories}
        for directory in directories:
            # The last two: a segment that was just filled, and the one that is being written.
            for number in segments(directory)[-2:]:
                _sync(directory / f"{number:06d}.seg")
            for name in ("origin", "runs", "progress"):
                _sync(directory / name)
            self._sync_files(directory)

    def _sync_files(self, directory: Path) -> None:
        done = self._files[directory]
        for folder in _numbered(directory / "files"):
            if int(folder.name) > done:
                for path in folder.rglob("*"):
                    if path.is_file():
                        _sync(path)
                self._files[directory] = max(self._files[directory], int(folder.name))


def _numbered(files: Path) -> list[Path]:
    try:
        return sorted(folder for folder in files.iterdir() if folder.name.isdigit())
    except OSError:
        return []


def _sync(path: Path) -> None:
    with contextlib.suppress(OSError):
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

"""The spool: a private folder that holds the journals of one user on one machine."""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import time
from collections.abc import Iterator
from pathlib import Path

from trackdsl import settings
from trackdsl.errors import report

JOURNALS = "journals"
_SWEEP_AFTER = 3600.0


def default_path() -> Path:
    """Where the spool lies when nothing names it: in the user's state folder, one per machine.

    Home folders are often shared between machines; locks and mapped files are not, so the host is part of the path.
    """
    import platformdirs

    return Path(platformdirs.user_state_dir("trackdsl", appauthor=False)) / "spool" / _host()


def fallback_path() -> Path:
    """Where the spool goes when its own place cannot be written: the temporary folder."""
    import tempfile

    return Path(tempfile.gettempdir()) / f"trackdsl-{os.getuid()}" / "spool" / _host()


def find() -> Path:
    """The spool in use: the named or default place where that can be written, the temporary folder otherwise."""
    wanted: Path | None = None
    try:
        wanted = settings.spool() or default_path()
        return prepare(wanted)
    except (OSError, RuntimeError) as error:  # The latter where nobody has a home folder.
        fallback = prepare(fallback_path())
        report(
            "spool-place",
            f"trackdsl cannot use its spool {wanted} ({error}) and records to {fallback} instead. "
            "Set TRACKDSL_SPOOL to a folder that can be written.",
            key=str(wanted),
        )
        return fallback


def prepare(spool: Path) -> Path:
    """Make the spool folder, readable by its owner alone.

    Raises:
        OSError: it cannot be made or written, or belongs to somebody else.
    """
    (spool / JOURNALS).mkdir(parents=True, exist_ok=True, mode=0o700)
    found = os.stat(spool)
    if found.st_uid != os.getuid():
        raise PermissionError(1, "the folder belongs to another user", str(spool))
    if stat.S_IMODE(found.st_mode) & 0o077:
        os.chmod(spool, 0o700)
    os.chmod(spool / JOURNALS, 0o700)
    if not os.access(spool / JOURNALS, os.W_OK | os.X_OK):
        raise PermissionError(13, "the folder cannot be written", str(spool))
    return spool


def journals(spool: Path) -> Iterator[Path]:
    """The folders of all journals, oldest first."""
    try:
        found = sorted((spool / JOURNALS).iterdir())
    except OSError:
        return
    yield from (path for path in found if path.is_dir() and not path.name.startswith("."))


def remove_journal(directory: Path) -> None:
    """Remove a journal: out of sight in one step, then bit by bit."""
    hidden = directory.with_name(f".{directory.name}")
    try:
        directory.rename(hidden)
    except OSError:
        hidden = directory
    shutil.rmtree(hidden, ignore_errors=True)


def sweep(spool: Path) -> None:
    """Remove what was left of journals whose making or removal was cut short, after an hour."""
    try:
        hidden = [path for path in (spool / JOURNALS).iterdir() if path.name.startswith(".")]
    except OSError:
        return
    for path in hidden:
        with contextlib.suppress(OSError):
            if time.time() - path.stat().st_mtime > _SWEEP_AFTER:
                shutil.rmtree(path, ignore_errors=True)


def _host() -> str:
    return "".join(c if c.isalnum() or c in "-." else "_" for c in os.uname().nodename) or "host"

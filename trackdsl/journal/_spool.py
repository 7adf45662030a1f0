"""The spool: a private folder that holds the journals of one user on one machine."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import time
from collections.abc import Iterator
from pathlib import Path

from trackdsl.journal._files import open_regular, remove, touch
from trackdsl.journal._lock import FileLock
from trackdsl.journal._ownership import check_folder, check_parents, is_own_folder

JOURNALS = "journals"
#: Locked by the process or thread that delivers from the spool.
LOCK = "delivery.lock"
#: The log file of delivery.
LOG = "delivery.log"
#: Touched to ask delivery to try again at once.
WAKE = "wake"
#: An empty file in every spool that trackdsl made. A folder without it belongs to the user, and is not changed.
MARK = ".trackdsl-spool"
#: What concerns all journals of a remote server, in a folder for each.
SERVERS = "servers"
_FOLDERS = (JOURNALS, "tables", "points", SERVERS)
_CONTENT = {*_FOLDERS, LOCK, LOG, MARK, WAKE}
_SWEEP_AFTER = 3600.0
#: Between two attempts to take the lock of a spool, in seconds.
_LOCK_POLL = 0.02


def locate(wanted: Path) -> Path:
    """The folder of the spool for the path that the user names; nothing is created or changed.

    This is the named folder if it is a spool, does not exist yet, or is empty and private. If it is used for something
    else (`/tmp`, a home folder, a project) or open to others, it is a folder of this user inside of it.

    Raises:
        OSError: the folder cannot be inspected, or is the spool of another user.
    """
    wanted = Path(os.path.abspath(wanted))
    if wanted.is_symlink():
        check_parents(wanted / "inside")  # The owner of a link decides where it leads.
        wanted = wanted.resolve()
    try:
        state = os.stat(wanted)
    except FileNotFoundError:
        return wanted
    if not stat.S_ISDIR(state.st_mode):
        raise NotADirectoryError(errno.ENOTDIR, "it is not a folder", str(wanted))
    if is_spool(wanted) or _may_become_spool(wanted, state):
        return wanted
    if state.st_uid != os.geteuid() and (wanted / JOURNALS).exists():
        raise PermissionError(errno.EPERM, f"the folder belongs to another user (uid {state.st_uid})", str(wanted))
    return wanted / f"trackdsl-spool-{os.geteuid()}"


def is_spool(path: Path) -> bool:
    """Whether a folder is a spool that trackdsl made for this user."""
    if not is_own_folder(path):
        return False
    try:
        mark = os.lstat(path / MARK)
        if stat.S_ISREG(mark.st_mode) and mark.st_uid == os.geteuid():
            return True
    except FileNotFoundError:
        pass
    # An old version made no mark, or something replaces it: the folder must be private, or contain nothing else.
    journals = path / JOURNALS
    if not is_own_folder(journals) or stat.S_IMODE(os.lstat(journals).st_mode) != 0o700:
        return False
    return stat.S_IMODE(os.lstat(path).st_mode) == 0o700 or set(os.listdir(path)) <= _CONTENT


def is_safe_spool(path: Path) -> bool:
    """Whether a path names an existing spool of this user that is safe from others.

    Raises:
        ValueError: it is not a valid path.
    """
    try:
        if os.lstat(path).st_mode & 0o077 or not path.is_absolute():
            return False
        check_spool(path)
        return is_spool(path) and os.access(path / JOURNALS, os.W_OK | os.X_OK)
    except OSError:
        return False


def prepare(wanted: Path) -> Path:
    """Create the spool for a folder that the user named, readable by its owner only.

    Returns:
        the spool, see `locate`.

    Raises:
        OSError: it cannot be created or written, or is not safe from other users.
    """
    spool = locate(wanted)
    check_parents(spool)
    return make(spool)


def make(spool: Path) -> Path:
    """Create or repair the folder of a spool and its content.

    Raises:
        OSError: it cannot be created or written, or is not safe from other users.
    """
    make_folder(spool)
    # A spool of an older version may be open to others: nothing in it is used before that is fixed.
    if is_own_folder(spool) and stat.S_IMODE(os.lstat(spool).st_mode) != 0o700:
        os.chmod(spool, 0o700)
    check_folder(spool)
    journals = spool / JOURNALS
    make_folder(journals)
    if is_own_folder(journals) and stat.S_IMODE(os.lstat(journals).st_mode) != 0o700:
        os.chmod(journals, 0o700)
    check_spool(spool)
    if not os.access(journals, os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, "the folder is not writable", str(spool))
    for name in (MARK, LOCK, LOG, WAKE):
        # Now, because delivery needs them, and the disk may be full later.
        with contextlib.suppress(OSError):
            os.close(open_regular(spool / name, os.O_WRONLY | os.O_CREAT))
    return spool


def make_folder(path: Path) -> None:
    """Create a folder and the folders above it, if they are missing. They are private, whatever the umask."""
    missing = []
    while not os.path.lexists(path):
        missing.append(path)
        path = path.parent
    for folder in reversed(missing):
        try:
            os.mkdir(folder, 0o700)
        except FileExistsError:  # Another process created it at this very moment.
            continue
        if stat.S_IMODE(os.lstat(folder).st_mode) != 0o700:
            os.chmod(folder, 0o700)


def check_spool(spool: Path) -> None:
    """Check that only this user can write to a spool or replace it.

    Raises:
        FileNotFoundError: it does not exist.
        OSError: it is not safe; the message names the cause.
    """
    check_parents(spool)
    check_folder(spool)
    check_content(spool)


def check_content(folder: Path) -> None:
    """Check the subfolders of a spool, or of a server's folder in it.

    Raises:
        OSError: one of them is not safe; the message names the cause.
    """
    for name in _FOLDERS:
        with contextlib.suppress(FileNotFoundError):
            check_folder(folder / name)


def journals(spool: Path) -> Iterator[Path]:
    """The folders of all journals of this user, oldest first."""
    yield from (path for path, problem in scan_journals(spool) if problem is None)


def scan_journals(spool: Path) -> Iterator[tuple[Path, str | None]]:
    """All entries in the folder of journals, oldest first.

    Yields:
        the path, and why nothing of it may be read; None for a journal of this user.
    """
    folder = spool / JOURNALS
    try:
        if not is_own_folder(folder):
            return
        paths = sorted(folder.iterdir())
    except OSError:
        return
    for path in paths:
        if path.name.startswith(".") or not path.is_dir():
            continue
        try:
            check_folder(path)
        except FileNotFoundError:  # It was finished in the meantime.
            continue
        except OSError as error:
            yield path, error.strerror
        else:
            yield path, None


def is_journal_name(name: str) -> bool:
    """Whether a text can be the name of a journal's folder."""
    return bool(name) and not name.startswith(".") and "/" not in name and "\0" not in name


def remove_journal(directory: Path) -> None:
    """Remove a journal: rename it in one step, then remove its files."""
    hidden = directory.with_name(f".{directory.name}")
    try:
        directory.rename(hidden)
    except OSError:
        hidden = directory
    remove(hidden)


def sweep(spool: Path) -> None:
    """Remove the remains of journals whose creation or removal was interrupted over an hour ago."""
    try:
        hidden = [path for path in (spool / JOURNALS).iterdir() if path.name.startswith(".")]
    except OSError:
        return
    for path in hidden:
        with contextlib.suppress(OSError):
            if time.time() - path.lstat().st_mtime > _SWEEP_AFTER:
                remove(path)


def _may_become_spool(path: Path, state: os.stat_result) -> bool:
    """Whether an existing folder can become a spool: an empty one that is already private."""
    if state.st_uid != os.geteuid() or state.st_mode & (stat.S_ISVTX | 0o077) or os.path.ismount(path):
        return False
    if any(_is_same(path, other) for other in (os.path.expanduser("~"), os.curdir)):
        return False
    return not os.listdir(path)


def _is_same(path: Path, other: str) -> bool:
    try:
        return os.path.samefile(path, other)
    except OSError:
        return False


def wake(spool: Path) -> None:
    """Ask delivery to try again now what it has postponed."""
    with contextlib.suppress(OSError):
        touch(spool / WAKE)


def take_lock(spool: Path, patience: float, name: str = LOCK) -> FileLock | None:
    """Take the lock of the spool's only delivery process.

    Args:
        spool: the spool's folder.
        patience: how long to wait for it, in seconds.
        name: the lock's file.

    Returns:
        the lock, or None if another process keeps it for `patience` seconds.
    """
    lock = FileLock(spool / name)
    give_up = time.monotonic() + patience
    while True:
        # A lock survives the removal of its file (and of the spool): without this check, two processes could hold it.
        if lock.acquire():
            if lock.is_current():
                return lock
            lock.release()
        if time.monotonic() >= give_up:
            return None
        time.sleep(_LOCK_POLL)

"""The snapshots of a journal: copies of files in the journal's `files` folder, named by events.

An event is data and may name any path. This module resolves these names for reading, delivery and removal: a snapshot
must lie in its own folder inside `files`, and no link may lead to it or out of it. Recording follows links, so a valid
snapshot contains none.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from trackdsl.journal._files import NoRegularFile, read_regular

_FOLDER = "files"
_OPEN_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class UnsafeSnapshot(OSError):
    """An event names something outside of its journal's files, or a link, a FIFO or a device.

    Attributes:
        why: the reason, for people.
    """

    def __init__(self, why: str, snapshot: str) -> None:
        super().__init__(errno.EINVAL, why, snapshot[:200])
        self.why = why


@dataclass(frozen=True)
class OpenSnapshot:
    """A snapshot that a store can read.

    Attributes:
        path: a file or folder without links.
        left_out: the paths that are missing from it, with the reasons.
    """

    path: Path
    left_out: dict[str, str]


def snapshot_path(journal: Path, snapshot: str) -> Path:
    """The path of a snapshot.

    Args:
        journal: the journal's folder.
        snapshot: as an event names it.

    Raises:
        UnsafeSnapshot: it is a link, or not in its own folder inside `files`.
        FileNotFoundError: it does not exist.
        OSError: it cannot be inspected.
    """
    number, name = _parts(snapshot)
    with _opened(journal, snapshot) as folder:
        _kind(name, folder, snapshot)
    return journal / _FOLDER / number / name


def expected_path(journal: Path, snapshot: str) -> Path:
    """The path of a snapshot, which need not exist.

    Raises:
        UnsafeSnapshot: the path is not in a folder of its own inside `files`.
    """
    return journal.joinpath(_FOLDER, *_parts(snapshot))


def read_snapshot(journal: Path, snapshot: str) -> bytes:
    """The content of a snapshot that is a file; see `snapshot_path`."""
    _, name = _parts(snapshot)
    with _opened(journal, snapshot) as folder:
        try:
            return read_regular(name, folder=folder)
        except NoRegularFile:
            raise UnsafeSnapshot("its snapshot is not a regular file", snapshot) from None


@contextlib.contextmanager
def opened_snapshot(journal: Path, snapshot: str) -> Iterator[OpenSnapshot]:
    """A snapshot for a store that opens files by path and follows links; see `snapshot_path`.

    Its files are hard-linked into a temporary folder, so that nobody can replace them after they were checked. If the
    disk is full, or has no hard links, the snapshot itself is used.
    """
    _, name = _parts(snapshot)
    with _opened(journal, snapshot) as folder, contextlib.ExitStack() as stack:
        try:
            private = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="upload-", dir=journal)))
            target = stack.enter_context(_folder(private))
            left_out = _link(name, folder, target, snapshot)
        except (UnsafeSnapshot, FileNotFoundError):
            raise
        except (OSError, NotImplementedError):
            private = snapshot_path(journal, snapshot).parent
            left_out = _link(name, folder, None, snapshot)
            if left_out:
                raise UnsafeSnapshot(next(iter(left_out.values())), snapshot) from None
        yield OpenSnapshot(private / name, left_out)


def remove_snapshot(journal: Path, snapshot: str) -> None:
    """Remove a snapshot and its folder; does nothing if the snapshot is not valid."""
    with contextlib.suppress(OSError):
        number, _ = _parts(snapshot)
        with _folder(journal) as opened, _folder(_FOLDER, opened) as files:
            _remove(number, files)


def _parts(snapshot: str) -> tuple[str, str]:
    parts = snapshot.split("/")
    if len(parts) != 2 or not {"", ".", ".."}.isdisjoint(parts) or "\0" in snapshot:
        raise UnsafeSnapshot("its snapshot is not inside of its journal", snapshot)
    return parts[0], parts[1]


@contextlib.contextmanager
def _folder(path: Path | str, inside: int | None = None) -> Iterator[int]:
    """Open a folder, not following links."""
    descriptor = os.open(path, _OPEN_FOLDER, dir_fd=inside)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _opened(journal: Path, snapshot: str) -> Iterator[int]:
    """The folder around a snapshot, opened step by step from the journal's folder."""
    number, _ = _parts(snapshot)
    with contextlib.ExitStack() as stack:
        try:
            opened = stack.enter_context(_folder(journal))
            files = stack.enter_context(_folder(_FOLDER, opened))
            folder = stack.enter_context(_folder(number, files))
        except OSError as error:
            if error.errno in (errno.ENOTDIR, errno.ELOOP):
                raise UnsafeSnapshot("a link or a file replaces its folder", snapshot) from None
            raise
        yield folder


def _kind(name: str, folder: int, snapshot: str) -> int:
    mode = os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        raise UnsafeSnapshot("its snapshot is neither a file nor a folder", snapshot)
    return mode


def _link(name: str, source: int, target: int | None, snapshot: str) -> dict[str, str]:
    """Link a file, or all files in a folder.

    Args:
        name: of the file or folder in `source`.
        source: a descriptor of the folder around it.
        target: a descriptor of the destination; None to check only.
        snapshot: its name in the event.

    Returns:
        the paths of entries that are neither files nor folders, with the reason.
    """
    if stat.S_ISDIR(_kind(name, source, snapshot)):
        left_out: dict[str, str] = {}
        try:
            _link_inside(name, source, target, "", left_out)
        except RecursionError:
            raise UnsafeSnapshot("its folders are too deep", snapshot) from None
        return left_out
    if target is not None and not _link_file(name, source, target):
        raise UnsafeSnapshot("its snapshot is not a regular file", snapshot)
    return {}


def _link_inside(name: str, source: int, target: int | None, parent: str, left_out: dict[str, str]) -> None:
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(_folder(name, source))
        copy = None
        if target is not None:
            os.mkdir(name, 0o700, dir_fd=target)
            copy = stack.enter_context(_folder(name, target))
        for entry in sorted(os.listdir(folder)):
            mode = os.stat(entry, dir_fd=folder, follow_symlinks=False).st_mode
            if stat.S_ISDIR(mode):
                _link_inside(entry, folder, copy, f"{parent}{entry}/", left_out)
            elif not stat.S_ISREG(mode) or (copy is not None and not _link_file(entry, folder, copy)):
                what = "a link" if stat.S_ISLNK(mode) else "no regular file"
                left_out[f"{parent}{entry}"] = f"it is {what}, and a snapshot has none"


def _link_file(name: str, source: int, target: int) -> bool:
    """Link a file; False if it was replaced or removed in the meantime."""
    try:
        os.link(name, name, src_dir_fd=source, dst_dir_fd=target, follow_symlinks=False)
    except FileNotFoundError:  # It was replaced at this very moment.
        return False
    if stat.S_ISREG(os.stat(name, dir_fd=target, follow_symlinks=False).st_mode):
        return True
    os.unlink(name, dir_fd=target)
    return False


def _remove(name: str, folder: int) -> None:
    """Remove an entry of a folder with its content; a link is removed, not followed."""
    if not stat.S_ISDIR(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode):
        os.unlink(name, dir_fd=folder)
        return
    for _, folders, files, inner in os.fwalk(name, topdown=False, follow_symlinks=False, dir_fd=folder):
        for file in files:
            os.unlink(file, dir_fd=inner)
        for other in folders:
            if stat.S_ISDIR(os.stat(other, dir_fd=inner, follow_symlinks=False).st_mode):
                os.rmdir(other, dir_fd=inner)
            else:
                os.unlink(other, dir_fd=inner)
    os.rmdir(name, dir_fd=folder)


def content_of(folder: Path) -> list[tuple[str, bool]]:
    """The files and the empty folders below a folder: their paths in it, and whether each is a folder.

    Raises:
        OSError: a part of it cannot be listed.
    """

    def fail(error: OSError) -> None:
        raise error

    found: list[tuple[str, bool]] = []
    for parent, folders, files in os.walk(folder, onerror=fail):
        inside = os.path.relpath(parent, folder)
        if not folders and not files:
            found.append(("" if inside == "." else inside, True))
        found += [(os.path.normpath(os.path.join(inside, name)), False) for name in files]
    return found

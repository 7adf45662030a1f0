"""Whether a folder is safe from other users of the machine: its owner, its mode, and the folders above it.

A user who may write to a folder, or to one above it, can replace what is in it. In a sticky folder, such as `/tmp`,
nobody can touch what another user has created.
"""

from __future__ import annotations

import errno
import functools
import os
import stat
from collections.abc import Iterator
from pathlib import Path

_MOST_LINKS = 40


def check_folder(path: Path) -> None:
    """Check that a folder belongs to this user, is not a link, and that nobody else may write to it.

    Raises:
        OSError: it is missing or not safe; the message names the cause.
    """
    state = os.lstat(path)
    if stat.S_ISLNK(state.st_mode):
        raise _unsafe(path, "it is a symbolic link")
    if not stat.S_ISDIR(state.st_mode):
        raise NotADirectoryError(errno.ENOTDIR, "it is not a folder", str(path))
    if state.st_uid != os.geteuid():
        raise _unsafe(path, f"the folder belongs to another user (uid {state.st_uid})")
    if _others_write(state):
        raise _unsafe(path, _open_to_others(state))


def check_parents(path: Path) -> None:
    """Check the existing folders above a path: nobody else may replace anything in them.

    A path in a sticky folder must either be missing, or belong to this user and be private; see `check_folder`.

    Args:
        path: absolute; links in it are followed, and checked too.

    Raises:
        OSError: a folder above, or its owner, cannot be trusted; the message names it.
    """
    for folder, state in _parents_of(path):
        if state.st_uid not in _trusted():
            raise _unsafe(folder, f"this folder above {path} belongs to another user (uid {state.st_uid})")
        # The mode bits of a link have no meaning.
        if stat.S_ISDIR(state.st_mode) and _others_write(state) and not state.st_mode & stat.S_ISVTX:
            raise _unsafe(folder, f"this folder is above {path}, and {_open_to_others(state)}")
    try:
        parent, own = os.stat(path.parent), os.lstat(path)
    except FileNotFoundError:
        return
    if parent.st_mode & stat.S_ISVTX and _others_write(parent):
        mode = stat.S_IMODE(own.st_mode)
        if own.st_uid != os.geteuid() or mode & 0o077:
            raise _unsafe(path, f"others use the folder around it, and it is not private (mode {mode:o})")


def is_own_folder(path: Path) -> bool:
    """Whether a path is a folder of this user and not a link."""
    try:
        state = os.lstat(path)
    except (OSError, ValueError):
        return False
    return stat.S_ISDIR(state.st_mode) and state.st_uid == os.geteuid()


def _parents_of(path: Path) -> Iterator[tuple[str, os.stat_result]]:
    """The folders and links above a path, from the root to the first that is missing; without the path itself."""
    left = list(reversed(path.parent.parts[1:]))
    here, links = path.anchor, 0
    yield here, os.lstat(here)
    while left:
        name = left.pop()
        if name == "..":
            here = os.path.dirname(here)
            continue
        step = os.path.join(here, name)
        try:
            state = os.lstat(step)
        except FileNotFoundError:
            return
        yield step, state
        if not stat.S_ISLNK(state.st_mode):
            here = step
            continue
        links += 1
        if links > _MOST_LINKS:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path))
        target = Path(os.readlink(step))
        if target.is_absolute():
            here = target.anchor
        left += reversed(target.parts[1:] if target.is_absolute() else target.parts)


def _others_write(state: os.stat_result) -> bool:
    if state.st_mode & stat.S_IWOTH:
        return True
    return bool(state.st_mode & stat.S_IWGRP) and not _is_private_group(state.st_gid)


@functools.lru_cache(maxsize=64)
def _is_private_group(group: int) -> bool:
    """Whether only this user and root are in a group: many systems give each user a group and a umask of 002."""
    import grp
    import pwd

    if group == 0:
        return True
    if group != os.getegid():
        return False
    try:
        members = set(grp.getgrgid(group).gr_mem)
        return members <= {pwd.getpwuid(os.geteuid()).pw_name, "root"}
    except KeyError:  # In a container, the user or the group may have no name.
        return True


@functools.lru_cache(maxsize=1)
def _roots() -> tuple[int, ...]:
    """Root, and the number that a container shows for owners outside of it, unless a user inside has that number."""
    try:
        lines = [list(map(int, line.split())) for line in Path("/proc/self/uid_map").read_text().splitlines()]
        outside = int(Path("/proc/sys/kernel/overflowuid").read_text())
    except (OSError, ValueError):
        return (0,)
    inside = any(first <= outside < first + count for first, _, count in lines)
    return (0,) if inside else (0, outside)


def _trusted() -> tuple[int, ...]:
    return (os.geteuid(), *_roots())


def _open_to_others(state: os.stat_result) -> str:
    return f"others may write to it (mode {stat.S_IMODE(state.st_mode):o}; `chmod go-w` fixes that)"


def _unsafe(path: Path | str, why: str) -> PermissionError:
    return PermissionError(errno.EPERM, why, str(path))

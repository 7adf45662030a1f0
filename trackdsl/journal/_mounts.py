"""Which file system a folder is on, and what its locks are worth.

The kernel of one machine knows all locks on its own disks. On a file system that machines share, a lock that looks free
may be held on another machine:

- Linux turns `flock` on NFS into a lock at the server, of which all clients know, unless the file system is mounted
  with `nolock` or `local_lock`; SMB without `nobrl`, Ceph, OCFS2, GFS2 and Lustre with `flock` do likewise.
- Even then a machine that has lost its server for a minute or two has lost its locks with it, while its programs live.

So a free lock shows on a local file system that a program has ended, and on a shared one it does not. There a lock is
enough to keep two machines from delivering the same thing at once, if all machines know of it.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

_TABLE = Path("/proc/self/mountinfo")
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_LOCAL = frozenset({
    "bcachefs", "btrfs", "ext2", "ext3", "ext4", "f2fs", "jfs", "overlay", "ramfs", "reiserfs", "tmpfs", "xfs", "zfs",
})  # fmt: skip
#: File systems whose locks all machines know of, with the options that this hangs on: those that must not be there,
#: and the one that must.
_WITH_LOCKS: dict[str, tuple[frozenset[str], str | None]] = {
    "nfs": (frozenset({"nolock", "local_lock=flock", "local_lock=all"}), None),
    "nfs4": (frozenset({"nolock", "local_lock=flock", "local_lock=all"}), None),
    "cifs": (frozenset({"nobrl"}), None),
    "smb3": (frozenset({"nobrl"}), None),
    "lustre": (frozenset({"localflock", "noflock"}), "flock"),
    "ceph": (frozenset(), None),
    "gfs2": (frozenset({"localflocks"}), None),
    "ocfs2": (frozenset({"localflocks"}), None),
}


@dataclass(frozen=True)
class FileSystem:
    """The file system that a folder is on.

    Attributes:
        kind: its name, such as `ext4` or `nfs4`; empty where it is not known.
        options: how it is mounted.
    """

    kind: str
    options: frozenset[str] = frozenset()

    @property
    def is_local(self) -> bool:
        """Whether this machine alone can use it, so that its kernel knows every lock."""
        return self.kind in _LOCAL

    @property
    def has_common_locks(self) -> bool:
        """Whether every machine that uses it knows of a lock that one of them holds."""
        if self.is_local:
            return True
        if self.kind not in _WITH_LOCKS:
            return False
        without, with_ = _WITH_LOCKS[self.kind]
        return not without & self.options and (with_ is None or with_ in self.options)


def file_system(folder: Path, table: str | None = None) -> FileSystem:
    """The file system of a folder.

    Args:
        folder: the folder, which exists.
        table: the text of `/proc/self/mountinfo`; read by default.
    """
    if table is None:
        try:
            table = _TABLE.read_text(encoding="utf-8", errors="surrogateescape")
        except OSError:  # Not Linux.
            return FileSystem("")
    place = os.path.realpath(folder)
    nearest, found = "", FileSystem("")
    for line in table.splitlines():
        head, _, tail = line.partition(" - ")
        fields, kind = head.split(" "), tail.split(" ")
        if len(fields) < 6 or len(kind) < 3:
            continue
        point = re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), fields[4])
        inside = place == point or place.startswith(f"{point.rstrip('/')}/")
        if inside and len(point) >= len(nearest):  # Of two at one point, the later one covers the other.
            nearest, found = point, FileSystem(kind[0], frozenset(f"{fields[5]},{kind[2]}".split(",")))
    return found


def boot_id() -> str:
    """What the kernel of this machine drew when it started: the same in all its containers. Empty where it has none."""
    try:
        return _BOOT_ID.read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return ""

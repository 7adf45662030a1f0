"""Which file system a folder is on, and how far its locks can be trusted.

The kernel knows every lock on the local disks of its machine. On a file system that machines share, a lock that looks
free may be held on another machine:

- On NFS, Linux asks the server for a `flock`, so all clients see it, unless the file system is mounted with `nolock`
  or `local_lock`. SMB without `nobrl`, Ceph, OCFS2, GFS2 and Lustre with `flock` do the same.
- Even there, a machine that has lost its server for a minute or two loses its locks while its programs still run.

So a free lock proves that a program has ended only on a local file system. On a shared one, a lock is good enough to
keep two machines from delivering the same journal at the same time, if all machines see it.
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
#: File systems whose locks all machines see, with the mount options that this depends on: those that must be absent,
#: and the one that must be present.
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
        kind: its name, such as `ext4` or `nfs4`; empty if unknown.
        options: its mount options.
    """

    kind: str
    options: frozenset[str] = frozenset()

    @property
    def is_local(self) -> bool:
        """Whether only this machine can use it, so that its kernel knows every lock."""
        return self.kind in _LOCAL

    @property
    def has_common_locks(self) -> bool:
        """Whether every machine that uses it sees the locks of the others."""
        if self.is_local:
            return True
        if self.kind not in _WITH_LOCKS:
            return False
        without, with_ = _WITH_LOCKS[self.kind]
        return not without & self.options and (with_ is None or with_ in self.options)


def file_system(folder: Path, table: str | None = None) -> FileSystem:
    """The file system of a folder.

    Args:
        folder: an existing folder.
        table: the text of `/proc/self/mountinfo`; read by default.
    """
    if table is None:
        try:
            table = _TABLE.read_text(encoding="utf-8", errors="surrogateescape")
        except OSError:  # Not Linux.
            return FileSystem("")
    path = os.path.realpath(folder)
    nearest, nearest_system = "", FileSystem("")
    for line in table.splitlines():
        head, _, tail = line.partition(" - ")
        fields, kind = head.split(" "), tail.split(" ")
        if len(fields) < 6 or len(kind) < 3:
            continue
        point = re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), fields[4])
        inside = path == point or path.startswith(f"{point.rstrip('/')}/")
        if inside and len(point) >= len(nearest):  # Of two mounts at one point, the later one hides the other.
            nearest, nearest_system = point, FileSystem(kind[0], frozenset(f"{fields[5]},{kind[2]}".split(",")))
    return nearest_system


def boot_id() -> str:
    """The id that the kernel drew when this machine started, equal in all its containers; empty if it has none."""
    try:
        return _BOOT_ID.read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return ""

"""Copies of files and folders, made by the kernel (`copy_file_range`, a shared extent where the file system can)."""

from __future__ import annotations

import hashlib
import os
import shutil
from functools import partial
from pathlib import Path

from trackdsl._core.artifact_paths import quoted_path


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def copy_file(source: Path, target: Path) -> None:
    if not source.is_file() and source.exists():
        raise OSError(22, "neither a file nor a folder", str(source))  # Opening a FIFO waits for its writer.
    with open(source, "rb") as reader, open(target, "xb") as writer:
        if not _clone(reader.fileno(), writer.fileno()):
            shutil.copyfileobj(reader, writer, 1 << 20)


def _clone(source: int, target: int) -> bool:
    """Copy inside the kernel; False if the kernel cannot."""
    left = os.fstat(source).st_size
    try:
        while left > 0:
            copied = os.copy_file_range(source, target, min(left, 1 << 30))
            if copied == 0:
                break
            left -= copied
    except (OSError, AttributeError) as error:
        if getattr(error, "errno", None) == 28:  # ENOSPC: another way of copying would fail too.
            raise
        os.lseek(source, 0, os.SEEK_SET)
        os.lseek(target, 0, os.SEEK_SET)
        os.ftruncate(target, 0)
        return False
    # The file has no size (in /proc) or has shrunk: copy it in the ordinary way.
    return left == 0 and os.fstat(source).st_size > 0


def copy_folder(source: Path, target: Path) -> dict[str, str]:
    """Copy a folder; return the paths inside it that could not be copied, with the reasons."""
    if not source.is_dir():
        raise NotADirectoryError(20, "not a folder", str(source))

    def copy(one: str, other: str) -> str:
        copy_file(Path(one), Path(other))
        return other

    try:
        shutil.copytree(source, target, copy_function=copy, ignore=partial(_loops, source))
    except shutil.Error as error:  # All others were copied.
        return {os.path.relpath(str(one), source): str(reason) for one, _, reason in error.args[0]}
    return {}


def rename_unsafe(folder: Path) -> dict[str, str]:
    """Rename files that a store would keep under another name; return new path → old path, both inside the folder."""
    renamed = {}
    for inner, folders, files in os.walk(folder, topdown=False):
        for name in (*folders, *files):
            new = os.path.join(inner, quoted_path(name))
            if quoted_path(name) != name and not os.path.lexists(new):
                os.rename(os.path.join(inner, name), new)
                renamed[os.path.relpath(new, folder)] = os.path.relpath(os.path.join(inner, name), folder)
    return renamed


def _loops(source: Path, folder: str, names: list[str]) -> list[str]:
    """The links that lead to a parent of this folder: to follow them would never end."""
    parent = Path(folder)
    parents = [os.path.join(os.path.realpath(parent), "")]
    while parent not in (source, parent.parent):
        parent = parent.parent
        parents.append(os.path.join(os.path.realpath(parent), ""))
    loops = []
    for name in names:
        path = os.path.join(folder, name)
        if os.path.islink(path):
            real = os.path.join(os.path.realpath(path), "")
            loops += [name] if any(one.startswith(real) for one in parents) else []
    return loops

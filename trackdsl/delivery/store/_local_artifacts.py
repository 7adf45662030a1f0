"""Artifacts in a local folder, written without MLflow."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

from trackdsl._core.artifact_paths import checked_path
from trackdsl.delivery.store._errors import Denied, Refused, RefusedParts, Unavailable, explained
from trackdsl.journal._files import NoRegularFile, open_regular
from trackdsl.journal._snapshots import content_of

#: A path that no file system accepts, or that something else occupies.
_FINAL = (errno.ENAMETOOLONG, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.EINVAL)


class Entry(NamedTuple):
    """A file or a folder.

    Attributes:
        path: below the artifact folder of the run.
        is_folder: whether it is a folder.
        size: of a file, in bytes; None if it is not known.
    """

    path: str
    is_folder: bool
    size: int | None


class LocalArtifacts:
    """Writes files into the artifact folders of runs; each appears completely or not at all."""

    def write(self, folder: Path, local: Path, path: str, *, directory: bool) -> None:
        """Copy a file to a path below a folder, or the content of a folder below it.

        Raises:
            RefusedParts: some paths of the folder's content cannot be used; the rest of it is there.
            Refused: the path cannot be used.
            Unavailable: the folder cannot be written to now.
        """
        with _translated():
            target = folder / checked_path(path) if path else folder
            if not directory:
                _copy(local, target)
                return
            content = content_of(local)
        reasons: dict[str, str] = {}
        unavailable: Unavailable | None = None
        for name, is_folder in content:
            try:
                with _translated():
                    if is_folder:
                        (target / name).mkdir(parents=True, exist_ok=True)
                    else:
                        _copy(local / name, target / name)
            except Refused as error:
                reasons[name] = str(error)
            except Unavailable as error:  # The folder is stored again later; what it lacks is reported then.
                unavailable = error
        if unavailable is not None:
            raise unavailable
        if reasons:
            raise RefusedParts(reasons)

    def write_text(self, folder: Path, text: str, path: str) -> None:
        """Write text to a file at a path below a folder.

        Raises:
            Refused: the path cannot be used, or the text has no encoding.
            Unavailable: the folder cannot be written to now.
        """
        try:
            content = text.encode()
        except UnicodeEncodeError as error:
            raise Refused(str(error)) from None
        with explained("cannot use a temporary folder"), tempfile.TemporaryDirectory(prefix="trackdsl-") as temporary:
            local = Path(temporary) / "text"
            local.write_bytes(content)
            self.write(folder, local, path, directory=False)

    def read(self, folder: Path, path: str) -> bytes | None:
        """The content of a file; None if there is none. Links that lead out of the folder are not followed.

        Raises:
            Refused: the path leads out of the folder.
            Unavailable: it cannot be read now.
        """
        with _translated():
            file = _inside(folder, folder / checked_path(path))
            if file is None:
                return None
            try:
                with open(open_regular(file), "rb") as opened:
                    return opened.read()
            except (FileNotFoundError, IsADirectoryError, NotADirectoryError, NoRegularFile):
                return None

    def entries(self, folder: Path, path: str) -> list[Entry]:
        """What is directly in a folder below the artifact folder of a run, by path. There is nothing in a file.

        Links that lead out of the artifact folder are left out.

        Raises:
            Refused: the path leads out of the artifact folder.
            Unavailable: it cannot be read now.
        """
        found: list[Entry] = []
        with _translated():
            below = checked_path(path)
            inner = _inside(folder, folder / below)
            if inner is None or not inner.is_dir():
                return []
            for name in sorted(os.listdir(inner)):
                real = _inside(folder, inner / name)
                state = None if real is None else real.stat()
                shown = f"{below}/{name}" if below else name
                if state is not None and stat.S_ISDIR(state.st_mode):
                    found.append(Entry(shown, True, None))
                elif state is not None and stat.S_ISREG(state.st_mode):
                    found.append(Entry(shown, False, state.st_size))
        return found

    def listed(self, folder: Path, most: int) -> list[tuple[str, int | None]]:
        """The regular files in a folder, at most this many: their paths and sizes in bytes.

        Raises:
            Unavailable: it cannot be read now.
        """
        entries: list[tuple[str, int | None]] = []
        with _translated():
            for parent, folders, files in os.walk(folder):
                folders.sort()
                for name in sorted(files):
                    path = Path(parent) / name
                    state = path.lstat()
                    if len(entries) >= most:
                        return entries
                    if stat.S_ISREG(state.st_mode):
                        entries.append((path.relative_to(folder).as_posix(), state.st_size))
        return entries


def local_folder(uri: str) -> Path | None:
    """The folder of an artifact URI, or None if it is not on this machine.

    >>> local_folder("file:///data/a%20b"), local_folder("/data/a"), local_folder("s3://bucket/a")
    (PosixPath('/data/a b'), PosixPath('/data/a'), None)
    """
    parts = urlsplit(uri)
    if parts.scheme == "file" and parts.netloc in ("", "localhost") and not parts.query and not parts.fragment:
        return Path(unquote(parts.path))
    if not parts.scheme and PurePosixPath(uri).is_absolute():
        return Path(uri)
    return None


def _inside(folder: Path, path: Path) -> Path | None:
    """Where a path below a folder leads; None if it leads out of the folder, or nowhere."""
    try:
        real = Path(os.path.realpath(path, strict=True))
    except (FileNotFoundError, NotADirectoryError):
        return None
    return real if real.is_relative_to(os.path.realpath(folder)) else None


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.is_dir():
        raise IsADirectoryError(errno.EISDIR, "is a folder", str(target))
    part = target.with_name(f".{target.name[:200]}.trackdsl-part")
    try:
        # The snapshot is a file of our own, which nobody changes: a second name for it costs nothing.
        with contextlib.suppress(FileNotFoundError):
            part.unlink()
        try:
            os.link(source, part)
        except OSError:
            shutil.copy2(source, part)
        os.replace(part, target)
    finally:
        # Also if it worked: where both are names of one file already, `os.replace` leaves both.
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except PermissionError as error:
        raise Denied(str(error)) from None
    except OSError as error:
        raise (Refused if error.errno in _FINAL else Unavailable)(str(error)) from None
    except ValueError as error:
        raise Refused(str(error)) from None

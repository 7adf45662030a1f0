"""Snapshots of artifacts: a copy in the journal's folder, made before the call returns, then one event.

The copy is made by the kernel (`copy_file_range`, a shared extent where the file system can), never through memory.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from trackdsl._events import File
from trackdsl._record import append_tags, encode_safely
from trackdsl._secrets import mask_text
from trackdsl.errors import report, told

if TYPE_CHECKING:
    from collections.abc import Callable

    from trackdsl._run import Run


def snapshot(run: Run, source: Path, artifact_path: str | None) -> None:
    """Keep a file or folder; see `Run.log_artifact`."""
    if source.is_dir():
        name = source.resolve().name
        _keep(run, str(PurePosixPath(artifact_path or "") / name), lambda to: _copy_tree(source, to), directory=True)
        return
    if artifact_path is None:
        place = source.name
    elif PurePosixPath(artifact_path).suffix and not artifact_path.endswith("/"):
        place = artifact_path
    else:
        place = str(PurePosixPath(artifact_path) / source.name)
    _keep(run, place, lambda to: _copy(source, to))


def snapshot_content(run: Run, source: Path, artifact_path: str | None) -> None:
    """Keep what is inside a folder; see `Run.log_artifacts`."""
    _keep(run, artifact_path or "", lambda to: _copy_tree(source, to), directory=True)


def write_text(run: Run, text: str, artifact_file: str) -> None:
    """Keep text as a file."""
    _keep(run, artifact_file, lambda to: _write(to, mask_text(str(text))))


def write_structure(run: Run, value: Any, artifact_file: str) -> None:
    """Keep a structure as JSON or YAML."""
    from trackdsl._flatten import one_line
    from trackdsl.handlers.json import masked

    text = json.dumps(masked(value), indent=2, default=one_line, ensure_ascii=False)
    if artifact_file.endswith((".yaml", ".yml")):
        import yaml

        text = yaml.safe_dump(json.loads(text), allow_unicode=True, sort_keys=False)
    _keep(run, artifact_file, lambda to: _write(to, text))


def keep_object(run: Run, artifact_file: str, write: Callable[[Path], None]) -> None:
    """Keep what `write` puts into the file it is given."""
    _keep(run, artifact_file, write)


def _keep(run: Run, place: str, write: Callable[[Path], dict[str, str] | None], *, directory: bool = False) -> None:
    try:
        place = inside(place)
        path, relative = run._target.new_file(PurePosixPath(place).name or "content")
        try:
            missing = write(path) or {}
        except BaseException:
            shutil.rmtree(path.parent, ignore_errors=True)
            raise
    except Exception as error:
        reason = mask_text(told(error))
        report("artifact", f"trackdsl could not keep the artifact {place!r}: {reason}", key=place)
        append_tags(run, {f"trackdsl.omitted.{place}": reason[:500]})
        return
    if missing:
        report("artifact", f"trackdsl left out of {place!r}: {missing}", key=place)
        append_tags(run, {f"trackdsl.omitted.{place}/{name}": mask_text(why)[:500] for name, why in missing.items()})
    run._target.append(encode_safely(File(run._id, place, relative, directory)), run, True)


def inside(place: str) -> str:
    """Check that an artifact's path stays in the run's folder.

    Raises:
        ValueError: it is absolute, climbs out, or holds a NUL.

    >>> inside("models/best.pth")
    'models/best.pth'
    """
    path = PurePosixPath(place)
    if path.is_absolute() or ".." in path.parts or "\0" in place or "\\" in place:
        raise ValueError(f"an artifact's path must stay inside the run's folder: {place!r}")
    return "" if str(path) == "." else str(path)


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8", errors="backslashreplace")


def _copy(source: Path, target: Path) -> None:
    if not source.is_file() and source.exists():
        raise OSError(22, "neither a file nor a folder", str(source))  # Opening a FIFO would wait for its writer.
    with open(source, "rb") as reader, open(target, "xb") as writer:
        if not _clone(reader.fileno(), writer.fileno()):
            shutil.copyfileobj(reader, writer, 1 << 20)


def _clone(source: int, target: int) -> bool:
    """Copy inside the kernel; False where it cannot."""
    left = os.fstat(source).st_size
    try:
        while left > 0:
            copied = os.copy_file_range(source, target, min(left, 1 << 30))
            if copied == 0:
                break
            left -= copied
    except (OSError, AttributeError) as error:
        if getattr(error, "errno", None) == 28:  # ENOSPC: no other way of copying would help.
            raise
        os.lseek(source, 0, os.SEEK_SET)
        os.lseek(target, 0, os.SEEK_SET)
        os.ftruncate(target, 0)
        return False
    # A file that reports no size (in /proc), or one that has shrunk: take what comes.
    return left == 0 and os.fstat(source).st_size > 0


def _copy_tree(source: Path, target: Path) -> dict[str, str]:
    """Copy a folder; returns what could not be copied, by its path in it, with the reason."""
    if not source.is_dir():
        raise NotADirectoryError(20, "not a folder", str(source))

    def copy(one: str, other: str) -> str:
        _copy(Path(one), Path(other))
        return other

    try:
        shutil.copytree(source, target, copy_function=copy, ignore=_loops)
    except shutil.Error as error:  # It has copied all the others.
        return {os.path.relpath(str(one), source): str(reason) for one, _, reason in error.args[0]}
    return {}


def _loops(folder: str, names: list[str]) -> list[str]:
    """Links to a folder that this one is inside of: following them would never end."""
    here = os.path.join(os.path.realpath(folder), "")
    paths = {name: os.path.join(folder, name) for name in names}
    return [
        name
        for name, path in paths.items()
        if os.path.islink(path) and here.startswith(os.path.join(os.path.realpath(path), ""))
    ]

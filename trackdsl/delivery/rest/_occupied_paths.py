"""Occupied paths of artifacts: a file where a folder is wanted, or a folder where a file is.

A tracking server that proxies artifacts answers a write to such a path as it answers its own faults, with the status
500, or closes the connection while the file is being sent. The same write never succeeds, so it must not be tried for
ever.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from trackdsl.delivery.rest._concurrency_limit import MOST
from trackdsl.delivery.store._errors import Refused
from trackdsl.errors import logger

#: Lists what lies directly in a folder of a run's artifacts, None for the uppermost, as `MlflowClient` does.
List = Callable[[str | None], Iterable[Any]]
#: What the errors of MLflow's client, and our own, then say.
_CLOSED = ("Connection aborted", "reset by peer", "Broken pipe", "closed connection")
_SIGNS = ("500 Server Error", "too many 500 error responses", "the server answers 500", *_CLOSED)
#: More files of a folder are not checked.
_MOST = 1000


def write_files(write: Callable[[], object], wanted: Callable[[], Iterable[str]], listed: List) -> None:
    """Write files, again at once if only a connection was closed, and not again if a path is occupied.

    Args:
        write: writes the files.
        wanted: gives their paths.
        listed: lists the folders of the run's artifacts.

    Raises:
        Refused: something else has a path, so that the files can never be written.
    """
    for again in (True, False):
        try:
            write()
            return
        except Exception as error:
            if not _may_be_occupied(error):
                raise
            answers, reason = _why_taken([*wanted()], listed)
            if reason is not None:
                raise Refused(reason) from None
            if not (again and answers and _is_closed(error)):
                raise


def _why_taken(wanted: Iterable[str], listed: List) -> tuple[bool, str | None]:
    """Whether the server lists the artifacts of a run, and why files can never be written; None if they can."""
    problem: Exception | None = None
    for _ in range(MOST + 1):  # Each may get a connection that the server has closed after a failed upload.
        try:
            return True, why_occupied(wanted, listed)
        except Exception as error:
            problem = error
    logger.debug("trackdsl cannot list the artifacts of a run: %s", problem)
    return False, None


def _may_be_occupied(error: Exception) -> bool:
    """Whether a server's answer may mean that a path is occupied."""
    return any(sign in str(error) for sign in _SIGNS)


def _is_closed(error: Exception) -> bool:
    """Whether a server closed the connection, as it may do with an idle one just when it is used again."""
    return any(sign in str(error) for sign in _CLOSED)


def wanted_paths(local: Path, path: str, *, directory: bool) -> Iterator[str]:
    """The paths of the files that are written: of one file, or of all files in a folder."""
    if not directory:
        yield path
        return
    files = (file for file in sorted(local.rglob("*")) if file.is_file())
    for _, file in zip(range(_MOST), files, strict=False):
        yield str(PurePosixPath(path, file.relative_to(local).as_posix()))


def why_occupied(wanted: Iterable[str], listed: List) -> str | None:
    """Why one of some files can never be written, if there is such a file.

    Args:
        wanted: the paths of the files.
        listed: lists the folders of the run's artifacts.

    Example:
        >>> from types import SimpleNamespace
        >>> why_occupied(["a/b"], lambda _: [SimpleNamespace(path="a", is_dir=False)])
        "'a' is a file, so nothing can be stored below it"
    """
    folders: dict[str | None, dict[str, bool]] = {}
    for path in wanted:
        folder: str | None = None
        for part in [*reversed(PurePosixPath(path).parents)][1:]:
            is_folder = _in(folder, folders, listed).get(str(part))
            if is_folder is False:
                return f"{str(part)!r} is a file, so nothing can be stored below it"
            if is_folder is None:
                break
            folder = str(part)
        else:
            if _in(folder, folders, listed).get(path):
                return f"{path!r} is a folder, so no file can be stored there"
    return None


def _in(folder: str | None, folders: dict[str | None, dict[str, bool]], listed: List) -> dict[str, bool]:
    if folder not in folders:
        folders[folder] = {entry.path: bool(entry.is_dir) for entry in listed(folder)}
    return folders[folder]

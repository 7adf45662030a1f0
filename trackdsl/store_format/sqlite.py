"""SQLite stores: the file that a tracking URI names."""

from __future__ import annotations

import contextlib
import os


def sqlite_path(uri: str) -> str | None:
    """The file of a SQLite URI, or None for any other URI.

    >>> sqlite_path("sqlite:////data/mlflow.db"), sqlite_path("http://tracking:5000")
    ('/data/mlflow.db', None)
    """
    if not uri.startswith("sqlite:///"):
        return None
    # As SQLAlchemy reads it: `#` is a character like any other.
    return uri.removeprefix("sqlite:///").partition("?")[0] or None


def through_link(uri: str, cwd: str) -> str:
    """The URI of a SQLite file that leads to it from every folder.

    A folder whose name no URI can hold leaves the URI relative to it. Such a file is named through a link to the
    folder, in the temporary folder. Every other URI is returned as it is.

    Args:
        uri: the tracking URI.
        cwd: the folder that it is relative to.

    Raises:
        OSError: the link cannot be made, or a file of its name leads elsewhere.
    """
    path = sqlite_path(uri)
    if path is None or path.startswith((os.sep, ":")):
        return uri
    import hashlib  # Few names need a link.
    import tempfile

    link = os.path.join(
        tempfile.gettempdir(), f"trackdsl-{os.getuid()}-{hashlib.sha256(cwd.encode()).hexdigest()[:16]}"
    )
    with contextlib.suppress(FileExistsError):
        os.symlink(cwd, link)
    if os.readlink(link) != cwd:
        raise FileExistsError(f"{link} exists, and is not the link to {cwd} that is needed there")
    return f"sqlite:///{link}/{path}"


def identity(uri: str) -> tuple[int, int] | None:
    """Device and inode of a SQLite URI's file, which change when another file takes its path.

    Returns:
        zeros if the file does not exist; None for any other URI.
    """
    path = sqlite_path(uri)
    try:
        found = os.stat(path) if path is not None and path != ":memory:" else None
    except FileNotFoundError:
        return (0, 0)
    return None if found is None else (found.st_dev, found.st_ino)

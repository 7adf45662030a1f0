"""Empty SQLite stores, copied from one that MLflow has made: its dozens of migrations take seconds.

A copy has what MLflow would make: only its default experiment says when it was made, and where its artifacts go. The
original lies in the user's cache, by the versions of MLflow and of its tables, and is made whole or not at all.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import stat
import tempfile
import time
from pathlib import Path

from trackdsl.errors import logger
from trackdsl.journal._files import read_regular, sync

#: Variables that have MLflow make other tables, or other rows.
_UNUSUAL = ("MLFLOW_ENABLE_WORKSPACES", "_MLFLOW_SERVER_ARTIFACT_ROOT")
#: Where artifacts go below the working directory, as MLflow has it.
_ARTIFACTS = "mlruns"


def artifact_root(cwd: str) -> str:
    """Where MLflow puts artifacts for a program with a working directory."""
    return os.path.join(cwd, _ARTIFACTS)


def copy_empty(target: str, root: str) -> bool:
    """Make an empty store as a copy; False where there is none to copy, or none that is sound.

    Args:
        target: the SQLite file to make.
        root: where artifacts go.
    """
    original = _original()
    if original is None:
        return False
    try:
        with open(target, "xb") as file:
            file.write(read_regular(original))
        adapt(target, root)
    except FileNotFoundError:
        return False
    except (OSError, sqlite3.Error, ValueError) as error:
        logger.warning("trackdsl does not copy the empty store %s: %s", original, error)
        for path in (target, original):
            with contextlib.suppress(OSError):
                os.unlink(path)
        return False
    sync(Path(target))
    return True


def adapt(path: str, root: str) -> None:
    """Have the default experiment of an empty store be made now, with its artifacts below a folder.

    Raises:
        ValueError: it is no empty store, or damaged.
        sqlite3.Error: the same.
    """
    now = time.time_ns() // 1_000_000
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        if connection.execute("PRAGMA quick_check").fetchall() != [("ok",)]:
            raise ValueError("it is damaged")
        changed = connection.execute(
            "UPDATE experiments SET artifact_location = ?, creation_time = ?, last_update_time = ? "
            "WHERE experiment_id = 0",
            (_location(root), now, now),
        ).rowcount
        if changed != 1 or connection.execute("SELECT count(*) FROM experiments").fetchone() != (1,):
            raise ValueError("it is no empty store")


def keep_empty(made: str, root: str) -> None:
    """Keep a store that MLflow has just made, for copies, where it is as others of this version would be.

    Args:
        made: its SQLite file, which no process has open.
        root: where MLflow was to put artifacts.
    """
    original = _original()
    if original is None:
        return
    try:
        with contextlib.closing(sqlite3.connect(f"file:{made}?mode=ro", uri=True)) as connection:
            rows = connection.execute("SELECT experiment_id, artifact_location FROM experiments").fetchall()
        if rows != [(0, _location(root))]:
            return
        descriptor, part = tempfile.mkstemp(dir=original.parent)
        try:
            with open(descriptor, "wb") as file:
                file.write(Path(made).read_bytes())
            sync(Path(part))
            os.replace(part, original)
        except BaseException:
            os.unlink(part)
            raise
    except (OSError, sqlite3.Error) as error:
        logger.warning("trackdsl cannot keep an empty store in %s, so that each takes seconds: %s", original, error)


def _location(root: str) -> str:
    """Where the artifacts of the default experiment go."""
    from mlflow.utils.uri import append_to_uri_path

    return str(append_to_uri_path(root, "0"))  # type: ignore[no-untyped-call]


def _original() -> Path | None:
    """Where the original is, or would be; None where there can be none."""
    if any(os.environ.get(name) for name in _UNUSUAL):
        return None
    import platformdirs
    from mlflow.store.db.utils import _get_latest_schema_revision
    from mlflow.version import VERSION

    try:
        folder = Path(platformdirs.user_cache_dir("trackdsl", appauthor=False))
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        found = os.lstat(folder)
    except (OSError, RuntimeError):  # Nobody has a home.
        return None
    # Nobody else may put rows into the stores of this user.
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o022:
        return None
    revision = _get_latest_schema_revision()  # type: ignore[no-untyped-call]
    return folder / f"empty-{VERSION}-{revision}.db"

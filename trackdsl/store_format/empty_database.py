"""Empty SQLite stores, copied from one that MLflow created: its dozens of migrations take seconds.

A copy is equal to a store that MLflow would create, except for its default experiment's creation time and artifact
folder, which are set. The original is in the user's cache, by the versions of MLflow and of its tables. It is written
completely or not at all.
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
from trackdsl.store_format.installed_mlflow import installed_versions

#: Variables with which MLflow creates other tables, or other rows.
_UNUSUAL = ("MLFLOW_ENABLE_WORKSPACES", "_MLFLOW_SERVER_ARTIFACT_ROOT")
#: The folder of artifacts below the working directory, as in MLflow.
_ARTIFACTS = "mlruns"


def artifact_root(cwd: str) -> str:
    """The folder in which MLflow puts the artifacts of a program with a working directory."""
    return os.path.join(cwd, _ARTIFACTS)


def copy_empty(target: str, root: str) -> bool:
    """Create an empty store as a copy; False if there is no valid original.

    Args:
        target: the SQLite file to create.
        root: the folder of its artifacts.
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
    """Set the creation time and the artifact folder of an empty store's default experiment.

    Raises:
        ValueError: it is not an empty store, or is damaged.
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
            raise ValueError("it is not an empty store")


def keep_empty(made: str, root: str) -> None:
    """Keep a store that MLflow has just created, as the original for copies, if it is like all others of this version.

    Args:
        made: its SQLite file, which no process has open.
        root: the artifact folder that MLflow was given.
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
        logger.warning(
            "trackdsl cannot keep an empty store in %s, so each new store takes seconds to create: %s", original, error
        )


def _location(root: str) -> str:
    """The artifact folder of the default experiment."""
    return os.path.join(root, "0")


def _original() -> Path | None:
    """The path of the original, which need not exist; None if there can be none."""
    if any(os.environ.get(name) for name in _UNUSUAL):
        return None
    import platformdirs

    versions = installed_versions()
    if versions is None:
        return None
    try:
        folder = Path(platformdirs.user_cache_dir("trackdsl", appauthor=False))
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        found = os.lstat(folder)
    except (OSError, RuntimeError):  # RuntimeError: there is no home folder.
        return None
    # No other user may be able to put rows into this user's stores.
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o022:
        return None
    return folder / f"empty-{versions[0]}-{versions[1]}.db"

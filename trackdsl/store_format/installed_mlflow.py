"""The installed MLflow: its version, and that of its tables, read from its files, as its import takes seconds."""

from __future__ import annotations

import re
from importlib.util import find_spec
from pathlib import Path

from trackdsl._core.sqlite_files import first_row
from trackdsl.store_format.sqlite import sqlite_path

_VERSION = re.compile(r"^VERSION\b[^=\n]*=\s*[\"']([^\"'\n]+)[\"']", re.MULTILINE)
#: The version that a migration makes, and that or those from which it does.
_REVISION = re.compile(r"^revision\b[^=\n]*=\s*[\"'](\w+)[\"']", re.MULTILINE)
_BEFORE = re.compile(r"^down_revision\b[^=\n]*=\s*(\([^)]*\)|[^\n]*)", re.MULTILINE)


#: What to do about tables that a newer MLflow has made.
UPGRADE = "Upgrade MLflow here: pip install --upgrade mlflow"
#: What MLflow says about tables of another version than its own, whether theirs is older or newer.
_OTHER_VERSION = re.compile(
    r"Detected out-of-date database schema \(found version (?P<found>\w+), but expected (?P<wanted>\w+)\)\..*",
    re.DOTALL,
)


def mlflow_folder() -> Path | None:
    """The folder of the installed MLflow, which is not imported; None if there is none."""
    spec = find_spec("mlflow")
    return Path(spec.submodule_search_locations[0]) if spec and spec.submodule_search_locations else None


def installed_versions() -> tuple[str, str] | None:
    """The version of MLflow and that of its tables; None where its files do not say."""
    try:
        package = mlflow_folder()
        if package is None:
            return None
        found = _VERSION.search((package / "version.py").read_text(encoding="utf-8"))
        revision = needed_revision(package)
    except (OSError, ValueError):  # ValueError: something else has that name, or its files are no text.
        return None
    return None if found is None or revision is None else (found[1], revision)


def is_newer(revision: str | None, mlflow: Path) -> bool:
    """Whether tables have a version that an MLflow cannot upgrade, because a newer one has made it.

    Args:
        revision: the version of the tables; None if they have none.
        mlflow: the folder of the package.
    """
    return revision is not None and revision not in _revisions(mlflow)[0]


def explain_version(text: str) -> str:
    """MLflow's error about tables of a newer MLflow with the right advice: it always names `mlflow db upgrade`.

    Args:
        text: any error's message.

    Example:
        >>> explain_version("disk I/O error")
        'disk I/O error'
    """
    found = _OTHER_VERSION.search(text)
    if found is None or (mlflow := mlflow_folder()) is None or not is_newer(found["found"], mlflow):
        return text
    what = f"the tables are of a newer MLflow (version {found['found']}; the installed one needs {found['wanted']})"
    return f"{text[: found.start()]}{what}. {UPGRADE}"


def _revisions(mlflow: Path) -> tuple[set[str], set[str]]:
    """The versions of the tables that an MLflow knows, and those that a later one follows."""
    made: set[str] = set()
    followed: set[str] = set()
    for migration in (mlflow / "store" / "db_migrations" / "versions").glob("*.py"):
        text = migration.read_text(encoding="utf-8")
        made.update(_REVISION.findall(text))
        for before in _BEFORE.findall(text):
            followed.update(re.findall(r"[\"'](\w+)[\"']", before))
    return made, followed


def needed_revision(mlflow: Path) -> str | None:
    """The version of the tables that an MLflow needs.

    Its migrations are read as text: alembic imports each of them, and with them MLflow, which takes seconds.

    Args:
        mlflow: the folder of the package.
    """
    made, followed = _revisions(mlflow)
    newest = made - followed
    if len(newest) == 1:
        return newest.pop()
    from alembic.script import ScriptDirectory

    return ScriptDirectory(str(mlflow / "store" / "db_migrations")).get_current_head()


def revision_of(uri: str) -> str | None:
    """The version of the tables of a database. Exceptions of the database driver are not caught."""
    query = "SELECT version_num FROM alembic_version"
    path = sqlite_path(uri)
    if path is not None:
        row = first_row(path, query)
        return None if row is None else str(row[0])
    import sqlalchemy
    from sqlalchemy import pool

    with sqlalchemy.create_engine(uri, poolclass=pool.NullPool).connect() as connection:
        version: str | None = connection.execute(sqlalchemy.text(query)).scalar()
        return version

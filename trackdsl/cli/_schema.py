"""The version of MLflow's tables in a database, and the version that the installed MLflow needs."""

from __future__ import annotations

import re
from pathlib import Path

from trackdsl._core.sqlite_files import first_row
from trackdsl.store_format.sqlite import sqlite_path

#: The version that a migration makes, and that or those from which it does.
_REVISION = re.compile(r"^revision\b[^=\n]*=\s*[\"'](\w+)[\"']", re.MULTILINE)
_BEFORE = re.compile(r"^down_revision\b[^=\n]*=\s*(\([^)]*\)|[^\n]*)", re.MULTILINE)


def needed_revision(mlflow: Path) -> str | None:
    """The version of the tables that an MLflow needs.

    Its migrations are read as text: alembic imports each of them, and with them MLflow, which takes seconds.

    Args:
        mlflow: the folder of the package.
    """
    folder = mlflow / "store" / "db_migrations"
    made: set[str] = set()
    followed: set[str] = set()
    for migration in (folder / "versions").glob("*.py"):
        text = migration.read_text(encoding="utf-8")
        made.update(_REVISION.findall(text))
        for before in _BEFORE.findall(text):
            followed.update(re.findall(r"[\"'](\w+)[\"']", before))
    newest = made - followed
    if len(newest) == 1:
        return newest.pop()
    from alembic.script import ScriptDirectory

    return ScriptDirectory(str(folder)).get_current_head()


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

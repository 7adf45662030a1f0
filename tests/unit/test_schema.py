"""The version of MLflow's tables."""

from __future__ import annotations

from pathlib import Path

import mlflow
from mlflow.store.db.utils import _get_latest_schema_revision

from trackdsl.cli._schema import needed_revision

PACKAGE = Path(mlflow.__file__).parent


def test_the_version_that_the_installed_mlflow_needs() -> None:
    """It is read from the text of the migrations, and is the one that MLflow itself compares with."""
    assert needed_revision(PACKAGE) == _get_latest_schema_revision()


def test_migrations_that_join_two_branches(tmp_path: Path) -> None:
    """The newest version is the one that no migration comes after, in whichever form its predecessors are written."""
    folder = tmp_path / "store" / "db_migrations" / "versions"
    folder.mkdir(parents=True)
    for name, text in {
        "first": 'revision = "a1"\ndown_revision = None\n',
        "left": "revision: str = 'b1'\ndown_revision: str | None = 'a1'\n",
        "right": 'revision = "b2"\ndown_revision = "a1"  # as left\n',
        "joined": 'revision = "c1"\ndown_revision = (\n    "b1",\n    "b2",\n)\n',
    }.items():
        (folder / f"{name}.py").write_text(text)
    assert needed_revision(tmp_path) == "c1"

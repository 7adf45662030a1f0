"""The version of MLflow's tables."""

from __future__ import annotations

from pathlib import Path

import mlflow
import pytest
from mlflow.store.db import utils

from trackdsl.store_format.installed_mlflow import explain_version, installed_versions, needed_revision

PACKAGE = Path(mlflow.__file__).parent


def test_the_version_that_the_installed_mlflow_needs() -> None:
    """It is read from the text of the migrations, and is the one that MLflow itself compares with."""
    newest = utils._get_latest_schema_revision()  # type: ignore[no-untyped-call]
    assert needed_revision(PACKAGE) == newest
    assert installed_versions() == (mlflow.__version__, newest)


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


@pytest.mark.parametrize(
    ("found", "advice"), [("ffffffffffff", "pip install --upgrade"), ("451aebb31d03", "db upgrade")]
)
def test_tables_of_a_newer_mlflow(found: str, advice: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only older tables can be upgraded; for newer ones MLflow itself must be, whatever its error says."""
    monkeypatch.setattr(utils, "_get_schema_version", lambda _: found)
    with pytest.raises(mlflow.MlflowException, match="out-of-date database schema") as raised:
        utils._verify_schema(None)  # type: ignore[no-untyped-call]
    text = explain_version(f"MlflowException: {raised.value}")
    assert advice in text
    assert ("newer MLflow" in text) == (found == "ffffffffffff")
    assert ("db upgrade" in text) == (found != "ffffffffffff")

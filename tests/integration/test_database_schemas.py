"""The versions of MLflow's tables: the sink writes to each one that it knows, and leaves all others to MLflow."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import await_git, once, run_command
from tests.equal_stores import TABLES, Rows, deliver_to, rows_of
from tests.integration.test_database_sink import record_everything
from trackdsl import QueryError, runs, settings, stage
from trackdsl._core.uris import absolute_uri
from trackdsl.delivery.database._opening import why_unknown
from trackdsl.delivery.database._schema import KNOWN_REVISIONS
from trackdsl.delivery.database._sqlite_connection import SqliteConnection
from trackdsl.delivery.database.sink import DatabaseSink
from trackdsl.delivery.process._stores import open_store
from trackdsl.journal import _target
from trackdsl.query._database import reader_for
from trackdsl.query._store import content_of
from trackdsl.store_format.sinks import CLIENT, REST, SinkNote, write_sink
from trackdsl.store_format.sinks import TABLES as WRITES_TABLES


@pytest.fixture(scope="session")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an empty store of every revision that MLflow's migrations can make; its file has that name."""
    return once(tmp_path_factory, "stores-of-all-revisions", _make_stores)


def _make_stores(folder: Path) -> None:
    import sqlalchemy
    from alembic import command
    from alembic.script import ScriptDirectory
    from mlflow.store.db.utils import _get_alembic_config
    from mlflow.store.tracking.dbmodels.initial_models import Base

    path = folder / "store.db"
    engine = sqlalchemy.create_engine(f"sqlite:///{path}", poolclass=sqlalchemy.NullPool)
    Base.metadata.create_all(engine)
    config = _get_alembic_config(f"sqlite:///{path}")
    existing = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    for revision in KNOWN_REVISIONS:
        if revision in existing:
            with engine.begin() as connection:
                config.attributes["connection"] = connection
                command.upgrade(config, revision)
            shutil.copy(path, folder / f"{revision}.db")


def deliver_into(empty: Path, spool: Path, folder: Path) -> Rows:
    """Deliver a copy of a spool to a copy of a store with the database sink; returns the rows."""
    shutil.copytree(spool, folder / "spool", copy_function=shutil.copy2)
    path = folder / "mlflow.db"
    shutil.copy(empty, path)
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(
            "INSERT INTO experiments (experiment_id, name, artifact_location, lifecycle_stage) "
            "SELECT 0, 'Default', ?, 'active' WHERE NOT EXISTS (SELECT 1 FROM experiments)",
            (str(folder / "mlruns" / "0"),),
        )

    def open_sink(_uri: str, _cwd: str) -> DatabaseSink:
        sink = open_store(f"sqlite:///{path}", str(empty.parent), own=True)
        assert isinstance(sink, DatabaseSink)
        return sink

    deliver_to(folder / "spool", open_sink)
    return rows_of(f"sqlite:///{path}")


@pytest.mark.parametrize("revision", KNOWN_REVISIONS)
def test_each_known_revision_takes_the_same_rows(revision: str, stores: Path, tmp_path: Path) -> None:
    """A program with every kind of event leaves the same rows in the tables of each MLflow, except newer columns."""
    if not (stores / f"{revision}.db").exists():
        pytest.skip(f"the installed MLflow has no migration to the tables of {KNOWN_REVISIONS[revision]}")
    spool = settings.spool()
    assert spool is not None
    record_everything()
    _target.close_all()
    await_git(spool)
    for name in ("newest", "known"):
        (tmp_path / name).mkdir()
    expected = deliver_into(stores / f"{_newest(stores)}.db", spool, tmp_path / "newest")
    found = deliver_into(stores / f"{revision}.db", spool, tmp_path / "known")

    assert len(found["runs"]) == 6
    assert all(expected[table] for table in TABLES)
    for table, rows in found.items():
        wanted = [{key: row[key] for key in rows[0] if key in row} for row in expected[table]]
        here = [{key: row[key] for key in wanted[0]} for row in rows]
        assert [_moved(row, "known") for row in here] == [_moved(row, "newest") for row in wanted], table


def _newest(stores: Path) -> str:
    return [revision for revision in KNOWN_REVISIONS if (stores / f"{revision}.db").exists()][-1]


def _moved(row: dict[str, Any], folder: str) -> dict[str, Any]:
    return {key: value.replace(f"/{folder}/", "/") if isinstance(value, str) else value for key, value in row.items()}


def test_the_tables_of_the_installed_mlflow_are_known() -> None:
    """When MLflow changes its tables, the sink is checked with them, and their revision is added to its list."""
    from mlflow.store.db.utils import _get_latest_schema_revision
    from mlflow.version import VERSION

    revision = _get_latest_schema_revision()
    assert revision in KNOWN_REVISIONS, f"MLflow {VERSION} has tables of the new revision {revision}"


def test_unknown_tables_are_left_to_mlflow(empty_store: Path, tmp_path: Path) -> None:
    """The sink of unknown tables is the one that uses MLflow, and the spool's note says why."""
    path = tmp_path / "mlflow.db"
    shutil.copy(empty_store, path)
    notes: list[SinkNote] = []
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE alembic_version SET version_num = 'aaaaaaaaaaaa'")
    with pytest.raises(Exception, match="newer MLflow"):
        open_store(f"sqlite:///{path}", str(tmp_path), own=True, note=notes.append)
    (note,) = notes
    assert note.way == CLIENT
    assert "aaaaaaaaaaaa" in note.reason


def test_a_database_with_workspaces_is_left_to_mlflow(stores: Path, tmp_path: Path) -> None:
    """Two workspaces may have experiments of one name; MLflow decides which is meant, or refuses to open them."""
    from mlflow.store.tracking.dbmodels.models import SqlExperiment

    if not hasattr(SqlExperiment, "workspace"):
        pytest.skip("the installed MLflow has no workspaces")
    checked = []
    for revision in KNOWN_REVISIONS:
        if not (stores / f"{revision}.db").exists():
            continue
        path = tmp_path / f"{revision}.db"
        shutil.copy(stores / f"{revision}.db", path)
        connection = SqliteConnection(str(path))
        assert why_unknown(connection, revision) == ""
        with closing(sqlite3.connect(path)) as other, other:
            if "workspace" not in [row[1] for row in other.execute("PRAGMA table_info(experiments)")]:
                continue
            other.execute("INSERT INTO experiments (name, workspace, lifecycle_stage) VALUES ('e', 'team', 'active')")
        assert "several workspaces" in why_unknown(connection, revision)
        connection.close()
        checked.append(revision)
    assert _newest(stores) in checked


def test_queries_of_each_version(stores: Path, tmp_path: Path) -> None:
    """Runs are read from each known version of the tables, which stays as it is; MLflow refuses the others."""
    path = tmp_path / "mlflow.db"
    uri = f"sqlite:///{path}"
    known = [revision for revision in KNOWN_REVISIONS if (stores / f"{revision}.db").exists()]
    for revision in (*known, "aaaaaaaaaaaa"):
        shutil.copy(stores / f"{revision if revision in known else known[-1]}.db", path)
        with closing(sqlite3.connect(path)) as other, other:
            other.execute("INSERT INTO experiments (experiment_id, name, lifecycle_stage) VALUES (7, 'e', 'active')")
            other.execute(
                "INSERT INTO runs (run_uuid, name, experiment_id, status, start_time, lifecycle_stage, artifact_uri, "
                "source_type) VALUES (?, 'r', 7, 'FINISHED', 1, 'active', ?, 'LOCAL')",
                ("a" * 32, str(tmp_path)),
            )
            other.execute('INSERT INTO tags (run_uuid, "key", value) VALUES (?, ?, ?)', ("a" * 32, "t", "x"))
            other.execute("UPDATE alembic_version SET version_num = ?", (revision,))
        before = path.read_bytes()
        if revision in known:
            reader = reader_for(uri)
            assert list(runs("e", tags__t="x", tracking_uri=uri)["name"]) == ["r"]
            assert content_of(reader, "a" * 32, "no") is None
        else:
            with pytest.raises(QueryError, match="newer MLflow"):
                runs("e", tracking_uri=uri)
        assert path.read_bytes() == before


def test_commands_say_why_tables_are_left_to_mlflow(empty_store: Path) -> None:
    """`status` and `doctor` name the reason for the slower way, and `doctor` says which way is used."""
    shutil.copy(empty_store, "mlflow.db")
    spool = settings.spool()
    assert spool is not None
    with stage("waits"):
        assert _delivery_of_doctor() is None
        for way, reason, level in (
            (CLIENT, "its tables are of 2031", "warning"),
            (WRITES_TABLES, "", "ok"),
            (REST, "", "ok"),
            (REST, "it takes version 9 of change sets", "warning"),
        ):
            write_sink(spool, absolute_uri(settings.tracking_uri(), os.getcwd()), os.getcwd(), SinkNote(way, reason))
            status = run_command("status", COLUMNS="500").stdout
            assert ("through MLflow's client" in status) == (way == CLIENT)
            assert ("through MLflow's REST API, which is slower" in status) == (way == REST and bool(reason))
            assert reason in status
            (journal,) = json.loads(run_command("status", "--json").stdout)["journals"]
            assert (journal["written_to"], journal["why_slower"]) == (way, reason or None)
            finding = _delivery_of_doctor()
            assert finding is not None
            assert finding["level"] == level
            assert reason in finding["text"]


def _delivery_of_doctor() -> dict[str, str] | None:
    findings = json.loads(run_command("doctor", "--json").stdout)["findings"]
    return next((finding for finding in findings if finding["about"] == "delivery"), None)

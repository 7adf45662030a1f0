"""Database servers that lose connections or deny a table, and several that write to one database at the same time."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import sqlalchemy

import trackdsl
from tests.conftest import client, points, run_command
from tests.equal_stores import deliver_to, rows_of
from tests.services import PASSWORD, Database, execute
from trackdsl import experiment, settings, stage
from trackdsl.delivery.database import _server_connection
from trackdsl.delivery.database.sink import DatabaseSink
from trackdsl.delivery.process._stores import open_store
from trackdsl.delivery.process._worker import Worker
from trackdsl.delivery.store._errors import Unavailable
from trackdsl.journal import _target

#: Statements for each kind of database: to deny all connections and end those there are, and to allow them again.
DENY = {
    "postgresql": [
        "ALTER DATABASE {name} ALLOW_CONNECTIONS false",
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'",
    ],
    "mysql": ["ALTER USER '{user}' ACCOUNT LOCK", "KILL USER '{user}'"],
}
ALLOW = {
    "postgresql": ["ALTER DATABASE {name} ALLOW_CONNECTIONS true"],
    "mysql": ["ALTER USER '{user}' ACCOUNT UNLOCK"],
}


class Store:
    """A database of its own, as a user of its own sees it.

    Attributes:
        uri: the tracking URI.
        kind: `postgresql` or `mysql`.
    """

    def __init__(self, database: Database) -> None:
        self.name = f"own_{os.urandom(3).hex()}"
        self._root = database.fresh(self.name)
        self._server = database.root
        self.user = f"user_{self.name}"
        self.kind = "mysql" if "mysql" in database.uri else "postgresql"
        client(self._root).search_experiments()
        parts = urlsplit(self._root)
        if self.kind == "mysql":  # Only its root may give permissions.
            self._server = f"{parts.scheme}://root@{parts.hostname}:{parts.port}/mysql"
            self._root = f"{parts.scheme}://root@{parts.hostname}:{parts.port}/{self.name}"
        self.uri = f"{parts.scheme}://{self.user}:{PASSWORD}@{parts.hostname}:{parts.port}/{self.name}"
        if self.kind == "mysql":
            execute(self._root, f"CREATE USER '{self.user}' IDENTIFIED BY '{PASSWORD}'")
            self.execute(f"GRANT ALL ON {self.name}.* TO '{self.user}'")
        else:
            execute(self._root, f"CREATE ROLE {self.user} LOGIN PASSWORD '{PASSWORD}'")
            self.execute(f"GRANT ALL ON ALL TABLES IN SCHEMA public TO {self.user}")
            self.execute(f"GRANT ALL ON ALL SEQUENCES IN SCHEMA public TO {self.user}")

    def execute(self, *statements: str) -> None:
        """Run statements as an administrator."""
        execute(self._root, *statements)

    def switch(self, statements: dict[str, list[str]]) -> None:
        """Deny or allow connections."""
        commands = [each.format(name=self.name, user=self.user) for each in statements[self.kind]]
        execute(self._server, *commands)

    def limit(self) -> None:
        """Take the permission for the table of points from the user."""
        if self.kind == "postgresql":
            self.execute(f"REVOKE ALL ON metrics FROM {self.user}")
            return
        self.execute(f"REVOKE ALL ON {self.name}.* FROM '{self.user}'")
        for table in rows_of(self._root):
            if table != "metrics":
                self.execute(f"GRANT ALL ON {self.name}.{table} TO '{self.user}'")
        self.execute(f"GRANT SELECT ON {self.name}.alembic_version TO '{self.user}'")

    def permit(self) -> None:
        """Give it back."""
        self.execute(f"GRANT ALL ON metrics TO {self.user}")

    def open(self, _uri: str, _cwd: str) -> DatabaseSink:
        """Open the sink."""
        sink = open_store(self.uri, str(Path.cwd()), own=True)
        assert isinstance(sink, DatabaseSink)
        return sink


@pytest.fixture(params=["postgresql", "mariadb"])
def store(request: pytest.FixtureRequest) -> Store:
    """A database on a server of each kind."""
    return Store(request.getfixturevalue(f"{request.param}_database"))


def record(number: int) -> None:
    """Record a run with a child, in the program's open journal."""
    with experiment("churn"), stage("part", number=number) as run:
        for step in range(20):
            run.log_metric("loss", step / 3, step=step)


def check(store: Store, runs: int) -> None:
    """All of some calls of `record` is there once."""
    rows = rows_of(store.uri)
    assert {row["status"] for row in rows["runs"]} == {"FINISHED"}
    counts = {table: len(rows[table]) for table in ("runs", "params", "metrics", "latest_metrics")}
    assert counts == {"runs": 2 * runs, "params": runs, "metrics": 20 * runs, "latest_metrics": runs}
    assert not [row for row in rows["tags"] if "refused" in row["key"]]


@pytest.mark.usefixtures("no_pauses")
def test_a_database_that_ends_connections(store: Store) -> None:
    """Delivery outlives the end of its connection; while there is none, it waits, and `status` says so."""
    spool = settings.spool()
    assert spool is not None
    worker = Worker(spool, store.open)
    for number in range(3):
        record(number)
        assert worker.round()
        record(number + 3)
        store.switch(DENY)
        for _ in range(2):
            assert not worker.round()
            assert "failing for" in run_command("status").stdout
            assert PASSWORD not in run_command("status").stdout
        store.switch(ALLOW)
        assert worker.round()
    _target.close_all()
    worker.close()
    deliver_to(spool, store.open)
    check(store, 6)


@pytest.mark.usefixtures("no_pauses")
def test_a_table_that_may_not_be_written(store: Store) -> None:
    """Without permission for one table everything waits, nothing is left out, and `status` says what is missing."""
    spool = settings.spool()
    assert spool is not None
    store.limit()
    record(0)
    _target.close_all()
    worker = Worker(spool, store.open)
    for _ in range(3):  # What is refused as a whole is taken apart first.
        worker.round()
    for _ in range(3):
        worker.round()
        status = run_command("status").stdout
        assert "denied" in status
        assert "metrics" in status
    worker.close()
    store.permit()
    deliver_to(spool, store.open)
    check(store, 1)


@pytest.mark.usefixtures("no_pauses")
def test_an_artifact_folder_that_is_too_long_for_the_column(store: Store, tmp_path: Path) -> None:
    """Runs whose artifact URI does not fit wait, with a clear message, while others arrive."""
    spool = settings.spool()
    assert spool is not None
    client(store.uri).create_experiment("churn", f"/{'x' * 180}")
    record(0)
    with experiment("other"):
        pass
    _target.close_all()
    worker = Worker(spool, store.open)
    for _ in range(4):
        worker.round()
    rows = rows_of(store.uri)
    assert [row["experiment_id"] for row in rows["runs"]] == ["other"]
    status = run_command("status").stdout
    assert "too long" in status
    assert "blocked" in status
    worker.close()
    location = tmp_path / "a"
    store.execute(f"UPDATE experiments SET artifact_location = '{location}' WHERE name = 'churn'")  # noqa: S608
    deliver_to(spool, store.open)
    assert len([row for row in rows_of(store.uri)["runs"] if row["experiment_id"] == "churn"]) == 2


def _again(write: Callable[[], object]) -> None:
    """Write a tag with plain MLflow, which fails where another writer adds the same tag at the same time."""
    from mlflow.exceptions import MlflowException

    for _ in range(10):
        try:
            write()
        except MlflowException as error:
            if not any(name in str(error) for name in ("IntegrityError", "UniqueViolation")):
                raise
        else:
            return


@pytest.mark.usefixtures("no_pauses")
@pytest.mark.parametrize("kind", ["sqlite", "postgresql", "mariadb"])
def test_several_write_to_one_database(request: pytest.FixtureRequest, kind: str, tmp_path: Path) -> None:
    """Two deliveries, which share an experiment and a run, and plain MLflow in the same run: everything stays."""
    if kind == "sqlite":
        uri = str(request.getfixturevalue("sqlite_store"))
    else:
        uri = request.getfixturevalue(f"{kind}_database").fresh(f"several_{os.urandom(3).hex()}")
        client(uri).search_experiments()

    def open_sink(_uri: str, _cwd: str) -> DatabaseSink:
        sink = open_store(uri, str(Path.cwd()), own=True)
        assert isinstance(sink, DatabaseSink)
        return sink

    with experiment("Default") as shared:
        pass
    _target.close_all()
    first = settings.spool()
    assert first is not None
    deliver_to(first, open_sink)
    spools = [tmp_path / f"spool-{number}" for number in range(2)]
    for number, spool in enumerate(spools):
        trackdsl.configure(spool=str(spool))
        with experiment(run_id=shared.id) as run:
            for step in range(300):
                run.log_metric("loss", number, step=2 * step + number)
                run.set_tag(f"tag-{step % 7}", number)
        for part in range(20):
            with experiment("churn"), stage("part", number=part) as run:
                run.log_metric("loss", part)
        _target.close_all()

    def plain() -> None:
        mlflow = client(uri)
        for step in range(30):
            mlflow.log_metric(shared.id, "loss", 2.0, step=1000 + step)
            _again(lambda step=step: mlflow.set_tag(shared.id, f"tag-{step % 7}", "plain"))  # type: ignore[misc]
            mlflow.log_param(shared.id, f"param-{step}", step)

    failed = together([lambda spool=spool: deliver_to(spool, open_sink) for spool in spools] + [plain])
    assert not failed
    rows = rows_of(uri)
    assert len([row for row in rows["experiments"] if row["name"] == "churn"]) == 1
    assert len(rows["runs"]) == 1 + 2 * 2 * 20
    assert {row["status"] for row in rows["runs"]} == {"FINISHED"}
    found = client(uri).get_run(shared.id)
    expected = [(step, float(step % 2)) for step in range(600)] + [(1000 + step, 2.0) for step in range(30)]
    assert sorted(points(found, "loss", uri)) == expected
    assert found.data.metrics["loss"] == 2.0
    assert found.data.params == {f"param-{step}": str(step) for step in range(30)}
    assert not [row for row in rows["tags"] if "refused" in row["key"]]


def together(actions: list[Callable[[], Any]]) -> list[BaseException]:
    """Do things at the same time; returns what was raised."""
    begin = threading.Barrier(len(actions))
    failed: list[BaseException] = []

    def do(action: Callable[[], Any]) -> None:
        try:
            begin.wait()
            action()
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=do, args=[action]) for action in actions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return failed


def test_a_database_that_never_answers(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that takes a statement and stays silent, here because of a lock, fails in time, and is asked again."""
    monkeypatch.setattr(_server_connection, "_LONGEST_CALL", 2)
    sink = store.open("", "")
    experiment_id = sink.experiment("silent")
    lock = "LOCK TABLES tags WRITE" if store.kind == "mysql" else "LOCK TABLE tags"
    engine = sqlalchemy.create_engine(store.uri, poolclass=sqlalchemy.NullPool)
    with engine.connect() as connection:
        connection.exec_driver_sql(lock)
        with pytest.raises(Unavailable, match="has not answered for"):
            sink.create_run(experiment_id, "a run", 1, {"trackdsl.id": "a" * 32})
    sink.create_run(experiment_id, "a run", 1, {"trackdsl.id": "a" * 32})
    assert sink.status("a" * 32) == "RUNNING"
    sink.close()

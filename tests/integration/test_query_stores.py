"""Which stores can be queried: servers, absent or locked databases, deleted experiments; and without MLflow."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pandas.testing import assert_frame_equal

import trackdsl
from tests.conftest import Server, StartProgram, client, deliver, end_delivery, free_port
from tests.run_zoo import HOSTILE, asked_in_a_process, names, record_zoo
from trackdsl import ExperimentNotFound, QueryError, RunNotFound, TrackingServerUnreachable, experiment, stage
from trackdsl.query import _runs


def test_deleted_and_empty_experiments(sqlite_store: str) -> None:
    """A deleted experiment is reported with the way back; one without runs gives an empty frame."""
    mlflow = client(sqlite_store)
    gone = mlflow.create_experiment("gone")
    mlflow.delete_experiment(gone)
    mlflow.create_experiment("empty")
    with pytest.raises(ExperimentNotFound, match=f"restore --experiment-id {gone}"):
        trackdsl.runs("gone")
    frame = trackdsl.runs("empty", accuracy__gt=0.9, order_by="accuracy DESC")
    assert (len(frame), next(iter(frame.columns))) == (0, "run_id")
    with pytest.raises(QueryError, match="There are none"):
        trackdsl.best("empty", "accuracy")


def test_at_a_server(shared_server: Server) -> None:
    """At a tracking server, everything gives what the same runs give from a database."""
    name = f"served-{os.getpid()}"
    record_zoo(shared_server.uri, name)
    deliver()
    frame = trackdsl.runs(name, order_by="name")
    assert names(frame) == ["run-0", "run-1", "run-2", "run-3"]
    assert list(frame["params.lr"]) == [0.1, 0.01, 1.0, 10.0]
    assert names(trackdsl.runs(name, accuracy__gt=0.9)) == ["run-1"]
    assert names(trackdsl.runs(name, hostile__contains="'; DROP")) == ["run-3"]
    assert trackdsl.best(name, "accuracy").name == "run-1"
    root = trackdsl.runs(f"{name}-other", name="root")["run_id"][0]
    found = trackdsl.tree(root)
    assert [run.name for run in found.walk()] == ["root", *(one for child in HOSTILE for one in (child, "leaf"))]
    assert trackdsl.tree(found.children[1].children[0].run_id, whole=True) == found
    assert trackdsl.history(root, "loss")["value"].tolist() == [1 / (step + 1) for step in range(5)]
    assert len(trackdsl.compare(*frame["run_id"][:2])) > 0
    database = f"sqlite:///{shared_server.folder}/srv.db"
    assert_frame_equal(trackdsl.runs(name), trackdsl.runs(name, tracking_uri=database))


@pytest.mark.slow
def test_what_was_just_recorded_is_there(start: StartProgram, sqlite_store: str, tmp_path: Path) -> None:
    """A program that asks for its own runs finds them, the one that is open included, by its handle too."""
    program = start(
        """
        import sys, trackdsl
        assert not {"pandas", "mlflow", "trackdsl.query"} & set(sys.modules)
        with trackdsl.experiment("now") as run:
            run.log_metric("loss", 0.5, step=3)
            with trackdsl.stage("inner"):
                pass
            print(list(trackdsl.runs("now", order_by="start")["status"]))
            print([one.name for one in trackdsl.tree(run).walk()], trackdsl.history(run, "loss")["step"].tolist())
        print(list(trackdsl.runs("now", order_by="start")["status"]))
        """,
        TRACKDSL_MODE="online",
    )
    code, out, err = program.finish()
    end_delivery(tmp_path / "spool")
    assert code == 0, err
    assert out.splitlines() == ["['RUNNING', 'FINISHED']", "['now', 'inner'] [3]", "['FINISHED', 'FINISHED']"]


def test_what_is_not_delivered_is_reported(sqlite_store: str, caplog: pytest.LogCaptureFixture) -> None:
    """Offline, what was recorded is not at MLflow: the log says so, and a handle of such a run is an error."""
    with experiment("later") as run:
        pass
    assert len(trackdsl.runs()) == 0
    assert "trackdsl sync" in caplog.text
    with pytest.raises(RunNotFound, match="not at MLflow yet"):
        trackdsl.tree(run)


@pytest.mark.parametrize("scheme", ["postgresql", "mysql+pymysql"])
def test_a_database_that_is_not_there(scheme: str) -> None:
    """If no database server listens, that is reported at once; MLflow itself would try for minutes."""
    with pytest.raises(TrackingServerUnreachable, match="no database answers at") as caught:
        trackdsl.runs(tracking_uri=f"{scheme}://ann:hunter2@127.0.0.1:{free_port()}/runs")
    assert "hunter2" not in str(caught.value)


def test_a_database_without_its_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    """A driver that is not installed is reported with the command that installs it."""
    monkeypatch.setitem(sys.modules, "MySQLdb", None)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        uri = f"mysql://127.0.0.1:{listening.getsockname()[1]}/runs"
        with pytest.raises(QueryError, match="pip install 'mysqlclient'"):
            trackdsl.runs(tracking_uri=uri)


def test_no_store(tmp_path: Path) -> None:
    """A query makes no database, changes no other one, waits for no server, and shows no password."""
    with pytest.raises(QueryError, match="does not exist"):
        trackdsl.runs()
    assert not list(Path.cwd().iterdir())
    (tmp_path / "notes.db").write_text("these are notes\n" * 100)
    with pytest.raises(QueryError, match=r"cannot be read as a database.* If it is not one, give --tracking-uri"):
        trackdsl.runs(tracking_uri=f"sqlite:///{tmp_path}/notes.db")
    with pytest.raises(QueryError, match="is a folder, and a SQLite database is a file; give --tracking-uri"):
        trackdsl.runs(tracking_uri=f"sqlite:///{tmp_path}")
    sqlite3.connect(tmp_path / "other.db").execute("CREATE TABLE mine (x)").connection.close()
    with pytest.raises(QueryError, match="is not an MLflow database"):
        trackdsl.runs(tracking_uri=f"sqlite:///{tmp_path}/other.db")
    with pytest.raises(TrackingServerUnreachable) as caught:
        trackdsl.runs(tracking_uri=f"http://me:hunter2@127.0.0.1:{free_port()}")
    assert "hunter2" not in str(caught.value)
    from trackdsl.testing import capture_runs

    with capture_runs(), pytest.raises(QueryError, match="captured"):
        trackdsl.runs()


@pytest.mark.slow  # SQLite waits five seconds for the other program.
def test_a_database_that_another_program_keeps_locked(zoo: str) -> None:
    """A query of a locked database says why it fails, and what to do."""
    with contextlib.closing(sqlite3.connect(zoo.removeprefix("sqlite:///"), isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(QueryError, match=r"is in use by another program: .*locked\. Close that program, or wait"):
            trackdsl.runs(tracking_uri=zoo)


def test_a_database_that_is_replaced(sqlite_store: str, empty_store: Path) -> None:
    """After a database file was replaced, queries read the new one, also those that MLflow answers."""
    by_mlflow = "attributes.run_id NOT IN ('x')"
    with stage("first"):  # In the default experiment, which the other file has too.
        pass
    deliver()
    assert len(trackdsl.runs()) == len(trackdsl.runs(where=by_mlflow)) == 1
    os.unlink("mlflow.db")
    shutil.copy(empty_store, "mlflow.db")
    assert len(trackdsl.runs()) == len(trackdsl.runs(where=by_mlflow)) == 0


def test_importing_brings_nothing() -> None:
    """`import trackdsl` imports neither pandas nor MLflow nor the query modules; their names are there nevertheless."""
    program = (
        "import sys, trackdsl; print(sorted({'pandas', 'mlflow', 'numpy', 'trackdsl.query'} & set(sys.modules)));"
        "trackdsl.runs, trackdsl.tree, trackdsl.compare, trackdsl.history, trackdsl.best;"
        "print(sorted({'pandas', 'mlflow', 'trackdsl.query'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["[]", "['trackdsl.query']"]


@pytest.mark.parametrize("after", [-1.0, 60.0], ids=["slow", "quick"])
def test_a_bar_does_not_change_what_is_read(after: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """If reading takes long, a progress bar follows it from then on, and each run comes once, in order."""
    monkeypatch.setattr(_runs, "_BAR_AFTER", after)
    monkeypatch.delitem(sys.modules, "tqdm", raising=False)
    found: Any = iter(range(100))
    assert list(_runs._with_bar(found)) == list(range(100))
    assert ("tqdm" in sys.modules) == (after < 0)


@pytest.mark.slow
def test_what_is_read_of_a_server_without_mlflow(own_server: Server, tmp_path: Path) -> None:
    """The same commands and functions read a server, and files that it keeps, without MLflow."""
    own_server.start()
    record_zoo(own_server.uri)
    deliver()
    printed = asked_in_a_process(own_server.uri, tmp_path, "mlflow", "sqlalchemy")
    assert printed == ["[]", "trackdsl._server.http"]


def test_what_is_read_without_mlflow(zoo: str, tmp_path: Path) -> None:
    """The commands and functions that read a SQLite store import neither MLflow nor SQLAlchemy nor `requests`.

    Where something imports `requests` later, also after a look whether there is such a module, its requests end.
    """
    printed = asked_in_a_process(zoo, tmp_path, "mlflow", "sqlalchemy", "requests")
    assert printed == ["[]", "trackdsl._server.http"]

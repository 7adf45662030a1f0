"""A tracking server that takes change sets: what it accepts, from whom, and what it then has."""

from __future__ import annotations

import contextlib
import json
import math
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import flask
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import trackdsl
from tests.conftest import Server, all_runs, await_git, examples, finish_delivery, free_port, wait_until
from tests.equal_stores import deliver_to, rows_of
from tests.gateways import Gateway
from tests.integration.test_database_sink import record_everything
from tests.plugin_server import OTHER, RUN, Served, new, packed
from trackdsl import experiment, stage
from trackdsl import settings as in_force
from trackdsl._core.events import Input
from trackdsl.delivery.database import _collector, _wire
from trackdsl.delivery.database._changes import (
    ChangeSet,
    NewRun,
    RunChange,
)
from trackdsl.delivery.database._server_tables import ServerTables, ask_server
from trackdsl.delivery.database.sink import DatabaseSink
from trackdsl.delivery.mlflow_client._sink import MlflowSink
from trackdsl.delivery.process._stores import open_store
from trackdsl.delivery.process._worker import Worker
from trackdsl.delivery.rest import _run_requests
from trackdsl.delivery.rest._requests import Rest
from trackdsl.delivery.rest.sink import RestSink
from trackdsl.delivery.store._errors import Denied, Refused, RefusedTogether, Unavailable
from trackdsl.delivery.store._sink import Batch, Sink
from trackdsl.journal import _target
from trackdsl.store_format.empty_database import adapt
from trackdsl.store_format.sinks import REST, SERVER, SinkNote


def opened(uri: str) -> tuple[Sink, SinkNote]:
    notes: list[SinkNote] = []
    sink = open_store(uri, str(Path.cwd()), own=True, note=notes.append)
    return sink, notes[-1]


def delivers(uri: str) -> Worker:
    spool = in_force.spool()
    assert spool is not None
    return Worker(spool, lambda _uri, cwd: open_store(uri, cwd, own=True))


@pytest.mark.parametrize("plugged", [True, False], ids=["plugin", "plain REST"])
def test_rows_through_the_server_are_those_of_the_database_sink(
    served: Served, empty_store: Path, tmp_path: Path, plugged: bool
) -> None:
    """The tables behind a server are those that a database gets from the same journals; with the plugin, ids too."""
    served.plugged = plugged
    spool = in_force.spool()
    assert spool is not None
    record_everything()
    _target.close_all()
    await_git(spool)
    shutil.copytree(spool, tmp_path / "copy", copy_function=shutil.copy2)
    local = tmp_path / "local" / "mlflow.db"
    local.parent.mkdir()
    shutil.copy(empty_store, local)
    adapt(str(local), str(served.path.parent / "mlruns"))

    def open_local(_uri: str, _cwd: str) -> Sink:
        return open_store(f"sqlite:///{local}", str(served.path.parent), own=True)

    deliver_to(tmp_path / "copy", open_local)
    deliver_to(spool, lambda _uri, cwd: open_store(served.uri, cwd, own=True))

    ours, theirs = rows_of(f"sqlite:///{served.path}"), rows_of(f"sqlite:///{local}")
    assert len(ours["runs"]) == 6
    for table, rows in theirs.items():
        assert ours[table] == rows, table
    ids = "SELECT run_uuid FROM runs ORDER BY run_uuid"
    with closing(sqlite3.connect(local)) as connection:
        assert (served.rows(ids) == connection.execute(ids).fetchall()) is plugged


def test_the_client_uses_the_plugin_where_it_is(served: Served) -> None:
    """The sink of a server with the plugin sends change sets, and this is noted for commands and programs."""
    sink, note = opened(served.uri)

    assert isinstance(sink, DatabaseSink)
    assert note == SinkNote(SERVER, "")
    sink.close()


def test_the_client_uses_plain_rest_where_the_plugin_is_not(served: Served) -> None:
    """The sink of a server without the plugin uses MLflow's own REST API."""
    served.plugged = False

    sink, note = opened(served.uri)

    assert isinstance(sink, RestSink)
    assert note == SinkNote(REST, "")


def test_a_server_of_unknown_tables_says_so(served: Served) -> None:
    """A server whose tables the plugin does not know takes no change sets, and the reason is noted."""
    with closing(sqlite3.connect(served.path)) as connection:
        connection.execute("UPDATE alembic_version SET version_num = 'f00'")
        connection.commit()

    sink, note = opened(served.uri)

    assert isinstance(sink, RestSink)
    assert note.way == REST
    assert "revision f00" in note.reason


@pytest.mark.slow
def test_delivery_continues_where_the_plugin_goes_away(served: Served) -> None:
    """A server that is started again without the plugin gets the rest through plain REST, and nothing twice."""

    @experiment("changes hands")
    def root(number: int) -> None:
        trackdsl.log_metric("loss", number)

    worker = delivers(served.uri)
    root(1)
    wait_until(lambda: worker.round() or True, "a round")
    served.plugged = False
    root(2)
    _target.close_all()
    finish_delivery(worker)

    assert served.rows("SELECT value FROM metrics ORDER BY value") == [(1.0,), (2.0,)]
    assert served.rows("SELECT status FROM runs") == [("FINISHED",), ("FINISHED",)]


@pytest.mark.slow
def test_who_may_not_write_waits_alone(served: Served) -> None:
    """Runs of an experiment that the user may not write to wait; those of others arrive, and all do once permitted."""

    @experiment("mine")
    def mine() -> None:
        with stage("child"):
            trackdsl.log_metric("loss", 1)

    @experiment("foreign")
    def foreign() -> None:
        trackdsl.log_metric("loss", 2)

    sink, _ = opened(served.uri)
    forbidden = sink.experiment("foreign")
    served.permits = lambda content: content.get("experiment_id") != forbidden
    worker = delivers(served.uri)
    foreign()
    mine()
    _target.close_all()
    wait_until(lambda: not worker.round(), "all that is permitted to be delivered")

    assert served.rows("SELECT value FROM metrics") == [(1.0,)]
    assert len(served.rows("SELECT run_uuid FROM runs")) == 2

    served.permits = lambda _: True
    finish_delivery(worker)
    assert sorted(served.rows("SELECT value FROM metrics")) == [(1.0,), (2.0,)]
    sink.close()


@pytest.mark.parametrize(
    ("status", "content", "kind"),
    [
        (403, "Permission denied", Denied),
        (400, '{"error_code": "INVALID_PARAMETER_VALUE", "message": "no"}', Refused),
        (413, '{"error_code": "INVALID_PARAMETER_VALUE", "message": "no"}', Refused),
        (400, "<html>", Unavailable),
        (401, "who are you?", Unavailable),
        (404, "<html>", Unavailable),
        (429, "slowly", Unavailable),
        (500, "<html>", Unavailable),
        (503, '{"error_code": "TEMPORARILY_UNAVAILABLE", "message": "busy"}', Unavailable),
    ],
)
def test_answers_mean_what_they_mean_to_the_client(
    served: Served, status: int, content: str, kind: type[Exception]
) -> None:
    """Each answer to a change set is the error that delivery knows how to treat; no other one is final."""
    served.answer = lambda: flask.Response(content, status=status)
    changes = ServerTables(Rest(served.uri))

    with pytest.raises((Refused, Unavailable)) as raised:
        changes.carry_out({RUN: new()})

    assert type(raised.value) is kind
    assert changes.outdated() == (status == 404)  # Then the store is opened again, and MLflow's client is used.


@pytest.mark.slow
@pytest.mark.parametrize("content", ["<html>please log in</html>", "", "{}", "[]", '{"runs": 2}', '{"runs": "1"}'])
def test_a_change_set_that_nobody_has_written_is_kept(served: Served, content: str) -> None:
    """An answer of 200 that does not say that the run was written, as a proxy's login page, is an error that passes."""
    served.answer = lambda: flask.Response(content, status=200)
    changes = ServerTables(Rest(served.uri))

    with pytest.raises(Unavailable):
        changes.carry_out({RUN: new()})


@pytest.mark.slow
def test_parts_are_sent_in_order_while_the_next_one_is_collected(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next part is collected before a part is answered; if a part fails, its whole stretch is sent again."""
    monkeypatch.setattr(_collector, "_PART", 30)
    collected: list[int] = []
    answers = iter([lambda: None, busy, lambda: None, lambda: None, refused])

    def answer() -> flask.Response | None:
        if len(collected) == 0:
            wait_until(lambda: sink._collector._size or sink._collector._changes, "the next part to be collected")
        collected.append(1)
        return next(answers, lambda: None)()

    served.answer = answer
    sink = open_store(served.uri, str(Path.cwd()), own=True)
    assert isinstance(sink, DatabaseSink)
    with experiment("parts"):
        for number in range(20):
            with stage("step", number=number) as run:
                run.log_metric("m", number)
    _target.close_all()
    spool = in_force.spool()
    assert spool is not None
    deliver_to(spool, lambda _uri, _cwd: sink)

    assert len(collected) > 10
    assert served.rows("SELECT count(*), count(DISTINCT name), max(status), min(status) FROM runs") == [
        (21, 2, "FINISHED", "FINISHED")
    ]
    assert served.rows("SELECT count(*), sum(value) FROM metrics") == [(20, 190.0)]
    assert served.rows("SELECT count(*) FROM tags WHERE key LIKE 'trackdsl.refused%'") == [(0,)]


def test_a_text_that_has_no_encoding_is_refused() -> None:
    """Half a surrogate pair is refused for good before anything is sent."""
    rest = Rest("http://127.0.0.1:9")
    for attempt in (
        lambda: _run_requests.write(rest, RUN, Batch(tags={"a": "\ud800"})),
        lambda: _run_requests.create_run(rest, "0", "a run", 1, {"a": "\ud800"}),
    ):
        with pytest.raises(Refused):
            attempt()


def test_a_stretch_is_not_delivered_before_its_last_part(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nothing is left to send, the end of a stretch still waits for the answer, and reports what was refused."""
    monkeypatch.setattr(_collector, "_PART", 1)
    sink, _ = opened(served.uri)
    served.answer = refused
    with pytest.raises(RefusedTogether), sink.collecting():
        sink.create_run("0", "a run", 1, {"trackdsl.id": RUN})
    served.answer = lambda: None
    with sink.collecting():
        sink.create_run("0", "a run", 1, {"trackdsl.id": RUN})
    assert served.rows("SELECT count(*) FROM runs") == [(1,)]
    sink.close()


def busy() -> flask.Response:
    return flask.Response("busy", status=503)


def refused() -> flask.Response:
    return flask.Response('{"error_code": "INVALID_PARAMETER_VALUE", "message": "no"}', status=400)


def test_nothing_is_read_before_what_was_begun_is_written(served: Served) -> None:
    """A read waits for the part before it; if that fails, no answer counts until delivery has started again."""
    tables = ServerTables(Rest(served.uri))
    asked = threading.Event()

    def slow() -> None:
        wait_until(lambda: tables._sending, "the part to be begun")
        asked.wait(5)

    served.answer = slow
    tables.begin({RUN: new(batches=[Batch({"p": "1"})])})
    assert not served.rows("SELECT 1 FROM runs")
    asked.set()
    assert tables.params(RUN) == {"p": "1"}

    served.answer = refused
    tables.begin({OTHER: new()})
    for attempt in (tables.settle, lambda: tables.params(RUN), lambda: tables.carry_out({OTHER: new()})):
        with pytest.raises(RefusedTogether):
            attempt()
    served.answer = lambda: None
    tables.forget()
    tables.carry_out({OTHER: new()})
    assert tables.find_by_id(OTHER) == "0"
    tables.close()


class Lying(Rest):
    """A server that gives the same content as every answer."""

    def __init__(self, content: str) -> None:
        super().__init__("http://x")
        self._content = content.encode()

    def request(self, *_: Any, **__: Any) -> Any:
        import requests

        answer = requests.Response()
        answer.status_code, answer._content = 200, self._content
        return answer


@pytest.mark.parametrize("content", ["[]", "{}", '{"run": {"info": 1}}', "<html>", '{"run": {"info": {"run_id": 1}}}'])
def test_a_server_that_lies_is_not_believed(content: str) -> None:
    """An answer that is not MLflow's is a temporary error, and raises none of Python's."""
    for ask in (
        lambda rest: ServerTables(rest).state(RUN),
        lambda rest: _run_requests.create_run(rest, "0", "n", 1, {}),
        lambda rest: _run_requests.end_run(rest, RUN, "FINISHED", 2),
    ):
        with pytest.raises(Unavailable):
            ask(Lying(content))


def test_an_answer_about_another_run_is_not_believed() -> None:
    """A cached answer does not prove that this run was created or ended."""
    info = {"run_id": OTHER, "experiment_id": "0", "status": "FINISHED", "lifecycle_stage": "active"}
    tags = [{"key": "trackdsl.id", "value": OTHER}]
    rest = Lying(msgspec.json.encode({"run": {"info": info, "data": {"tags": tags}}, "run_info": info}).decode())

    with pytest.raises(Unavailable, match="another one"):
        _run_requests.create_run(rest, "0", "n", 1, {"trackdsl.id": RUN})
    with pytest.raises(Unavailable, match="instead of"):
        _run_requests.end_run(rest, RUN, "FINISHED", 2)
    assert _run_requests.create_run(rest, "0", "n", 1, {"trackdsl.id": OTHER}).run_id == OTHER


@pytest.mark.parametrize("client", [False, True])
@pytest.mark.parametrize("content", [b"{}", b'{"experiment": {}}', b"<html>Sign in</html>"])
def test_a_page_of_another_program_is_no_deleted_experiment(content: bytes, client: bool, tmp_path: Path) -> None:
    """If another program answers at the address, delivery waits and says so, and blocks no run."""
    gateway = Gateway(answer=lambda *_: (200, content, {"Content-Type": "application/json"}))
    with contextlib.closing(gateway):
        sink: Sink = MlflowSink(gateway.uri, str(tmp_path), own=True) if client else opened(gateway.uri)[0]
        with contextlib.closing(sink), pytest.raises(Unavailable, match="Is this the address of an MLflow") as raised:
            sink.experiment("churn")
        assert type(raised.value) is Unavailable


# What the server accepts.


def test_a_change_set_is_written(served: Served) -> None:
    """What is sent is in the tables: a new run with all that it has."""
    event = Input(b"", "data", "abc", "local", "{}", "", "", "train")
    batch = Batch({"lr": "0.1"}, {"who": "me"}, [("loss", math.nan, 5, 1), ("up", math.inf, 6, -1)])

    answer = served.send(packed({RUN: new(batches=[batch], inputs=[event], end=("FINISHED", 9))}))

    assert answer.status_code == 200
    assert served.rows("SELECT run_uuid, status, start_time, end_time, user_id FROM runs") == [
        (RUN, "FINISHED", 1, 9, "me")
    ]
    assert served.rows('SELECT "key", value, is_nan FROM metrics ORDER BY step') == [
        ("up", 1.7976931348623157e308, 0),
        ("loss", 0.0, 1),
    ]
    assert served.rows("SELECT name FROM datasets") == [("data",)]


@pytest.mark.parametrize("value", ["", "1", "é", "a longer text"])
def test_what_is_sent_again_is_there_once(served: Served, value: str) -> None:
    """A change set that is written a second time changes nothing, and is not an error."""
    sent = packed({RUN: new(batches=[Batch({"k": value}, {"t": value}, [("m", 1.0, 1, 1)])], end=("FAILED", 2))})

    assert [served.send(sent).status_code for _ in range(3)] == [200, 200, 200]
    assert served.rows("SELECT value FROM params") == [(value,)]
    assert served.rows("SELECT value FROM metrics") == [(1.0,)]
    assert served.rows("SELECT status FROM runs") == [("FAILED",)]


# Who may write.


# What the server itself needs.


# What is sent.

texts = st.text(st.characters(codec="utf-8"), max_size=20)
keys = st.text("abc/ _.", min_size=1, max_size=3).filter(_wire.is_key)
integers = st.integers(-(1 << 63), (1 << 63) - 1)
batches = st.builds(
    Batch,
    st.dictionaries(keys, texts, max_size=3),
    st.dictionaries(keys, texts, max_size=3),
    st.lists(st.tuples(keys, st.floats(allow_nan=False), integers, integers), max_size=3),
)
changes = st.builds(
    RunChange,
    st.none() | st.builds(NewRun, st.integers(0, 9), texts, integers, texts),
    st.lists(batches, max_size=40),
    st.lists(st.builds(Input, st.just(b""), keys, keys, keys, keys, texts, texts, st.none() | texts), max_size=3),
    st.none() | st.tuples(st.sampled_from(["FINISHED", "FAILED", "KILLED"]), integers),
)


def effect(parts: list[ChangeSet]) -> dict[str, Any]:
    """What a store has of each run after all parts: first values of parameters, and contradicting ones."""
    found: dict[str, Any] = {}
    for part in parts:
        for run_id, change in part.items():
            run = found.setdefault(
                run_id, {"new": change.new, "params": [], "tags": {}, "points": [], "inputs": [], "end": None}
            )
            for batch in change.batches:
                run["params"] += [item for item in batch.params.items() if item not in run["params"]]
                run["tags"].update(batch.tags)
                run["points"] += batch.metrics
            run["inputs"] += change.inputs
            run["end"] = change.end or run["end"]
    return found


@given(st.dictionaries(st.sampled_from([RUN, OTHER, "a" * 32]), changes, max_size=3))
@settings(max_examples=examples(60))
def test_what_is_sent_arrives(sent: ChangeSet) -> None:
    """A change set that was encoded, perhaps in parts, has the same effect when it is decoded."""
    expected = effect([sent])

    parts = [_wire.decoded(part) for _, part in _wire.encoded(sent)]

    assert effect(parts) == expected


def test_a_large_change_set_is_sent_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """No part is larger than a server accepts; one write that is too large alone is refused here."""
    monkeypatch.setattr(_wire, "MOST_BYTES", 20_000)
    many = {f"{number:032x}": new(batches=[Batch({"a": "v" * 3000})] * 4) for number in range(20)}
    many["e" * 32] = new(batches=[Batch({f"k{number}": "v" * 5000}) for number in range(1)], end=("FINISHED", 1))
    contradicting = [Batch({"k": f"{number}{'v' * 5000}"}) for number in range(6)]  # They cannot be merged.
    many["d" * 32] = new(batches=contradicting, end=("FAILED", 2))

    parts = [_wire.decoded(part) for _, part in _wire.encoded(many)]

    assert len(parts) > 3
    assert effect(parts) == effect([many])
    with pytest.raises(_wire.TooLarge):
        list(_wire.encoded({RUN: new(batches=[Batch({f"k{n}": "v" * 6000 for n in range(9)})])}))


# A real server.


@pytest.fixture
def plugged(empty_store: Path, tmp_path: Path) -> Iterator[Server]:
    """A server with the plugin; it is not started yet."""
    folder = tmp_path / "server"
    folder.mkdir()
    server = Server(folder, empty_store, options=("--app-name", "trackdsl"))
    yield server
    server.kill()


@pytest.mark.slow
def test_four_workers_take_change_sets_side_by_side(plugged: Server) -> None:
    """Several clients write through several processes of one server at once: all is there, once."""
    plugged.options = (*plugged.options, "--workers", "4")
    plugged.start()
    failures: list[Exception] = []

    def write(client_number: int) -> None:
        tables = ServerTables(Rest(plugged.uri))
        try:
            for number in range(10):
                batch = Batch({"lr": "1"}, {}, [("loss", float(step), step, step) for step in range(50)])
                run_ids = [f"{client_number:08x}{number:08x}{run:016x}" for run in range(5)]
                changes = {run_id: new(batches=[batch], end=("FINISHED", 9)) for run_id in run_ids}
                tables.carry_out(changes)
                tables.carry_out(changes)
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert not failures
    with closing(sqlite3.connect(plugged.folder / "srv.db")) as connection:
        counts = [
            connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0]  # noqa: S608
            for table in ("runs", "params", "metrics", "latest_metrics")
        ]
    assert counts == [300, 300, 15_000, 300]


@pytest.mark.slow
def test_a_server_that_is_killed_gets_the_rest_when_it_is_back(plugged: Server) -> None:
    """What a killed server has not taken waits, and is there once when it has been started again."""
    plugged.start()
    worker = delivers(plugged.uri)

    @experiment("killed")
    def root(number: int) -> None:
        trackdsl.log_metric("loss", number)
        trackdsl.log_text("a file", "a.txt")

    root(0)
    wait_until(lambda: worker.round() or True, "a round")
    plugged.kill()
    for number in range(1, 20):
        root(number)
    _target.close_all()
    with contextlib.suppress(Unavailable):
        worker.round()
    plugged.start()
    finish_delivery(worker)

    runs = all_runs(plugged.uri)
    assert sorted(run.data.metrics["loss"] for run in runs) == list(range(20))
    assert all(run.info.run_id == run.data.tags["trackdsl.id"] and run.info.status == "FINISHED" for run in runs)


@pytest.mark.slow
def test_the_command_starts_mlflows_server_with_the_plugin(empty_store: Path, tmp_path: Path) -> None:
    """`trackdsl server` passes its options on, and its server takes change sets; `--json` says where it listens."""
    shutil.copy(empty_store, tmp_path / "runs.db")
    port = free_port()
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW", "TRACKDSL"))}
    with open(tmp_path / "server.log", "wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "trackdsl.cli", "server", "--json", "--port", str(port), "--workers", "1",
             "--backend-store-uri", f"sqlite:///{tmp_path}/runs.db"],
            stdout=log, stderr=log, cwd=tmp_path, start_new_session=True,
            env={**environment, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
        )  # fmt: skip
    rest = Rest(f"http://127.0.0.1:{port}")

    def about() -> Any:
        with contextlib.suppress(Unavailable):
            return ask_server(rest)
        return None

    try:
        wait_until(lambda: about() is not None, "the server to answer")
        assert about() == _wire.About(1, True)
        said = (tmp_path / "server.log").read_text().splitlines()[0]
        assert json.loads(said) == {"url": f"http://127.0.0.1:{port}", "pid": process.pid, "app": "trackdsl"}
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()

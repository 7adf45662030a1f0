"""The trees of root runs as traces of MLflow, which delivery makes after everything else is delivered."""

from __future__ import annotations

import contextlib
import json
import os
import re
import sqlite3
import subprocess
import sys
import time
import warnings
from functools import partial
from pathlib import Path
from typing import Any

import mlflow
import pytest

from tests.conftest import Server, client, run_command, sync, wait_until
from tests.failing_sink import Faults, deliver_with_faults, worker_of
from tests.integration.test_reports import _CallsByName
from tests.memory_store import Crash
from trackdsl import OptionError, configure, experiment, log_metric, stage
from trackdsl.delivery.mlflow_client._sink import MlflowSink
from trackdsl.delivery.mlflow_client._traces import _uncounted
from trackdsl.delivery.process._stores import open_store
from trackdsl.delivery.process._worker import Worker
from trackdsl.delivery.store._errors import Unavailable
from trackdsl.delivery.store._sink import Sink, TreeRun
from trackdsl.delivery.summaries._trace_spans import trace_of
from trackdsl.delivery.summaries._traces import make_trace
from trackdsl.journal import _target
from trackdsl.store_format.root_runs import left, left_in


@pytest.fixture(autouse=True)
def in_a_database(monkeypatch: pytest.MonkeyPatch, sqlite_store: str) -> None:
    """Runs go to a database."""
    monkeypatch.setenv("TRACKDSL_TRACKING_URI", sqlite_store)


@stage
def train(lr: float) -> None:
    log_metric("loss", 0.5)
    with contextlib.suppress(ValueError), stage("fit"):
        raise ValueError("no data")


def record(name: str = "pipeline", **options: Any) -> str:
    """Record a root run with two stages, one in the other; returns its id."""
    with experiment("churn", run_name=name, **options) as run:
        run.log_param("seed", 1)
        run.log_metric("accuracy", 0.9)
        train(0.1)
    _target.close_all()
    return run.id


def traces(uri: str) -> list[Any]:
    """The traces of the experiment, with their spans."""
    found = client(uri)
    experiment_id = found.get_experiment_by_name("churn").experiment_id
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # Later versions of MLflow call them `locations`.
        return list(found.search_traces(experiment_ids=[experiment_id]))


@pytest.mark.usefixtures("no_pauses")
def test_a_tree_is_a_trace(sqlite_store: str, tmp_path: Path) -> None:
    """A span for each run: parameters are inputs, metrics outputs, an exception is an event; both name each other."""
    run_id = record(traces=True)
    deliver_with_faults(tmp_path / "spool", sqlite_store, Faults())
    (trace,) = traces(sqlite_store)
    assert client(sqlite_store).get_run(run_id).data.tags["trackdsl.trace"] == trace.info.trace_id
    assert trace.info.trace_metadata["mlflow.sourceRun"] == run_id
    assert (str(trace.info.state).rpartition(".")[2], trace.info.tags["mlflow.traceName"]) == ("OK", "pipeline")
    root, stage_, fit = trace.data.spans
    assert [span.name for span in trace.data.spans] == ["pipeline", "train", "fit"]
    assert [root.parent_id, stage_.parent_id, fit.parent_id] == [None, root.span_id, stage_.span_id]
    assert (root.inputs, root.outputs) == ({"seed": "1"}, {"accuracy": 0.9})
    assert (stage_.inputs, stage_.outputs) == ({"lr": "0.1"}, {"loss": 0.5})
    assert root.attributes["trackdsl.run_id"] == run_id
    assert [str(span.status.status_code).rpartition(".")[2] for span in (stage_, fit)] == ["OK", "ERROR"]
    (event,) = fit.events
    assert (event.name, event.attributes["exception.message"]) == ("exception", "no data")
    assert 0 <= root.start_time_ns <= stage_.start_time_ns <= fit.end_time_ns <= root.end_time_ns


@pytest.mark.usefixtures("no_pauses")
def test_what_is_left_out(sqlite_store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The run, the trace and its first span say what is cut of a large tree, the trace also of MLflow's spans."""
    monkeypatch.setattr("trackdsl.delivery.summaries._traces.MOST_SPANS", 2)
    monkeypatch.setattr("trackdsl.delivery.mlflow_client._traces._MOST_COPIED", 1)
    mlflow.set_tracking_uri(sqlite_store)
    # So that they are as before after the test: `set_experiment` changes both.
    monkeypatch.setattr(mlflow.tracking.fluent, "_active_experiment_id", None)
    monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", "0")
    mlflow.set_experiment("churn")
    with experiment("churn", traces=True) as run:
        train(0.1)
        for name in ("first", "second"):
            with mlflow.start_span(name):
                mlflow.update_current_trace(metadata={"mlflow.sourceRun": run.id})
    mlflow.flush_trace_async_logging()
    _target.close_all()
    deliver_with_faults(tmp_path / "spool", sqlite_store, Faults())
    (trace,) = [one for one in traces(sqlite_store) if "trackdsl.id" in one.info.tags]
    said = "all but the first 2 runs"
    assert client(sqlite_store).get_run(run.id).data.tags["trackdsl.omitted.trace"] == said
    assert trace.info.tags["trackdsl.left_out"] == f"{said}; all but the first 1 spans of MLflow's own traces"
    assert trace.data.spans[0].attributes["trackdsl.left_out"] == said
    assert len(trace.data.spans) == 3


@pytest.mark.usefixtures("no_pauses")
def test_who_decides(sqlite_store: str, tmp_path: Path) -> None:
    """Traces are off by default; a decorator's option counts before the setting, and only that of the root run."""
    with experiment("churn"), stage("inner", traces=True):
        pass
    record("off")
    configure(traces=True)
    record("by the setting")
    record("off again", traces=False)
    deliver_with_faults(tmp_path / "spool", sqlite_store, Faults())
    assert [trace.info.tags["mlflow.traceName"] for trace in traces(sqlite_store)] == ["by the setting"]
    with pytest.raises(OptionError, match="traces"):
        experiment("churn", traces="yes")  # type: ignore[call-overload]


@pytest.mark.usefixtures("no_pauses")
@pytest.mark.parametrize("fault", [Unavailable, Crash])
@pytest.mark.parametrize("done", [False, True], ids=["before", "after"])
def test_a_fault_while_a_trace_is_made(
    fault: type[BaseException], done: bool, sqlite_store: str, tmp_path: Path
) -> None:
    """Whether the store fails or delivery is killed, there is one trace in the end, and nothing is left."""
    record(traces=True)
    faults = Faults()
    names = _CallsByName("write_trace", fault, done)
    faults.at = names  # type: ignore[assignment]
    names.faults = faults
    deliver_with_faults(tmp_path / "spool", sqlite_store, faults)
    assert names.raised
    (trace,) = traces(sqlite_store)
    assert len(trace.data.spans) == 3
    assert not left_in(tmp_path / "spool")


@pytest.mark.usefixtures("no_pauses")
def test_a_kill_between_two_requests(sqlite_store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A trace that is made again, from any request on, is the same one, with each span once."""
    run_id = record()
    deliver_with_faults(tmp_path / "spool", sqlite_store, Faults())
    monkeypatch.setattr("trackdsl.delivery.mlflow_client._traces._PART", 2)
    sink: Any = MlflowSink(sqlite_store, str(tmp_path), own=True)
    for attempt in range(1, 8):
        calls = iter(range(attempt))

        def waits(calls: Any = calls) -> bool:
            if next(calls, None) is None:
                raise Crash
            return False

        with contextlib.suppress(Crash):
            assert make_trace(sink, run_id, waits, still_runs=False)
            break
    assert attempt > 3, "there are several requests"
    (trace,) = traces(sqlite_store)
    assert len(trace.data.spans) == 3
    assert make_trace(sink, run_id, lambda: False, still_runs=False)
    assert len(traces(sqlite_store)) == 1


@pytest.mark.usefixtures("no_pauses")
def test_sync_makes_the_trace_of_a_delivery_that_was_killed(
    sqlite_store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Delivery is killed when nothing but the trace is left: `status` says so, and `sync` makes it."""
    spool = tmp_path / "spool"
    monkeypatch.setenv("TRACKDSL_SPOOL", str(spool))
    run_id = record(traces=True)
    faults = Faults()
    names = _CallsByName("write_trace", Crash, False)
    faults.at, names.faults = names, faults  # type: ignore[assignment]
    worker = worker_of(spool, sqlite_store, faults)

    def is_killed() -> bool:
        try:
            worker.round()
        except Crash:
            return True
        return False

    wait_until(is_killed, "delivery to make the trace")
    worker.close()
    assert not list((spool / "journals").iterdir())
    assert "report or trace is not made" in run_command("status").stdout
    assert json.loads(run_command("status", "--json").stdout)["unmade"] == 1
    done = run_command("sync", "--json")
    assert (done.returncode, json.loads(done.stdout)["unmade"]) == (0, 0)
    assert "is written now" in done.stderr
    (trace,) = traces(sqlite_store)
    assert client(sqlite_store).get_run(run_id).data.tags["trackdsl.trace"] == trace.info.trace_id
    assert "Nothing is waiting" in run_command("sync").stdout
    assert "Nothing is waiting" in run_command("status").stdout


@pytest.mark.usefixtures("no_pauses")
def test_a_thread_leaves_the_trace_to_a_process(
    sqlite_store: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A thread of a program notes changes, makes no trace, says so once, and `sync` makes it later."""
    spool = tmp_path / "spool"
    record("first", traces=True)
    record("second", traces=True)
    worker = Worker(spool, lambda uri, cwd: open_store(uri, cwd, own=False))
    wait_until(lambda: not worker.round() and worker.idle(), "everything to be delivered")
    worker.close()
    assert traces(sqlite_store) == []
    assert caplog.text.count("makes no traces") == 1
    assert left(spool) == 2
    again = Worker(spool, lambda uri, cwd: open_store(uri, cwd, own=False))
    assert not again.round()
    assert again.idle()
    again.close()
    deliver_with_faults(spool, sqlite_store, Faults())
    assert sorted(one.info.tags["mlflow.traceName"] for one in traces(sqlite_store)) == ["first", "second"]
    assert not left_in(spool)


_KILLED = """
from trackdsl import experiment, stage

@experiment("churn", traces=True)
def pipeline():
    for number in range(300):
        with stage("step"):
            pass

pipeline()
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    "moment", ["one span", 0.2, *(pytest.param(moment, marks=pytest.mark.exhaustive) for moment in ("the trace", 0.05))]
)
def test_kill_9(moment: str | float, sqlite_store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Delivery is killed while it makes a trace; after `sync`, there is one, with each span once."""
    monkeypatch.setenv("TRACKDSL_SPOOL", str(tmp_path / "spool"))
    monkeypatch.setenv("TRACKDSL_MODE", "offline")
    subprocess.run([sys.executable, "-c", _KILLED], check=True, env={**os.environ})
    # In the foreground: a delivery process gives way to everything else on the machine.
    delivery = subprocess.Popen([sys.executable, "-m", "trackdsl.cli", "sync"])
    table = "spans" if moment == "one span" else "trace_info"
    try:
        runs = partial(_count, sqlite_store, "runs")
        wait_until(partial(_count, sqlite_store, table), "the first spans", progress=runs)
        if isinstance(moment, float):
            time.sleep(moment)  # The moment of the kill is what is tested.
    finally:
        delivery.kill()
        delivery.wait()
    assert sync().returncode == 0
    assert [_count(sqlite_store, table) for table in ("trace_info", "spans")] == [1, 301]
    (trace,) = traces(sqlite_store)
    assert len({span.span_id for span in trace.data.spans}) == 301


def _count(uri: str, table: str) -> int:
    """The number of rows of a table of a database that may not exist yet."""
    with contextlib.closing(sqlite3.connect(uri.removeprefix("sqlite:///"), timeout=10)) as database:
        try:
            return int(database.execute(f"SELECT COUNT(*) FROM {table}").fetchone()[0])  # noqa: S608
        except sqlite3.OperationalError:
            return 0


@pytest.mark.usefixtures("no_pauses")
def test_a_store_of_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where MLflow keeps runs as files, the trace is one too, also if it is made again."""
    uri = (tmp_path / "files").as_uri()
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("TRACKDSL_TRACKING_URI", uri)
    record(traces=True)
    deliver_with_faults(tmp_path / "spool", uri, Faults())
    (trace,) = traces(uri)
    sink: Any = MlflowSink(uri, str(tmp_path), own=True)
    assert make_trace(sink, trace.info.trace_metadata["mlflow.sourceRun"], lambda: False, still_runs=False)
    (trace,) = traces(uri)
    assert [span.name for span in trace.data.spans] == ["pipeline", "train", "fit"]


PROGRAM = """
import mlflow
from trackdsl import experiment, last, stage

@mlflow.trace(span_type="TOOL")
def ask(question):
    usage = {"input_tokens": 5, "output_tokens": 2, "total_tokens": 7}
    mlflow.get_current_active_span().set_attributes({
        "mlflow.chat.tokenUsage": usage, "mlflow.llm.cost": {"total_cost": 0.5}, "gen_ai.usage.input_tokens": 5,
        "session.id": "session-1",
    })
    return "yes"

@stage
def answer():
    ask("why?")

@experiment("churn", traces=True)
def pipeline():
    answer()

pipeline()
print(last().id)
"""


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["plain", "plugin"])
def test_at_a_server(kind: str, own_server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """At a tracking server too; what MLflow traces inside a stage is below its span."""
    own_server.options = ("--app-name", "trackdsl") if kind == "plugin" else ()
    own_server.start()
    monkeypatch.setenv("TRACKDSL_TRACKING_URI", own_server.uri)
    monkeypatch.setenv("TRACKDSL_MODE", "online")
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True, env={**os.environ}
    )
    assert sync().returncode == 0

    def made() -> list[Any]:
        return [one for one in traces(own_server.uri) if "trackdsl.id" in one.info.tags]

    (ours,) = wait_until(made, "the trace of the pipeline")
    assert ours.info.tags["trackdsl.id"] == done.stdout.strip()
    found = {span.name: span for span in ours.data.spans}
    assert set(found) == {"pipeline", "answer", "ask"}
    assert found["ask"].parent_id == found["answer"].span_id
    assert found["ask"].inputs == {"question": "why?"}
    assert found["ask"].attributes["trackdsl.copied.mlflow.chat.tokenUsage"]["total_tokens"] == 7
    (theirs,) = [one for one in traces(own_server.uri) if "trackdsl.id" not in one.info.tags]
    assert "total_tokens" in str(theirs.info.trace_metadata)
    assert not [name for name in ours.info.trace_metadata if re.search("(?i)token|cost|session", name)]
    assert [span.span_type for span in (*theirs.data.spans, found["ask"])] == ["TOOL", "FUNCTION"]


def run(run_id: str, parent: str | None = None, **fields: Any) -> TreeRun:
    """A run of a tree."""
    tags = {"trackdsl.id": run_id.rjust(32, "a"), **({} if parent is None else {"mlflow.parentRunId": parent})}
    known: dict[str, Any] = {"name": run_id, "status": "FINISHED", "start": 1000, "end": 2000, "experiment_id": "1",
                             "tags": tags, "params": {}, "metrics": {}, "datasets": {}}  # fmt: skip
    return TreeRun(run_id=run_id, **{**known, **fields})


def test_a_copy_is_not_counted() -> None:
    """MLflow adds up no tokens, costs, sessions and tools of a copied span; everything else is as in the original."""
    counted = ("mlflow.chat.tokenUsage", "mlflow.llm.cost", "gen_ai.usage.output_tokens", "llm.token_count.prompt",
               "input_tokens", "session.id", "gen_ai.conversation.id")  # fmt: skip
    kept = {"mlflow.llm.model": '"m"', "mlflow.spanInputs": "{}"}
    copied = _uncounted({**dict.fromkeys(counted, "1"), **kept, "mlflow.spanType": '"TOOL"'})
    assert copied == {f"trackdsl.copied.{name}": "1" for name in counted} | kept | {"mlflow.spanType": '"FUNCTION"'}


def test_spans_of_unusual_runs() -> None:
    """A run that never ended is as long as the root; NaN is text; a run whose parent is cut off is below the root."""
    runs = [
        run("1"),
        run(
            "2",
            "1",
            status="RUNNING",
            end=0,
            metrics={"loss": float("nan"), "most": sys.float_info.max, "system/cpu": 1.0},
        ),
        run("3", "gone", start=1500, end=1400, name=""),
    ]
    found = trace_of(runs, cut=True)
    root, second, third = found.spans
    assert (second.end, second.outputs) == (root.end, {"loss": "nan", "most": "inf"})
    assert (third.parent, third.start, third.end, third.name) == (root.id, third.end, third.start, "3")
    assert root.attributes["trackdsl.left_out"] == "all but the first 3 runs"
    assert found.id == "a" * 31 + "1"
    assert [span.id for span in trace_of(runs, cut=False).spans] == [root.id, second.id, third.id]


def test_a_tree_is_cut_and_a_running_one_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a tree with thousands of stages, the first ones have spans; a run that is open is asked for again."""
    monkeypatch.setattr("trackdsl.delivery.summaries._traces.MOST_SPANS", 5)
    written: list[Any] = []

    class Store:
        """A store with one tree."""

        runs = (run("1"), *(run(f"{at}", "1") for at in range(2, 100)))

        def tree(self, _run_id: str, most: int) -> list[TreeRun]:
            return list(self.runs[:most])

        def write_trace(self, trace: Any, _check_interrupt: Any) -> str:
            written.append(trace)
            return "tr-1"

        def write(self, _run_id: str, batch: Any) -> None:
            written.append(batch.tags)

        def commit(self) -> None: ...

    store: Sink = Store()  # type: ignore[assignment]
    assert make_trace(store, "1", lambda: False, still_runs=False)
    trace, tags = written
    said = "all but the first 5 runs"
    assert (len(trace.spans), tags) == (5, {"trackdsl.trace": "tr-1", "trackdsl.omitted.trace": said})
    assert trace.root.attributes["trackdsl.left_out"] == trace.left_out == said
    Store.runs = (run("1", status="RUNNING", end=0),)
    assert not make_trace(store, "1", lambda: False, still_runs=False)

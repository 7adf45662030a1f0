"""Beside plain MLflow: what `mlflow.*` does inside a scope, in the program's own process."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import functools
import logging
import os
import re
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import trackdsl
from tests.conftest import (
    ChangeTiming,
    StartProgram,
    all_runs,
    client,
    deliver,
    end_delivery,
    free_port,
    points,
    wait_until,
)
from trackdsl import current_run, experiment, log_metric, log_param, stage, steps
from trackdsl.delivery import flush
from trackdsl.errors import TrackingFault
from trackdsl.journal import _target
from trackdsl.mlflow_bridge import install

mlflow = pytest.importorskip("mlflow")


@pytest.fixture
def online(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Delivery at work beside the test: from a thread, which has imported MLflow already."""
    monkeypatch.setenv("TRACKDSL_MODE", "online")
    monkeypatch.setenv("TRACKDSL_DELIVERY", "thread")
    install()
    yield
    while mlflow.active_run() is not None:
        mlflow.end_run()
    mlflow.tracking.fluent._active_experiment_id = None
    _target.close_all()
    end_delivery(tmp_path / "spool")


@pytest.fixture
def here(online: None, sqlite_store: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The default store of the working directory, with delivery at work."""
    mlflow.set_tracking_uri(None)  # Making the store has pointed MLflow at it.
    monkeypatch.setenv("MLFLOW_TRACKING_URI", sqlite_store)  # The default of MLflow 3.1 is another.
    return sqlite_store


@pytest.fixture
def log_lines() -> Iterator[list[str]]:
    """What trackdsl logs; making a database with an old MLflow takes away the handlers of `caplog`."""
    messages: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: messages.append(record.getMessage())  # type: ignore[method-assign]
    logging.getLogger("trackdsl").addHandler(handler)
    yield messages
    logging.getLogger("trackdsl").removeHandler(handler)


class Tree:
    """The runs of a store, by name.

    Args:
        uri: the store.
        around: a run's id: only this run and its parent count, at a server that other tests use too.
    """

    def __init__(self, uri: str | None = None, around: str | None = None) -> None:
        assert flush(60)
        self.uri = uri
        runs = {run.info.run_id: run for run in all_runs(uri)}
        if around is not None:
            runs = {id_: runs[id_] for id_ in (around, runs[around].data.tags["mlflow.parentRunId"])}
        self.runs = {run.info.run_name: run for run in runs.values()}
        self.count = len(all_runs(uri))

    def __getitem__(self, name: str) -> Any:
        return self.runs[name]

    def parents(self) -> dict[str, str | None]:
        """Each run's parent, by name."""
        names = {run.info.run_id: name for name, run in self.runs.items()}
        return {name: names.get(run.data.tags.get("mlflow.parentRunId", "")) for name, run in self.runs.items()}

    def statuses(self) -> set[str]:
        """How the runs ended."""
        return {run.info.status for run in self.runs.values()}

    def tags(self, name: str, prefix: str = "") -> dict[str, str]:
        """The tags of a run that begin in some way."""
        return {key: value for key, value in self[name].data.tags.items() if key.startswith(prefix)}


def own_thread(function: Callable[[], Any]) -> Any:
    """Call something in a thread, in a copy of this context; returns or raises what it does."""
    found: list[Any] = []

    def call() -> None:
        try:
            found.append(function())
        except BaseException as error:
            found.append(error)

    thread = threading.Thread(target=contextvars.copy_context().run, args=[call])
    thread.start()
    thread.join()
    if isinstance(found[0], BaseException):
        raise found[0]
    return found[0]


def artifacts(uri: str | None, run: Any) -> set[str]:
    return {file.path for file in client(uri).list_artifacts(run.info.run_id)}


def test_plain_functions_write_to_the_run_of_the_scope(
    online: None, store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every plain function writes to the run of the innermost scope, which plain MLflow neither makes nor ends."""
    figure = pytest.importorskip("matplotlib.figure").Figure()
    frame = pytest.importorskip("pandas").DataFrame({"a": [1, 2]})
    mlflow.set_tracking_uri(store)
    Path("file.txt").write_text("text")

    @stage
    def inner(c: int) -> str:
        mlflow.log_metric("m", 1.5, step=2)
        mlflow.log_metrics({"x": 1, "y": 2})
        mlflow.log_param("p", "v")
        mlflow.log_params({"q": 1, "r": 2})
        mlflow.set_tag("t", "1")
        mlflow.set_tags({"u": 2})
        mlflow.set_tag("gone", "1")
        mlflow.delete_tag("gone")
        mlflow.log_text("text", "a.txt")
        mlflow.log_dict({"a": 1}, "b.json")
        mlflow.log_artifact("file.txt")
        mlflow.log_figure(figure, "c.png")
        mlflow.log_table({"a": [1]}, "d.json")
        mlflow.log_input(mlflow.data.from_pandas(frame, name="frame"), context="training")
        active = mlflow.active_run()
        assert active.info.run_id == current_run().run_id == mlflow.last_active_run().info.run_id
        assert active.info.status == "RUNNING"
        assert active.info.artifact_uri == mlflow.get_artifact_uri()
        assert active.data.params["c"] == "7"
        return active.info.run_id

    with stage("outer"):
        run_id = inner(7)
        mlflow.set_tag("after", "inner")
    assert mlflow.active_run() is None

    tree = Tree(store, around=run_id)
    run = tree["inner"]
    assert run.info.run_id == run_id
    assert run.data.params == {"c": "7", "p": "v", "q": "1", "r": "2"}
    assert run.data.metrics == {"m": 1.5, "x": 1, "y": 2}
    assert points(run, "m", store) == [(2, 1.5)]
    assert {key: run.data.tags.get(key) for key in ("t", "u", "gone")} == {"t": "1", "u": "2", "gone": None}
    assert artifacts(store, run) == {"a.txt", "b.json", "file.txt", "c.png", "d.json"}
    assert [found.dataset.name for found in run.inputs.dataset_inputs] == ["frame"]
    assert tree["outer"].data.tags["after"] == "inner"
    assert tree["inner"].data.tags["mlflow.parentRunId"] == tree["outer"].info.run_id
    assert {tree["inner"].info.status, tree["outer"].info.status} == {"FINISHED"}


def plain_body(name: str) -> None:
    mlflow.log_param("of", name)
    with mlflow.start_run(run_name=f"{name}-inner", nested=True):
        mlflow.log_metric("inner", 1)
        log_param("ours", name)


def run_threads(*calls: Callable[[], Any]) -> None:
    """Call several functions, each in a thread and a copy of this context, at the same time."""
    threads = [threading.Thread(target=contextvars.copy_context().run, args=[call]) for call in calls]
    for each in threads:
        each.start()
    for each in threads:
        each.join()


async def meet(count: int, waiting: list[asyncio.Future[None]]) -> None:
    """Wait until this many tasks have come here."""
    mine = asyncio.get_running_loop().create_future()
    waiting.append(mine)
    if len(waiting) == count:
        for each in waiting:
            each.set_result(None)
        waiting.clear()
    await mine


@pytest.mark.slow
def test_tasks_and_threads(here: str) -> None:
    """Gathered tasks and threads write to their own runs, with runs of their own inside."""
    waiting: list[asyncio.Future[None]] = []
    barrier = threading.Barrier(3)

    async def task(name: str) -> None:
        with stage(name):
            await meet(3, waiting)
            with mlflow.start_run(run_name=f"{name}-opened"):
                await meet(3, waiting)
                mlflow.set_tag("of", name)
                await meet(3, waiting)
            await meet(3, waiting)
            plain_body(name)

    async def tasks() -> None:
        await asyncio.gather(*(task(f"task{i}") for i in range(3)))

    def thread(name: str) -> None:
        with stage(name):
            barrier.wait()
            with mlflow.start_run(run_name=f"{name}-opened"):
                barrier.wait()
                mlflow.set_tag("of", name)
                barrier.wait()
            own_thread(lambda: plain_body(name))

    with stage("root"):
        asyncio.run(tasks())
        run_threads(*(functools.partial(thread, f"thread{i}") for i in range(3)))
        mlflow.set_tag("of", "root")

    tree = Tree(here)
    names = [f"{kind}{i}" for kind in ("task", "thread") for i in range(3)]
    assert (tree.statuses(), tree.count) == ({"FINISHED"}, len(tree.runs))
    assert tree.parents() == {
        "root": None,
        **dict.fromkeys(names, "root"),
        **{f"{name}-{kind}": name for name in names for kind in ("opened", "inner")},
    }
    for name in names:
        assert tree[name].data.params == {"of": name}
        assert (tree[f"{name}-inner"].data.params, tree[f"{name}-inner"].data.metrics) == ({"ours": name}, {"inner": 1})
        assert tree[f"{name}-opened"].data.tags["of"] == name
    assert tree["root"].data.tags["of"] == "root"


def test_runs_opened_inside_a_scope(here: str) -> None:
    """`start_run` inside a scope is a child of its run, nested or not, and the scope of what is inside it."""

    @stage
    def deepest() -> None:
        mlflow.log_metric("m", 1)

    with experiment("elsewhere"), stage("outer") as outer:
        with mlflow.start_run(run_name="plain", tags={"a": "b"}) as active:
            assert mlflow.active_run() is active
            assert current_run().parent is outer
            log_metric("ours", 2)
            mlflow.log_metric("theirs", 3)
            deepest()
            with mlflow.start_run(run_name="nested", nested=True):
                with pytest.raises(Exception, match="already active"), mlflow.start_run():
                    raise AssertionError("entered")
                with stage("section", nested=False):
                    mlflow.log_param("p", 1)
            for _ in steps(range(2)):
                log_metric("ours", 4)
        with (
            mlflow.start_run(run_name="around"),
            contextlib.suppress(ZeroDivisionError),
            mlflow.start_run(run_name="raised", nested=True),
        ):
            1 / 0
        mlflow.start_run(run_name="by-hand")
        mlflow.end_run("KILLED")
        log_metric("ours", 5)

    tree = Tree(here)
    assert tree.parents() == {
        "elsewhere": None, "outer": "elsewhere", "plain": "outer", "deepest": "plain", "nested": "plain",
        "around": "outer", "raised": "around", "by-hand": "outer",
    }  # fmt: skip
    assert {name: run.info.status for name, run in tree.runs.items() if run.info.status != "FINISHED"} == {
        "raised": "FAILED", "by-hand": "KILLED",
    }  # fmt: skip
    assert len({run.info.experiment_id for run in tree.runs.values()}) == 1
    assert tree["plain"].data.metrics == {"ours": 4, "theirs": 3}
    assert points(tree["plain"], "ours") == [(0, 2), (0, 4), (1, 4)]
    assert tree["plain"].data.tags["a"] == "b"
    assert tree["nested"].data.params == {"p": "1"}
    assert "section/seconds" in tree["nested"].data.metrics
    assert tree["outer"].data.metrics == {"ours": 5}
    assert tree["deepest"].data.tags["trackdsl.path"] == "elsewhere/outer/plain/deepest"


def test_a_parent_and_an_experiment_by_name(here: str) -> None:
    """What `start_run` gets as parents and experiments counts; so does `set_experiment` inside the scope."""
    other = mlflow.create_experiment("other")
    with stage("first") as first:
        first_id = first.run_id
    with stage("second"):
        with mlflow.start_run(run_name="of-first", parent_run_id=first_id):
            pass
        with mlflow.start_run(run_name="of-second", parent_run_id=mlflow.active_run().info.run_id):
            pass
        with mlflow.start_run(run_name="in-other", experiment_id=other):
            pass
        mlflow.set_experiment("chosen")
        with mlflow.start_run(run_name="in-chosen"):
            pass
    tree = Tree(here)
    assert tree.parents() == {
        "first": None, "second": None, "of-first": "first", "of-second": "second", "in-other": "second",
        "in-chosen": "second",
    }  # fmt: skip
    names = {
        name: mlflow.get_experiment(run.info.experiment_id).name
        for name, run in tree.runs.items()
        if run.info.experiment_id != "0"
    }
    assert names == {"in-other": "other", "in-chosen": "chosen"}


def test_nothing_plain_ends_the_run_of_a_scope(here: str) -> None:
    """`end_run`, also in a loop until no run is active, and a run taken up again by its id, leave the scope's open."""
    with stage("s") as run:
        mlflow.end_run()
        mlflow.log_metric("m", 1)
        assert mlflow.active_run().info.run_id == run.run_id
        while mlflow.active_run() is not None:
            mlflow.end_run()
        mlflow.end_run()
        mlflow.end_run()
        mlflow.log_metric("n", 1)
        with mlflow.active_run():
            pass
        with mlflow.start_run(run_id=run.run_id):
            mlflow.log_metric("o", 1)
            log_metric("p", 1)
            with stage("child"):
                mlflow.end_run()
        assert client().get_run(run.run_id).info.status == "RUNNING"
        log_metric("q", 1)
    assert flush(60)
    with mlflow.start_run(run_id=run.run_id):
        assert client().get_run(run.run_id).info.status == "RUNNING"
    tree = Tree(here)
    assert tree.parents() == {"s": None, "child": "s"}
    assert tree["s"].data.metrics == dict.fromkeys("mnopq", 1)
    assert tree.statuses() == {"FINISHED"}


def test_another_run_taken_up_again(here: str) -> None:
    """`start_run` with the id of another run makes that one current, in MLflow and for trackdsl, and ends it."""
    other = client().create_run("0", run_name="other").info.run_id
    with stage("s"):
        with mlflow.start_run(run_id=other):
            mlflow.log_metric("theirs", 1)
            log_metric("ours", 1)
            with stage("child"):
                pass
        mlflow.log_metric("theirs", 2)
    tree = Tree(here)
    assert tree.parents() == {"s": None, "other": None, "child": "other"}
    assert tree["other"].data.metrics == {"ours": 1, "theirs": 1}
    assert tree["s"].data.metrics == {"theirs": 2}
    assert tree.statuses() == {"FINISHED"}


def test_ends_out_of_order(here: str) -> None:
    """A run that is left before one that was opened inside it ends itself and nothing else, wherever it is left."""
    outside = mlflow.start_run(run_name="outside")
    with stage("s"):
        first = mlflow.start_run(run_name="first")
        second = mlflow.start_run(run_name="second", nested=True)
        with stage("inside-second"):
            first.__exit__(None, None, None)
            assert client().get_run(second.info.run_id).info.status == "RUNNING"
            outside.__exit__(None, None, None)
            mlflow.end_run()  # There is none of this scope's own.
            log_metric("m", 1)
        log_metric("n", 1)
        assert mlflow.active_run() is second
        own_thread(lambda: second.__exit__(ValueError, ValueError(), None))
        assert client().get_run(second.info.run_id).info.status == "FAILED"
        third = mlflow.start_run(run_name="third")
        fourth = mlflow.start_run(run_name="fourth", nested=True)
        third.__exit__(ValueError, ValueError(), None)
        assert mlflow.active_run() is fourth
        fourth.__exit__(None, None, None)
        again = mlflow.start_run(run_name="again")
        mlflow.end_run()
        with mlflow.start_run(run_id=again.info.run_id):
            again.__exit__(ValueError, ValueError(), None)
            mlflow.log_metric("of-s", 1)
    tree = Tree(here)
    assert tree.parents() == {
        "outside": None, "s": "outside", "first": "s", "second": "first", "inside-second": "second", "third": "s",
        "fourth": "third", "again": "s",
    }  # fmt: skip
    assert {name: run.info.status for name, run in tree.runs.items() if run.info.status != "FINISHED"} == {
        "second": "FAILED", "third": "FAILED", "again": "FAILED",
    }  # fmt: skip
    assert (tree["inside-second"].data.metrics, tree["second"].data.metrics) == ({"m": 1}, {"n": 1})
    assert tree["s"].data.metrics == {"of-s": 1}


def test_the_last_active_run(here: str) -> None:
    """After a scope that plain MLflow has logged to, its run was the last active one; runs opened later come after."""

    @stage
    def fit() -> None:
        mlflow.log_metric("m", 1)
        with mlflow.start_run(run_name="inside"):
            pass
        assert mlflow.last_active_run().info.run_name == "fit"

    def last() -> str:
        found = mlflow.last_active_run()
        assert isinstance(found, mlflow.entities.Run)
        return str(found.info.run_name)

    with mlflow.start_run(run_name="before"):
        pass
    fit()
    assert last() == "fit"
    with stage("untouched"):
        pass
    assert last() == "fit"
    with mlflow.start_run(run_name="after"):
        pass
    assert last() == "after"


def test_a_run_that_outlives_its_scope(here: str) -> None:
    """A run that a decorated function opens and leaves open is active for its caller, as without the decorator."""

    @stage
    def begin(name: str) -> None:
        mlflow.start_run(run_name=name)

    begin("kept")
    mlflow.log_metric("m", 1)
    with stage("child"):
        pass
    mlflow.end_run()
    assert mlflow.active_run() is None
    with stage("s"):
        begin("inside")
        log_metric("m", 2)
        mlflow.end_run()
        mlflow.log_metric("n", 3)
    tree = Tree(here)
    begins = [run for run in all_runs(here) if run.info.run_name == "begin"]
    assert len(begins) == 2
    assert (tree["kept"].data.metrics, tree["inside"].data.metrics) == ({"m": 1}, {"m": 2})
    assert tree["s"].data.metrics == {"n": 3}
    assert tree.parents()["child"] == "kept"
    assert tree.statuses() == {"FINISHED"}


def test_inside_the_users_own_run(here: str) -> None:
    """A scope in a plain run is its child, also from tasks; what is logged before and after goes to that run."""

    async def gathered() -> None:
        async def one(name: str) -> None:
            with stage(name):
                await asyncio.sleep(0)
                mlflow.log_param("of", name)

        await asyncio.gather(one("a"), one("b"))

    with mlflow.start_run(run_name="mine"):
        mlflow.log_metric("before", 1)
        asyncio.run(gathered())
        with stage("section", nested=False):
            mlflow.log_metric("inside", 1)
            own_thread(lambda: mlflow.log_metric("thread", 1))
            with mlflow.start_run(run_name="nested", nested=True):
                pass
        mlflow.log_metric("after", 1)
    mlflow.start_run(run_name="ended")
    with stage("section", nested=False):
        mlflow.end_run()
        assert mlflow.active_run() is None
    tree = Tree(here)
    assert tree.parents() == {"mine": None, "a": "mine", "b": "mine", "nested": "mine", "ended": None}
    assert set(tree["mine"].data.metrics) == {"before", "inside", "thread", "after", "section/seconds"}
    assert (tree["a"].data.params, tree["b"].data.params) == ({"of": "a"}, {"of": "b"})
    assert tree.statuses() == {"FINISHED"}


def test_generators(here: str) -> None:
    """A generator's runs are active while its body runs, and never for its caller."""

    @stage
    def body() -> Iterator[int]:
        with mlflow.start_run(run_name="opened"):
            for i in range(3):
                mlflow.log_metric("inside", i, step=i)
                yield i

    with stage("caller"):
        for i in body():
            mlflow.log_metric("outside", i, step=i)
    tree = Tree(here)
    assert tree.parents() == {"caller": None, "body": "caller", "opened": "body"}
    assert points(tree["opened"], "inside") == points(tree["caller"], "outside") == [(0, 0), (1, 1), (2, 2)]
    assert tree.statuses() == {"FINISHED"}


def test_the_first_value_of_a_parameter_is_kept(here: str) -> None:
    """A parameter that two give raises nowhere and loses no other one; a tag has the later value."""

    @stage
    def fit(C: float) -> None:  # noqa: N803 - as estimators call it
        mlflow.log_params({"C": 2.0, "solver": "lbfgs"})
        mlflow.log_param("C", 3.0)
        mlflow.log_params({"C": 1.0})
        mlflow.log_params({"C": 4.0, "late": 1}, synchronous=False).wait()
        assert mlflow.log_param("written", "plain") == "plain"
        flush(60)
        with pytest.raises(Exception, match="Names may only contain"):
            mlflow.log_params({"bad\nname": 1})
        trackdsl.log_params({"written": "ours", "other": 1})

    fit(1.0)
    tree = Tree(here)
    assert tree["fit"].data.params == {"C": "1.0", "solver": "lbfgs", "late": "1", "written": "plain", "other": "1"}
    assert tree.tags("fit", "trackdsl.param.later") == {
        "trackdsl.param.later.C": "4.0", "trackdsl.param.later.written": "ours",
    }  # fmt: skip
    assert not tree.tags("fit", "trackdsl.refused")
    assert tree.statuses() == {"FINISHED"}


def test_where_mlflow_was_pointed(online: None, sqlite_store: str, tmp_path: Path) -> None:
    """After `set_tracking_uri` and `set_experiment` the runs of scopes go there."""
    Path("other").mkdir()
    uri = f"sqlite:///{tmp_path}/work/other/mlflow.db"
    os.rename("mlflow.db", "other/mlflow.db")
    mlflow.set_tracking_uri(uri)
    chosen = mlflow.set_experiment("chosen").experiment_id
    with stage("s"):
        mlflow.log_metric("m", 1)
        with stage("child"):
            pass
    with experiment("named"):
        pass
    tree = Tree(uri)
    assert tree["s"].data.metrics == {"m": 1}
    named = mlflow.get_experiment_by_name("named").experiment_id
    assert {name: run.info.experiment_id for name, run in tree.runs.items()} == {
        "s": chosen, "child": chosen, "named": named,
    }  # fmt: skip


def test_an_experiment_by_its_id(sqlite_store: str, monkeypatch: pytest.MonkeyPatch, log_lines: list[str]) -> None:
    """`MLFLOW_EXPERIMENT_ID` counts where nothing of ours says otherwise; one that does not exist loses no run."""
    here = client().create_experiment("by-id")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "by-name")
    cases = {
        "id": {"MLFLOW_EXPERIMENT_ID": here},
        "missing": {"MLFLOW_EXPERIMENT_ID": "4711"},
        "ours": {"MLFLOW_EXPERIMENT_ID": here, "TRACKDSL_EXPERIMENT_NAME": "ours"},
        "plain": {},
        "other-store": {"MLFLOW_EXPERIMENT_ID": here, "MLFLOW_TRACKING_URI": "http://127.0.0.1:1",
                        "TRACKDSL_TRACKING_URI": sqlite_store},
    }  # fmt: skip
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    for name, environment in cases.items():
        with monkeypatch.context() as patch:
            for variable in ("MLFLOW_EXPERIMENT_ID", "MLFLOW_TRACKING_URI"):
                patch.delenv(variable, raising=False)
            for variable, value in environment.items():
                patch.setenv(variable, value)
            with stage(name), stage(f"{name}-child"):
                pass
    deliver()
    runs = {run.info.run_name: run for run in all_runs(sqlite_store)}
    found = {name: client().get_experiment(runs[name].info.experiment_id).name for name in cases}
    assert found == {"id": "by-id", "missing": "Default", "ours": "ours", "plain": "by-name", "other-store": "by-name"}
    assert {run.info.experiment_id for run in (runs["id"], runs["id-child"])} == {here}
    assert runs["missing"].data.tags["trackdsl.refused.experiment"] == "id 4711"
    assert "4711" in "".join(log_lines)


def test_a_deleted_experiment_is_waited_for(sqlite_store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run whose experiment, given by its id, is deleted is delivered once that is restored."""
    id_ = client().create_experiment("by-id")
    client().delete_experiment(id_)
    monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", id_)
    with stage("s"):
        pass
    from trackdsl.delivery.process._worker import Worker
    from trackdsl.delivery.service import open_sink
    from trackdsl.journal._spool import journals
    from trackdsl.store_format.progress import read_progress

    _target.close_all()
    spool = Path(os.environ["TRACKDSL_SPOOL"])
    worker = Worker(spool, open_sink)
    worker.round()
    (journal,) = journals(spool)
    progress = read_progress(journal)
    assert progress is not None
    assert "is deleted: restore it" in progress.error
    client().restore_experiment(id_)
    (spool / "wake").touch()
    wait_until(lambda: not worker.round() and worker.idle(), "everything to be delivered")
    worker.close()
    (run,) = all_runs(sqlite_store)
    assert (run.info.experiment_id, "trackdsl.refused.experiment" in run.data.tags) == (id_, False)


def test_a_store_that_only_trackdsl_knows(here: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Plain calls inside a scope reach its store, in every task and thread, and outside MLflow's own stays."""
    Path("other").mkdir()
    uri = f"sqlite:///{tmp_path}/work/other/mlflow.db"
    os.rename("mlflow.db", "other/mlflow.db")
    monkeypatch.setenv("TRACKDSL_TRACKING_URI", uri)
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    before = mlflow.get_tracking_uri()
    with stage("s"):
        assert mlflow.get_tracking_uri() == uri
        own_thread(lambda: mlflow.log_metric("m", 1))
        seen: list[str] = []
        contextvars.Context().run(lambda: seen.append(mlflow.get_tracking_uri()))
        assert seen == [before]
        with mlflow.start_run(run_name="plain"):
            mlflow.log_text("text", "a.txt")
    assert mlflow.get_tracking_uri() == before
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")  # The environment counts less than a scope.
    with stage("t"):
        mlflow.log_metric("m", 2)
    assert mlflow.get_tracking_uri() == "http://127.0.0.1:1"
    tree = Tree(uri)
    assert tree.parents() == {"s": None, "plain": "s", "t": None}
    assert tree["t"].data.metrics == {"m": 2}
    assert tree["s"].data.metrics == {"m": 1}
    assert artifacts(uri, tree["plain"]) == {"a.txt"}


def test_a_program_that_points_mlflow_elsewhere(
    here: str, tmp_path: Path, log_lines: list[str], empty_store: Path
) -> None:
    """`set_tracking_uri` to another store inside a scope counts for plain calls; one log line and a tag say so."""
    Path("other").mkdir()
    Path("other/mlflow.db").write_bytes(empty_store.read_bytes())
    uri = f"sqlite:///{tmp_path}/work/other/mlflow.db"
    with stage("s"):
        mlflow.log_metric("m", 1)
        mlflow.set_tracking_uri(uri)
        for _ in range(2):
            with mlflow.start_run(run_name="theirs"):
                mlflow.log_metric("m", 2)
                log_metric("ours", 3)
        mlflow.set_tracking_uri(None)
        mlflow.log_metric("n", 4)
    assert len([line for line in log_lines if "MLflow points at" in line]) == 1
    assert "set_tracking_uri" in "".join(log_lines)
    tree, other = Tree(here), Tree(uri)
    assert tree["s"].data.metrics == {"m": 1, "ours": 3, "n": 4}
    assert "points at" in tree["s"].data.tags["trackdsl.omitted.mlflow"]
    assert (set(tree.runs), set(other.runs), other.count) == ({"s"}, {"theirs"}, 2)
    assert other["theirs"].data.metrics == {"m": 2}


def test_offline(here: str, monkeypatch: pytest.MonkeyPatch, log_lines: list[str]) -> None:
    """Offline, plain calls behave as outside of a scope and do not wait; one log line and a tag report it."""
    monkeypatch.setenv("TRACKDSL_MODE", "offline")
    mlflow.set_tracking_uri(here)
    for name in ("s", "t"):
        with stage(name):
            with mlflow.start_run(run_name=f"{name}-theirs"):
                mlflow.log_metric("m", 1)
            assert mlflow.active_run() is None
    assert len([line for line in log_lines if "plain MLflow" in line]) == 1
    assert "log_metric" in "".join(log_lines)
    assert {run.info.run_name for run in all_runs(here)} == {"s-theirs", "t-theirs"}
    deliver()
    runs = {run.info.run_name: run for run in all_runs(here)}
    assert "trackdsl.omitted.mlflow" in runs["s"].data.tags
    assert "mlflow.parentRunId" not in runs["s-theirs"].data.tags


@pytest.mark.slow
def test_a_store_that_is_away(
    online: None, tmp_path: Path, change_timing: ChangeTiming, monkeypatch: pytest.MonkeyPatch, log_lines: list[str]
) -> None:
    """While delivery fails, a plain call waits once; later calls go where MLflow sends them by itself."""
    waits: list[float | None] = []
    wait = trackdsl.Run.wait_for_mlflow

    def counted(run: Any, timeout: float | None = None) -> Any:
        waits.append(timeout)
        return wait(run, timeout)

    monkeypatch.setattr(trackdsl.Run, "wait_for_mlflow", counted)
    change_timing(failing=0.1)
    monkeypatch.setenv("TRACKDSL_TRACKING_URI", f"http://127.0.0.1:{free_port()}")
    monkeypatch.setenv("TRACKDSL_DELIVERY", "process")  # A thread would try for ever.
    uri = f"sqlite:///{tmp_path}/work/own.db"
    for name in ("s", "t"):
        with stage(name):
            active = mlflow.active_run()
            with monkeypatch.context() as patch:
                patch.setenv("MLFLOW_TRACKING_URI", uri)
                mlflow.log_metric("m", 1)
                assert name == "t" or active.info.run_id == mlflow.active_run().info.run_id
                mlflow.end_run()
                assert mlflow.active_run() is None
    assert waits == [None, 0.0]
    assert len([line for line in log_lines if "plain MLflow" in line]) == 1
    assert "trackdsl status" in "".join(log_lines)
    assert [run.data.metrics for run in all_runs(uri)] == [{"m": 1}, {"m": 1}]


def test_strict(here: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With `TRACKDSL_STRICT`, a plain call that cannot use the run raises."""
    monkeypatch.setenv("TRACKDSL_MODE", "offline")
    trackdsl.errors.set_strict(True)
    with stage("s"), pytest.raises(TrackingFault, match="offline"):
        mlflow.log_metric("m", 1)


def test_a_program_that_only_looks_does_not_wait(here: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """No plain call waits for a run unless it needs MLflow's id of it."""
    from trackdsl.mlflow_bridge import _runs

    asked: list[Any] = []
    monkeypatch.setattr(_runs, "wait_for", asked.append)
    with stage("s"):
        assert mlflow.active_run()
        mlflow.end_run()
        assert mlflow.get_tracking_uri()
        assert mlflow.active_run() is not None
    assert not asked
    with stage("t"):
        mlflow.active_run().info
    assert len(asked) == 1
    while mlflow.active_run() is not None:
        mlflow.end_run()


def test_captured_runs(monkeypatch: pytest.MonkeyPatch, sqlite_store: str, online: None, log_lines: list[str]) -> None:
    """In a test with `capture_runs` plain calls do what they do without a scope, and nothing is logged."""
    from trackdsl.testing import capture_runs

    mlflow.set_tracking_uri(sqlite_store)
    with capture_runs() as captured, stage("s"), mlflow.start_run(run_name="theirs"):
        mlflow.log_metric("m", 1)
    assert captured.one("s").metrics == {}
    assert [run.data.metrics for run in all_runs(sqlite_store)] == [{"m": 1}]
    assert not log_lines


def traced(uri: str) -> dict[str, str]:
    """The name of each trace, and the run that it is attached to."""
    mlflow.flush_trace_async_logging()
    # Of MLflow 3.1 beside a newer OpenTelemetry the spans cannot be read; what a trace is attached to can.
    found = client(uri).search_traces(experiment_ids=["0"], include_spans=False)
    return {
        trace.info.tags["mlflow.traceName"]: trace.info.request_metadata.get("mlflow.sourceRun", "") for trace in found
    }


def test_traces(here: str) -> None:
    """Traces and spans attach to the run of the scope around them, in tasks and threads that run at once."""
    ids: dict[str, str] = {}
    mlflow.set_tracking_uri(here)

    async def one(name: str) -> None:
        with stage(name) as run:
            await asyncio.sleep(0)
            with mlflow.start_span(name):
                await asyncio.sleep(0)
            ids[name] = run.run_id

    async def both() -> None:
        await asyncio.gather(one("task0"), one("task1"))

    def thread(name: str, barrier: threading.Barrier) -> None:
        with stage(name) as run:
            barrier.wait()
            mlflow.trace(lambda: barrier.wait(), name=name)()
            ids[name] = run.run_id

    asyncio.run(both())
    barrier = threading.Barrier(2)
    run_threads(*(functools.partial(thread, f"thread{i}", barrier) for i in range(2)))
    with stage("s"), mlflow.start_run(run_name="plain") as plain:
        with mlflow.start_span("plain"):
            pass
        ids["plain"] = plain.info.run_id
    assert wait_until(lambda: traced(here) == ids and ids, "the traces")
    assert len(set(ids.values())) == 5


def autologged(run: Any, *params: str) -> bool:
    return set(params) <= set(run.data.params)


def data() -> tuple[Any, Any]:
    numpy = pytest.importorskip("numpy")
    x = numpy.arange(40.0).reshape(20, 2)
    return x, (x[:, 0] > 20).astype(int)


@pytest.fixture
def sklearn_autolog() -> Iterator[None]:
    pytest.importorskip("sklearn")
    mlflow.sklearn.autolog(log_models=False, log_datasets=False, silent=True)
    yield
    mlflow.sklearn.autolog(disable=True, silent=True)


@pytest.mark.slow
def test_scikit_learn(here: str, sklearn_autolog: None) -> None:
    """Fits land on the run of their stage: with its parameters, in tasks, and in threads at the same time."""
    from sklearn.linear_model import LogisticRegression

    x, y = data()
    barrier = threading.Barrier(2)

    class Meeting(LogisticRegression):
        """An estimator that fits only while another one does."""

        def fit(self, *args: Any, **kwargs: Any) -> Any:
            barrier.wait()
            found = super().fit(*args, **kwargs)
            barrier.wait()
            return found

    @stage("{name}")
    def fit(name: str, C: float, kind: Any = LogisticRegression) -> None:  # noqa: N803
        kind(C=2 * C).fit(x, y)
        assert mlflow.active_run().info.run_id == current_run().run_id

    async def gathered() -> None:
        await asyncio.gather(*(asyncio.to_thread(fit, f"task{i}", i + 1.0) for i in range(2)))

    mlflow.sklearn.autolog(log_models=False, log_datasets=False, silent=True)
    with stage("root"):
        asyncio.run(gathered())
        run_threads(*(functools.partial(fit, f"thread{i}", i + 1.0, Meeting) for i in range(2)))
    tree = Tree(here)
    fits = ["task0", "task1", "thread0", "thread1"]
    assert tree.parents() == {"root": None, **dict.fromkeys(fits, "root")}
    assert tree.statuses() == {"FINISHED"}
    for name in fits:
        assert autologged(tree[name], "solver", "tol", "max_iter")
        assert "training_accuracy_score" in tree[name].data.metrics
        assert tree[name].data.params["C"] == f"{int(name[-1]) + 1.0}"
        assert tree[name].data.tags["trackdsl.param.later.C"] == f"{2 * (int(name[-1]) + 1.0)}"


@pytest.mark.slow
def test_a_search_over_parameters(here: str, sklearn_autolog: None) -> None:
    """A grid search lands on the run of its stage, with a run of MLflow's for each of the best candidates inside."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV

    x, y = data()
    with stage("search"):
        GridSearchCV(LogisticRegression(), {"C": [0.1, 1.0]}, cv=2).fit(x, y)
    assert flush(60)
    runs = all_runs(here)
    (search,) = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    assert search.info.run_name == "search"
    assert "best_C" in search.data.params
    assert {run.data.tags["mlflow.parentRunId"] for run in runs if run is not search} == {search.info.run_id}
    assert {run.data.params["C"] for run in runs if run is not search} == {"0.1", "1.0"}


@pytest.mark.slow
def test_xgboost(here: str) -> None:
    """XGBoost's autologging lands on the run of the stage."""
    xgboost = pytest.importorskip("xgboost")
    mlflow.xgboost.autolog(log_models=False, log_datasets=False, silent=True)
    try:
        x, y = data()
        with stage("boost"):
            xgboost.train(
                {"max_depth": 2}, xgboost.DMatrix(x, y), num_boost_round=2, evals=[(xgboost.DMatrix(x, y), "e")]
            )
    finally:
        mlflow.xgboost.autolog(disable=True, silent=True)
    tree = Tree(here)
    assert autologged(tree["boost"], "max_depth", "num_boost_round")
    assert len(points(tree["boost"], "e-rmse")) == 2
    assert (tree.count, tree.statuses()) == (1, {"FINISHED"})


@pytest.mark.slow
def test_keras(here: str) -> None:
    """Keras's autologging lands on the run of the stage."""
    os.environ.setdefault("KERAS_BACKEND", "torch")
    keras = pytest.importorskip("keras")
    flavor = pytest.importorskip("mlflow.keras")
    x, y = data()
    flavor.autolog(log_models=False, log_datasets=False, silent=True)
    try:
        with stage("net"):
            model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
            model.compile(loss="mse")
            model.fit(x, y, epochs=2, verbose=0)
    finally:
        flavor.autolog(disable=True, silent=True)
    tree = Tree(here)
    assert autologged(tree["net"], "epochs")
    assert "loss" in tree["net"].data.metrics
    assert (tree.count, tree.statuses()) == (1, {"FINISHED"})


@pytest.mark.slow
def test_lightning(here: str) -> None:
    """PyTorch Lightning's autologging lands on the runs of two stages that train one after the other."""
    lightning = pytest.importorskip("lightning")
    torch = pytest.importorskip("torch")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)

    class Net(lightning.LightningModule):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.layer = torch.nn.Linear(2, 1)

        def training_step(self, batch: Any) -> Any:
            loss = self.layer(batch[0]).square().mean()
            self.log("train_loss", loss)
            return loss

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), lr=0.1)

    mlflow.pytorch.autolog(log_models=False, log_datasets=False, silent=True)
    try:
        for name in ("one", "two"):
            with stage(name):
                trainer = lightning.Trainer(
                    max_epochs=2, logger=False, enable_progress_bar=False, enable_checkpointing=False,
                    enable_model_summary=False, accelerator="cpu",
                )  # fmt: skip
                trainer.fit(Net(), torch.utils.data.DataLoader(torch.utils.data.TensorDataset(torch.ones(4, 2))))
    finally:
        mlflow.pytorch.autolog(disable=True, silent=True)
    tree = Tree(here)
    for name in ("one", "two"):
        assert autologged(tree[name], "epochs", "optimizer_name")
        assert "train_loss" in tree[name].data.metrics
    assert (tree.count, tree.statuses()) == (2, {"FINISHED"})


@pytest.mark.slow
def test_a_model(here: str) -> None:
    """`mlflow.<flavor>.log_model` makes a model of the scope's run, with its parameters."""
    pytest.importorskip("sklearn")
    from sklearn.linear_model import LogisticRegression

    x, y = data()
    with stage("fit", C=1.0):
        info = mlflow.sklearn.log_model(LogisticRegression().fit(x, y), name="model", pip_requirements=[])
    tree = Tree(here)
    (output,) = client().get_run(tree["fit"].info.run_id).outputs.model_outputs
    logged = mlflow.get_logged_model(output.model_id)
    assert (info.model_id, logged.source_run_id, logged.params["C"]) == (
        output.model_id, tree["fit"].info.run_id, "1.0",
    )  # fmt: skip


IMPORTED_INSIDE = """
    import os, subprocess, sys, trackdsl

    OTHER = "import sys, mlflow, trackdsl\\nwith trackdsl.attach(sys.argv[1]): mlflow.log_metric('attached', 1)"

    @trackdsl.stage
    def work(x):
        assert "mlflow" not in sys.modules
        import mlflow
        from mlflow import log_metric, start_run
        log_metric("m", x)
        with start_run(run_name="plain"):
            log_metric("m", 2 * x)
        pid = os.fork()
        if pid == 0:
            log_metric("forked", x)
            os._exit(0)
        assert os.waitpid(pid, 0)[1] == 0
        mlflow.log_param("written", "plain")
        trackdsl.log_params({"written": "ours", "other": 1})
        with start_run(run_name="open"):
            pid = os.fork()
            if pid == 0:
                log_metric("forked", x)
                mlflow.end_run("FAILED")
                log_metric("ended", x)
                sys.exit(7)
            assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
            assert mlflow.MlflowClient().get_run(mlflow.active_run().info.run_id).info.status == "RUNNING"
        subprocess.run([sys.executable, "-c", OTHER, trackdsl.capture().to_text()], check=True)

    work(3)
"""


@pytest.mark.slow
def test_mlflow_imported_inside_a_scope(start: StartProgram, sqlite_store: str) -> None:
    """MLflow may be imported first inside a scope; other processes write to the same runs, and end none of them."""
    program = start(IMPORTED_INSIDE, TRACKDSL_MODE="online")
    code, _, err = program.finish()
    assert code == 0, err
    runs = {run.info.run_name: run for run in all_runs(sqlite_store)}
    assert runs["work"].data.metrics == {"m": 3, "forked": 3, "ended": 3, "attached": 1}
    # Here a process delivers, which hears of what plain MLflow has written only when it is refused the same.
    assert runs["work"].data.params == {"x": "3", "written": "plain", "other": "1"}
    assert runs["work"].data.tags["trackdsl.param.later.written"] == "ours"
    assert "trackdsl.refused.written" not in runs["work"].data.tags
    assert runs["plain"].data.metrics == {"m": 6}
    assert runs["plain"].data.tags["mlflow.parentRunId"] == runs["work"].info.run_id
    assert runs["open"].data.metrics == {"forked": 3}
    assert {run.info.status for run in runs.values()} == {"FINISHED"}


WAITING = """
    import sys, time, trackdsl

    starts = []

    def hear(event, args):
        if event == "subprocess.Popen" and "trackdsl.delivery" in args[1]:
            starts.append(args)

    sys.addaudithook(hear)
    begun = time.monotonic()
    with trackdsl.stage("waits") as run:
        run.wait_for_mlflow(120)
    print(len(starts), time.monotonic() - begun)
"""


@pytest.mark.slow
def test_waiting_starts_no_crowd(start: StartProgram, sqlite_store: str) -> None:
    """Waiting for a run checks at most once a second whether a delivery process has to be started."""
    code, out, err = start(WAITING, TRACKDSL_MODE="online").finish()
    assert code == 0, err
    starts, seconds = out.split()
    assert 1 <= int(starts) <= 2 + float(seconds)
    assert {run.info.status for run in all_runs(sqlite_store)} == {"FINISHED"}


#: Gives every private name that the bridge knows another one, before MLflow is executed.
RENAMED = """
    import sys, importlib.abc, importlib.machinery

    NAMES = {
        "mlflow.tracking.fluent": ["_active_run_stack", "_get_latest_active_run"],
        "mlflow.tracking._tracking_service.utils": ["MLFLOW_TRACKING_URI"],
        "mlflow.utils.autologging_utils": ["_training_sessions"],
    }

    class Renamed(importlib.machinery.SourceFileLoader):
        def get_code(self, fullname):
            text = self.get_source(fullname)
            for name in NAMES[fullname]:
                assert name in text
                text = text.replace(name, name + "_2")
            text = text.replace("import MLFLOW_ENABLE_WORKSPACES, MLFLOW_TRACKING_URI_2",
                "import MLFLOW_ENABLE_WORKSPACES, MLFLOW_TRACKING_URI as MLFLOW_TRACKING_URI_2")
            text = text.replace("import MLFLOW_TRACKING_URI_2",
                "import MLFLOW_TRACKING_URI as MLFLOW_TRACKING_URI_2")
            return compile(text, self.path, "exec")

    class Finder(importlib.abc.MetaPathFinder):
        def find_spec(self, name, path, target=None):
            spec = None
            if name in NAMES:
                spec = importlib.machinery.PathFinder.find_spec(name, path)
                spec.loader = Renamed(name, spec.origin)
            elif name in ("mlflow.tracing.processor.base_mlflow", "mlflow.tracing.utils", "mlflow.spark.autologging",
                          "mlflow.tracking._model_registry.fluent"):
                spec = importlib.machinery.PathFinder.find_spec(name, path)
                spec.loader = Users(name, spec.origin)
            return spec

    class Users(importlib.machinery.SourceFileLoader):
        def get_code(self, fullname):
            text = self.get_source(fullname).replace("_get_latest_active_run", "_get_latest_active_run_2")
            return compile(text, self.path, "exec")

    sys.meta_path.insert(0, Finder())
    import threading, contextvars, asyncio, mlflow, trackdsl
    from mlflow import log_metric, start_run
    mlflow.set_tracking_uri(URI)

    async def task(name):
        with trackdsl.stage(name):
            await asyncio.sleep(0)
            mlflow.log_param("of", name)
            mlflow.log_params({"q": 1})
            mlflow.set_tag("t", name)
            mlflow.set_tags({"u": name})
            await asyncio.sleep(0)
            with start_run(run_name=name + "-plain"):
                log_metric("m", 1)
                trackdsl.log_metric("n", 1)
                with trackdsl.stage(name + "-child"):
                    mlflow.log_metrics({"x": 1})
            mlflow.end_run()
            mlflow.log_text("text", "a.txt")
            assert mlflow.active_run().info.run_id == trackdsl.current_run().run_id

    async def both():
        await asyncio.gather(task("a"), task("b"))

    with trackdsl.stage("root"):
        asyncio.run(both())
        thread = threading.Thread(target=contextvars.copy_context().run, args=[log_metric, "thread", 1])
        thread.start()
        thread.join()
    assert mlflow.active_run() is None
    trackdsl.flush()
"""


@pytest.mark.slow
def test_without_the_private_names(start: StartProgram, sqlite_store: str) -> None:
    """Where MLflow's private names have moved, the main calls land right by public ways, and one line says so."""
    program = start(RENAMED.replace("URI)", f"{sqlite_store!r})", 1), TRACKDSL_MODE="online")
    code, _, err = program.finish()
    assert code == 0, err
    assert err.count("does not know this version of MLflow") == 1
    for name in ("_active_run_stack", "_get_latest_active_run", "MLFLOW_TRACKING_URI", "_training_sessions"):
        assert name in err
    runs = {run.info.run_name: run for run in all_runs(sqlite_store)}
    names = {run.info.run_id: name for name, run in runs.items()}
    parents = {name: names.get(run.data.tags.get("mlflow.parentRunId")) for name, run in runs.items()}
    assert parents == {
        "root": None, "a": "root", "b": "root", "a-plain": "a", "b-plain": "b", "a-child": "a-plain",
        "b-child": "b-plain",
    }  # fmt: skip
    for name in ("a", "b"):
        assert runs[name].data.params == {"of": name, "q": "1"}
        assert (runs[name].data.tags["t"], runs[name].data.tags["u"]) == (name, name)
        assert artifacts(sqlite_store, runs[name]) == {"a.txt"}
        assert (runs[f"{name}-plain"].data.metrics, runs[f"{name}-child"].data.metrics) == ({"m": 1, "n": 1}, {"x": 1})
    assert runs["root"].data.metrics == {"thread": 1}
    assert {run.info.status for run in runs.values()} == {"FINISHED"}


def test_active_runs_are_plain_values(here: str) -> None:
    """What `active_run` gives can be copied and pickled as MLflow's own, without anything of ours in it."""
    import copy
    import pickle

    with stage("s") as run, mlflow.start_run(run_name="opened") as opened:
        for active, id_ in ((opened, opened.info.run_id), (mlflow.active_run(), opened.info.run_id)):
            assert pickle.loads(pickle.dumps(active)).info.run_id == copy.deepcopy(active).info.run_id == id_
        mlflow.end_run()
        active = mlflow.active_run()
        for same in (pickle.loads(pickle.dumps(active)), copy.deepcopy(active)):
            assert type(same) is mlflow.ActiveRun
            assert same.info.run_id == run.run_id
            assert same.data.tags["trackdsl.id"] == run.id
        assert b"trackdsl.mlflow_bridge" not in pickle.dumps(active.info)
        assert dict(active.info)["run_name"] == "s"
        assert active.info == active.info == mlflow.active_run().info
        assert mlflow.get_run(run.run_id).info == active.info


def test_substitutes_for_mlflow(start: StartProgram) -> None:
    """An object that replaces MLflow in a test is left alone, and nothing is logged."""
    program = start("""
        import sys, types, trackdsl
        sys.modules["mlflow"] = types.ModuleType("mlflow")
        with trackdsl.stage("s"):
            import mlflow
        assert not vars(mlflow).get("start_run")
    """)
    assert program.finish() == (0, "", "")


def test_private_names_are_in_one_module() -> None:
    """No other module of the bridge uses a name of MLflow's that begins with an underscore."""
    folder = Path(trackdsl.__file__).parent / "mlflow_bridge"
    pattern = re.compile(
        r"\bmlflow(\.\w+)*\._[a-z]|from mlflow\S* import .*\b_"
        r"|_run_stack|_latest_active|_training_sessions|_session_stack|MLFLOW_TRACKING_URI"
    )
    users = {path.name for path in folder.glob("*.py") if pattern.search(path.read_text())}
    assert users == {"_private.py"}


def test_functions_stay_what_they_are(here: str) -> None:
    """The wrapped functions of MLflow's keep their names and signatures, pickle, and know wrong arguments."""
    import inspect
    import pickle

    for name in ("active_run", "start_run", "end_run", "set_experiment"):
        function = getattr(mlflow, name)
        assert function is getattr(mlflow.tracking.fluent, name)
        assert pickle.loads(pickle.dumps(function)) is function
        assert inspect.signature(function) == inspect.signature(function.__wrapped__)
    with stage("s"), pytest.raises(TypeError, match="bogus"):
        mlflow.start_run(bogus=1)


def test_the_parts_that_wait_for_delivery_themselves_exist() -> None:
    """Each part of trackdsl whose own reads of MLflow do not wait is a module: a moved one would wait for itself."""
    from importlib.util import find_spec

    from trackdsl.mlflow_bridge._own_writes import OURS

    assert [name for name in OURS if find_spec(name.rstrip(".")) is None] == []

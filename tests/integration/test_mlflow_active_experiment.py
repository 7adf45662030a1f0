"""Inside a scope its MLflow experiment is MLflow's active one, and runs of other code are its children."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import pytest

from tests.conftest import all_runs, client
from tests.plain_mlflow import Tree, meet, own_thread, run_threads
from trackdsl import experiment, log_metric, stage, start_logging, stop_logging

mlflow = pytest.importorskip("mlflow")


def active() -> str:
    """The name of the experiment that plain MLflow takes for the active one, found by what it does."""
    mlflow.set_experiment_tag("touched", "yes")
    found = [each for each in mlflow.search_experiments() if each.tags.get("touched")]
    for each in found:
        mlflow.MlflowClient().delete_experiment_tag(each.experiment_id, "touched")
    (one,) = found
    return str(one.name)


def found_runs() -> list[str]:
    """The names of the runs that a search without experiments finds."""
    return sorted(run.info.run_name for run in mlflow.search_runs(output_format="list"))


def test_a_scope_is_the_active_experiment(here: str) -> None:
    """Inside blocks, calls and sessions the active experiment is that of the run; afterwards it is the former one."""
    mlflow.set_experiment("mine")

    @experiment("called")
    def call() -> str:
        return active()

    with experiment("block", run_name="outer"):
        assert active() == "block"
        with stage("inner"), stage("section", nested=False), experiment("other"):
            assert active() == "block"
        assert found_runs() == ["inner", "other", "outer"]
        assert mlflow.get_experiment_by_name("block") is not None
    assert call() == "called"
    start_logging("s", config={"experiment_name": "session"})
    try:
        assert active() == "session"
    finally:
        stop_logging()
    with pytest.raises(ZeroDivisionError), experiment("raises"):
        1 / 0
    assert active() == "mine"
    assert found_runs() == []


def test_at_the_same_time(here: str) -> None:
    """Tasks and threads that are in scopes at the same time each have their own, and choose their own."""
    found: dict[str, tuple[str, str]] = {}
    waiting: list[asyncio.Future[None]] = []
    barrier = threading.Barrier(3)
    mlflow.set_experiment("mine")

    async def task(name: str) -> None:
        async with experiment(name):
            await meet(2, waiting)
            before = mlflow.search_runs(output_format="list")[0].info.run_name
            await meet(2, waiting)
            mlflow.set_experiment(f"chosen-{name}")
            await meet(2, waiting)
            with mlflow.start_run(run_name=f"run-{name}") as run:
                found[name] = before, mlflow.get_experiment(run.info.experiment_id).name

    async def tasks() -> None:
        await asyncio.gather(task("a"), task("b"))

    def thread(name: str) -> None:
        if name == "outside":
            barrier.wait()
            mlflow.set_experiment("of-another-thread")
            barrier.wait()
            return
        with experiment(name):
            barrier.wait()
            barrier.wait()
            before = mlflow.search_runs(output_format="list")[0].info.run_name
            with mlflow.start_run(run_name=f"run-{name}") as run:
                found[name] = before, mlflow.get_experiment(run.info.experiment_id).name

    asyncio.run(tasks())
    run_threads(*(lambda name=name: thread(name) for name in ("c", "d", "outside")))
    assert found == {
        "a": ("a", "chosen-a"), "b": ("b", "chosen-b"), "c": ("c", "c"), "d": ("d", "d"),
    }  # fmt: skip


def test_an_experiment_that_the_program_sets(here: str) -> None:
    """`set_experiment` inside a scope counts there, in stages and threads inside it, and still counts after it."""
    with experiment("scope"):
        mlflow.set_experiment("chosen")
        assert active() == "chosen"
        with stage("inner"):
            assert active() == own_thread(active) == "chosen"
            with mlflow.start_run(run_name="opened") as run:
                assert mlflow.get_experiment(run.info.experiment_id).name == "chosen"
        with experiment("there", tracking_uri="sqlite:///there.db") as other:
            log_metric("m", 1)
            assert other.experiment == "there"
    assert active() == "chosen"
    assert Tree(here).parents()["opened"] == "inner"


def test_taking_up_a_run_again(here: str) -> None:
    """A run of the scope's experiment can be taken up again there, whatever was active before; no other can."""
    mlflow.set_experiment("mine")
    with mlflow.start_run() as other:
        pass
    with experiment("scope") as run:
        with mlflow.start_run(run_id=run.run_id):
            mlflow.log_metric("m", 1)
        with mlflow.start_run() as child:
            pass
        with mlflow.start_run(run_id=child.info.run_id):
            mlflow.log_metric("m", 2)
        with pytest.raises(mlflow.MlflowException, match="does not match"):
            mlflow.start_run(run_id=other.info.run_id)
        mlflow.set_experiment("mine")
        with mlflow.start_run(run_id=other.info.run_id):
            mlflow.log_metric("m", 3)
    assert {each.data.metrics["m"] for each in all_runs(here)} == {1, 2, 3}
    # A resumed run, named by either id, is that of the scope too, and is not ended inside it.
    for name in (run.id, run.run_id):
        with experiment("scope", run_id=name) as again:
            with mlflow.start_run(run_id=again.run_id):
                mlflow.log_metric("m", 4)
            assert mlflow.get_run(again.run_id).info.status == "RUNNING"


def test_traces_of_a_scope(here: str) -> None:
    """`search_traces` without experiments finds the traces of the scope's."""

    @mlflow.trace
    def answer() -> int:
        return 42

    answer()
    with experiment("traced"):
        answer()
        mlflow.flush_trace_async_logging()
        (trace,) = mlflow.search_traces(return_type="list")
        assert trace.info.experiment_id == mlflow.get_experiment_by_name("traced").experiment_id


def test_a_store_that_mlflow_does_not_point_at(here: str, tmp_path: Path) -> None:
    """Where MLflow points at another store than the scope's, its own active experiment stays."""
    mlflow.set_tracking_uri(here)
    mlflow.set_experiment("mine")
    with experiment("there", tracking_uri=f"sqlite:///{tmp_path}/there.db"):
        assert active() == "mine"


@pytest.mark.slow
def test_a_project(here: str) -> None:
    """`mlflow.run` inside a scope makes a child of its run, in its experiment."""
    Path("MLproject").write_text("name: p\nentry_points:\n  main:\n    command: 'true'\n")
    with experiment("scope") as run:
        submitted = mlflow.run(".", env_manager="local")
        made = client(here).get_run(submitted.run_id)
        assert made.info.experiment_id == mlflow.get_experiment_by_name("scope").experiment_id
        assert made.data.tags["mlflow.parentRunId"] == run.run_id


def test_runs_made_with_a_client(here: str, tmp_path: Path, empty_store: Path) -> None:
    """Runs made with a client are children of the run around them, unless they name a parent or use another store."""
    (tmp_path / "other.db").write_bytes(empty_store.read_bytes())
    elsewhere = mlflow.MlflowClient(f"sqlite:///{tmp_path}/other.db")
    maker = mlflow.MlflowClient()
    other = maker.create_experiment("other")

    def make(name: str, **tags: str) -> str:
        return str(maker.create_run(other, tags={"mlflow.runName": name, **tags}).info.run_id)

    make("outside")
    with experiment("scope"):
        first = make("of-scope")
        make("given", **{"mlflow.parentRunId": first})
        own_thread(lambda: make("of-thread"))
        with stage("stage"), stage("section", nested=False):
            maker.create_run("0", None, None, "of-stage")
        with mlflow.start_run(run_name="opened"):
            make("of-opened")
        root = elsewhere.create_run("0").info.run_id
    with mlflow.start_run(run_name="plain"):
        make("beside-plain")
    assert "mlflow.parentRunId" not in elsewhere.get_run(root).data.tags
    tree = Tree(here)
    assert tree.parents() == {
        "scope": None, "stage": "scope", "opened": "scope", "outside": None, "of-scope": "scope", "given": "of-scope",
        "of-thread": "scope", "of-stage": "stage", "of-opened": "opened", "plain": None, "beside-plain": None,
    }  # fmt: skip
    assert tree["of-scope"].info.experiment_id == other

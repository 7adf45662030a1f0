"""Beside plain MLflow: what `mlflow.*` does inside a scope, in the program's own process."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

import trackdsl
from tests.conftest import all_runs, client, points
from tests.plain_mlflow import Tree, artifacts, meet, own_thread, run_threads
from trackdsl import current_run, experiment, log_metric, log_param, stage, steps
from trackdsl.delivery import flush

mlflow = pytest.importorskip("mlflow")


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

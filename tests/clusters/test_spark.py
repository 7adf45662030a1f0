"""Spark: what runs in a task lands below the stage that the action was called in."""

from __future__ import annotations

import inspect
from typing import Any

import pytest

from tests.clusters.conftest import RunOnce
from tests.clusters.tree import Tree, attempts, shown, tree
from trackdsl import stage
from trackdsl.store_format.call_tag import call_of

pytest.importorskip("pyspark", reason="needs Spark: pip install 'trackdsl[spark]'")
for needed in ("pandas", "pyarrow"):
    pytest.importorskip(needed, reason=f"needs {needed}: pip install 'trackdsl[spark]'")

#: What lands below the stage of each name: name of the run, and its parameter `x`.
BELOW = {
    "lazy": [],
    "action": [("work", "1"), ("work", "2")],
    "foreach": [("passed", ""), ("passed", ""), ("work", "3")],
    "partitions": [("passed", ""), ("passed", "")],
    "from-plain": [("work", "8")],
    "udf": [("plus", "0")],
    "pandas-udf": [("vector", "")],
    "map-in-pandas": [("passed", "")],
    "apply-in-pandas": [("group", ""), ("keyed", "")],
    "meet-one": [("met-one", "")],
    "meet-two": [("met-two", "")],
    "local": [("work", "1"), ("work", "2")],
    "maker": [],
}


@pytest.fixture
def recorded(run_once: RunOnce) -> Tree:
    return tree(run_once("spark", "with_server.py", "spark_program.py"))


@pytest.mark.parametrize("name", BELOW)
def test_what_runs_for_an_action_is_a_child_of_its_stage(recorded: Tree, name: str) -> None:
    """Functions of RDDs and frames are children of the stage in which they are asked for, not built."""
    below = recorded.below_root(name)
    assert shown(below) == BELOW[name]
    for run in below:
        if run.info.run_name == "work":
            assert run.data.metrics["x"] == float(run.data.params["x"])


@pytest.mark.long  # The first test starts the cluster.
def test_a_metric_of_a_plain_function_lands_on_the_stage(recorded: Tree) -> None:
    """What a task records outside any stage of its own goes to the run that the action was called in."""
    root = recorded.root("plain")
    assert root.data.metrics["plain"] in (10.0, 20.0)
    assert recorded.below(root) == []


def test_a_task_is_inside_its_scope(recorded: Tree) -> None:
    """A plain function is inside the scope of its action, where plain MLflow finds it, and the next one is not."""
    assert recorded.reported["paths"] == [["first"] * 2, [""] * 2, ["second"] * 2, [""] * 2]


def test_batches_of_a_stream(recorded: Tree) -> None:
    """A batch belongs to the stage that started the stream, also when that is over; its tasks belong to the batch."""
    first, second = recorded.below_root("stream")
    assert shown([first, second]) == [("batch", ""), ("batch", "")]
    assert shown(recorded.below(first)) == [("work", "0"), ("work", "1")]
    assert shown(recorded.below(second)) == [("work", "2")]
    (other,) = recorded.roots("batch")
    assert shown(recorded.below(other)) == [("work", "0"), ("work", "1"), ("work", "2")]


def test_nothing_leaks_from_scope_to_scope(recorded: Tree) -> None:
    """The property follows the scopes of each thread, and workers that are used again go by their task alone."""
    assert recorded.reported["properties"] == ["inside/further", "inside", None] * 3
    for root in recorded.roots("inside"):
        below = recorded.below(root)
        assert [run.info.run_name for run in below if run.info.run_name != "further"] == ["work"]
    assert shown(recorded.roots("work")) == [("work", x) for x in ("0", "1", "2", "97", "98")]
    assert all(run.data.tags["trackdsl.attempt"] == "1" for run in recorded.roots("work"))


def test_every_attempt_is_a_run(recorded: Tree) -> None:
    """A task that is tried again has a run for each attempt, `KILLED` where its worker or executor was."""
    assert attempts(recorded.below_root("retries")) == [("1", "FAILED"), ("2", "KILLED"), ("3", "FINISHED")]
    assert attempts(recorded.below_root("executor")) == [("1", "KILLED"), ("2", "FINISHED")]


def test_executors_have_a_spool_of_their_own(recorded: Tree, run_once: RunOnce) -> None:
    """What the executors recorded was in their spool alone: they found its parents at the tracking server."""
    folder = run_once("spark", "with_server.py", "spark_program.py")
    assert {call_of(run.data.tags)["pid"] for run in recorded.runs} > {
        call_of(recorded.root("action").data.tags)["pid"]
    }
    assert (folder / "far" / "journals").is_dir()


def patched_functions() -> list[Any]:
    import py4j.java_gateway
    import pyspark.sql.pandas.functions
    import pyspark.sql.streaming.readwriter
    import pyspark.sql.utils

    owners = [(py4j.java_gateway.JavaMember, "__call__"), (pyspark.SparkContext, "stop"),
              (pyspark.sql.streaming.readwriter.DataStreamWriter, "foreachBatch"),
              (pyspark.sql.utils.ForeachBatchFunction, "call"),
              (pyspark.sql.pandas.functions, "_create_vectorized_udf")]  # fmt: skip
    return [vars(owner)[name] for owner, name in owners]


def test_patches_go_with_the_last_scope(recorded: Tree) -> None:
    """Spark is what it was as soon as no scope is open, and no thread that calls it has a property of ours left."""
    before = patched_functions()
    with stage("s"):
        assert all(one is not other for one, other in zip(before, patched_functions(), strict=True))
    assert patched_functions() == before
    assert recorded.reported["patched"] is False


def test_threads_that_share_one_of_the_jvm(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """Where the threads of a program have none of their own in the JVM, nothing is set there, and that is said once."""
    from trackdsl.distributed import spark

    assert spark._pinned()
    monkeypatch.setenv("PYSPARK_PIN_THREAD", "false")
    assert not spark._pinned()
    assert not spark._pinned()
    assert [record.message for record in caplog.records] == [
        "With PYSPARK_PIN_THREAD=false, runs in tasks of Spark begin as roots."
    ]


def test_parameters_are_counted_as_undecorated() -> None:
    """`inspect.getfullargspec`, by which Spark distinguishes functions of groups, answers as without the decorator."""

    def plain(key, frame, *rest, option=1, **options):  # type: ignore[no-untyped-def]
        """Without annotations."""

    plain.__annotations__ = {"key": int, "return": float}
    assert inspect.getfullargspec(stage(plain)) == inspect.getfullargspec(plain)
    assert inspect.signature(stage(plain)) == inspect.signature(plain)

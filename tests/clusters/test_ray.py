"""Ray: what is submitted in a stage lands below it, wherever and however often it runs."""

from __future__ import annotations

import functools
from typing import Any

import pytest

from tests.clusters.conftest import RunOnce
from tests.clusters.tree import Tree, attempts, shown, tree
from tests.conftest import all_runs, points
from trackdsl import OptionError, stage
from trackdsl.store_format.call_tag import call_of

ray = pytest.importorskip("ray", reason="needs Ray: pip install 'trackdsl[ray]'")
pytest.importorskip("joblib", reason="needs joblib: pip install joblib")

#: What lands below the stage of each name: name of the run, and its parameter `x`.
BELOW = {
    "submit": [("decorated", "3"), ("work", "1"), ("work", "2")],
    "bound": [("work", "5")],
    "pool": [("work", "6"), ("work", "7")],
    "joblib": [("work", "8"), ("work", "9")],
    "from-plain": [("work", "3"), ("work", "4")],
    "absent": [],
    "maker": [],
}


@pytest.fixture
def recorded(run_once: RunOnce) -> Tree:
    return tree(run_once("ray", "with_server.py", "ray_program.py", TRACKDSL_MODE="online"))


@pytest.mark.parametrize("name", BELOW)
def test_what_is_submitted_in_a_stage_is_its_child(recorded: Tree, name: str) -> None:
    """Every way to give work to a cluster makes children of the stage around it, through plain functions too."""
    below = recorded.below_root(name)
    assert shown(below) == BELOW[name]
    for run in below:
        if run.info.run_name == "work":
            assert run.data.metrics["x"] == float(run.data.params["x"])


@pytest.mark.long  # The first test starts the cluster.
def test_nested_tasks_are_children_of_the_run_that_submits_them(recorded: Tree) -> None:
    """A stage that submits from inside a task has children of its own."""
    (outer,) = recorded.below_root("nested")
    assert shown(recorded.below(outer)) == [("work", "1"), ("work", "2")]


def test_a_metric_of_a_plain_task_lands_on_the_submitter(recorded: Tree) -> None:
    """What a task records outside any stage of its own goes to the run that submitted it, at the step of its loop."""
    assert points(recorded.root("plain"), "plain", recorded.uri) == [(0, 0.0), (1, 10.0), (2, 20.0)]


@pytest.mark.parametrize("name", ["streaming", "dynamic"])
def test_generators(recorded: Tree, name: str) -> None:
    """A task that gives its results one by one is one run, and what runs in its body is below it."""
    (items,) = recorded.below_root(name)
    assert shown([items]) == [("items", "")]
    assert shown(recorded.below(items)) == [("work", "0"), ("work", "1")]


def test_calls_of_an_actor_belong_to_who_makes_them(recorded: Tree) -> None:
    """A method is a child of the stage that calls it, of an actor made there or before; `__init__` of its maker's."""
    made, calls = sorted(recorded.below_root("maker-of-actor"), key=lambda run: run.info.run_name)
    assert (made.info.run_name, calls.info.run_name) == ("__init__", "calls")
    assert shown(recorded.below(calls)) == [("grow", "")] * 3 + [("items", ""), ("work", "3")]
    assert points(calls, "plain", recorded.uri) == [(0, 3.0)]
    assert shown(recorded.below_root("async-items")) == [("work", "0"), ("work", "1")]


@pytest.mark.parametrize("name", ["one", "two"])
def test_calls_at_the_same_time(recorded: Tree, name: str) -> None:
    """Calls of an actor with threads, or with an event loop, that run at once have each their own scope."""
    below = recorded.below_root(f"meet-{name}")
    assert [run.data.params["name"] for run in below] == [name, name]
    other = {"one": "two", "two": "one"}[name]
    root = recorded.root(f"plain-{name}")
    assert {f"here.{name}", f"here.async-{name}"} <= set(root.data.tags)
    assert not {f"here.{other}", f"here.async-{other}"} & set(root.data.tags)
    # One in a thread of the call, one in a task that it submits.
    assert shown(recorded.below(root)) == [("work", "0"), ("work", "9")]


def test_every_attempt_is_a_run(recorded: Tree) -> None:
    """A task that is tried again has a run for each attempt, `KILLED` where its worker was."""
    assert attempts(recorded.below_root("retries")) == [("1", "FAILED"), ("2", "KILLED"), ("3", "FINISHED")]
    by_name: dict[str, list[Any]] = {"__init__": [], "die": []}
    for run in recorded.below_root("restarts"):
        by_name[run.info.run_name].append(run)
    assert attempts(by_name["__init__"]) == [("1", "FINISHED"), ("2", "FINISHED")]
    assert attempts(by_name["die"]) == [("1", "KILLED"), ("2", "FINISHED")]
    assert attempts(recorded.below_root("cancelled")) == [("1", "KILLED")]


def test_nothing_leaks_from_task_to_task(recorded: Tree) -> None:
    """A task that is submitted outside of any scope has none, whatever its worker did before, or was started in."""
    assert recorded.reported["paths"] == ["inside", ""] * 4


def test_a_task_without_a_scope_is_a_root_of_its_worker(run_once: RunOnce) -> None:
    """It goes where the worker's own settings say, and is tagged like all tasks."""
    folder = run_once("ray", "with_server.py", "ray_program.py", TRACKDSL_MODE="online")
    (root,) = [run for run in all_runs(f"sqlite:///{folder}/mlflow.db") if run.data.params.get("x") == "99"]
    assert "mlflow.parentRunId" not in root.data.tags
    assert root.data.tags["trackdsl.attempt"] == "1"


def test_ray_behaves_as_outside_of_a_scope(recorded: Tree) -> None:
    """Names of tasks, refused arguments and errors are the same inside a scope as outside of one."""
    assert recorded.reported["inside"] == recorded.reported["outside"]
    named, *refused = recorded.reported["inside"]
    assert named[0] == ["names", "ray_program.names"]
    assert [kind for kind, _ in refused] == ["TypeError"] * 5 + ["RayTaskError(KeyError)"]
    (failed,) = recorded.below_root("differences")
    assert failed.info.status == "FAILED"


def test_workers_without_trackdsl_run_what_has_nothing_to_do_with_it(recorded: Tree) -> None:
    """Plain functions are called with their own arguments, and those alone, where trackdsl cannot be imported."""
    assert recorded.reported["absent"] == [2, 5]


def test_workers_have_a_spool_of_their_own(recorded: Tree, run_once: RunOnce) -> None:
    """What the workers recorded was in their spool alone: they found its parents at the tracking server."""
    folder = run_once("ray", "with_server.py", "ray_program.py", TRACKDSL_MODE="online")
    assert {call_of(run.data.tags)["pid"] for run in recorded.runs} > {
        call_of(recorded.root("submit").data.tags)["pid"]
    }
    assert (folder / "far" / "journals").is_dir()


def patched_functions() -> list[Any]:
    from ray import actor, remote_function
    from ray._common import signature

    owners = [(remote_function.RemoteFunction, "_remote"), (actor.ActorClass, "_remote"),
              (actor.ActorHandle, "_actor_method_call"), (signature, "flatten_args"),
              (signature, "recover_args")]  # fmt: skip
    return [vars(owner)[name] for owner, name in owners]


def test_patches_go_with_the_last_scope() -> None:
    """Ray is what it was as soon as no scope is open; what workers need is never touched in the program itself."""
    before = patched_functions()
    with stage("s"):
        inside = patched_functions()
        assert [one is other for one, other in zip(before, inside, strict=True)] == [False] * 4 + [True]
    assert patched_functions() == before


def test_an_unknown_version_of_ray(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """Where Ray does not take arguments apart where we would take ours out, none are added, and that is said once."""
    from ray._common import signature

    from trackdsl.distributed import ray as ours

    monkeypatch.delattr(signature, "recover_args")
    monkeypatch.setattr(ours, "_can_follow", functools.lru_cache(ours._can_follow.__wrapped__))
    with stage("s"):
        assert ours._with_context((1, 2)) == (1, 2)
        assert type(ours._with_context((1, 2))) is tuple
    assert [record.message for record in caplog.records] == [
        "trackdsl does not know this version of Ray, so runs in its tasks begin as roots."
    ]


def test_a_decorator_above_ray_remote_is_refused() -> None:
    """It would record nothing: neither the call nor what runs elsewhere."""

    class Actor:
        pass

    with pytest.raises(OptionError, match=r"goes below @ray\.remote"):
        stage(ray.remote(Actor))
    with pytest.raises(OptionError, match=r"goes below @ray\.remote"):
        stage(ray.remote(lambda x: x))

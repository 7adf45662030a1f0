"""Our replacements of MLflow's own objects can do all that those can."""

from __future__ import annotations

import copy
import pickle
import random
import threading
from typing import Any
from unittest import mock

import pytest

from tests.plain_mlflow import Tree, own_thread
from trackdsl import experiment, stage
from trackdsl.mlflow_bridge._scoped_list import ScopedList

mlflow = pytest.importorskip("mlflow")


def session_class() -> Any:
    return mlflow.utils.autologging_utils._get_new_training_session_class()


@pytest.mark.slow
def test_sessions_of_autologging(here: str) -> None:
    """The list of fits under way is a list, can be cleared, and shows the fits of a scope in that scope alone."""
    session = session_class()
    stack = session._session_stack
    assert isinstance(stack, list)
    for _ in range(2):
        stack.clear()
        with session("a", True) as outer, session("b", True):
            assert [each.estimator for each in stack] == ["a", "b"]
            assert (stack[0], len(stack), stack[-1] in stack, bool(stack)) == (outer, 2, True, True)
        assert not session.is_active()
        assert stack == []
    with experiment("x"):
        stack.append("of x")
        with stage("y"):
            stack.append("of y")
            assert stack == ["of x", "of y"]
        assert stack == ["of x"]
        own = own_thread(stack.copy)
    assert own == ["of x"]
    with experiment("z"):
        assert stack == []
    stack.clear()


def test_a_scoped_list_is_a_list() -> None:
    """A scoped list behaves like a list, and does not change the items that are not visible."""
    keys: list[object] = []
    scoped, plain = ScopedList([], lambda: keys), list[Any]()
    hidden = object()
    keys.append("other")
    scoped.append(hidden)
    keys[:] = ["here"]
    drawn = random.Random(4)
    changes: list[Any] = [
        lambda it, a, _: it.append(a),
        lambda it, a, b: it.extend([a, b]),
        lambda it, a, b: it.insert(b % (len(it) + 1), a),
        lambda it, a, _: it.__iadd__([a]),
        lambda it, *_: it.pop() if it else None,
        lambda it, *_: it.pop(0) if it else None,
        lambda it, *_: it.remove(it[-1]) if it else None,
        lambda it, *_: it.reverse(),
        lambda it, *_: it.sort(),
        lambda it, *_: it.__delitem__(slice(1, 3)),
        lambda it, a, _: it.__setitem__(slice(0, 1), [a, a + 0.5]),
        lambda it, a, _: it.__setitem__(-1, a) if it else None,
        lambda it, *_: it.clear() if len(it) > 12 else None,
        lambda it, *_: it.__imul__(1),
    ]
    for number in range(500):
        change, second = drawn.choice(changes), drawn.randrange(10_000)
        change(scoped, number, second)
        change(plain, number, second)
        assert list(scoped) == plain
    plain += [1, 2]
    scoped += [1, 2]
    assert (scoped == plain, plain == scoped, scoped != plain) == (True, True, False)
    assert (repr(scoped), len(scoped), scoped[1:3], scoped[-1]) == (repr(plain), len(plain), plain[1:3], plain[-1])
    joined = scoped + [3]  # noqa: RUF005 - this is what is tested
    assert [3] + scoped == [3, *plain]  # noqa: RUF005
    assert (joined, scoped * 2, list(reversed(scoped))) == ([*plain, 3], plain * 2, plain[::-1])
    assert (scoped.index(2), scoped.count(1), 2 in scoped, sorted(scoped)) == (
        plain.index(2), plain.count(1), True, sorted(plain),
    )  # fmt: skip
    for same in (pickle.loads(pickle.dumps(scoped)), copy.copy(scoped), copy.deepcopy(scoped), scoped.copy()):
        assert (type(same), same) == (list, plain)
    keys.clear()
    assert hidden in scoped


def test_the_stack_of_active_runs(here: str) -> None:
    """The stack of active runs stays MLflow's own object, with its class and methods, in a scope and outside."""
    fluent = mlflow.tracking.fluent
    stack = fluent._active_run_stack
    assert isinstance(stack, mlflow.utils.thread_utils.ThreadLocalVariable)
    assert type(stack.get()) is list
    assert pickle.loads(pickle.dumps(stack)) is stack
    someone = mock.Mock()
    with mock.patch("mlflow.tracking.fluent._active_run_stack.get", return_value=[someone]):
        assert mlflow.active_run() is someone
        with stage("s"):
            assert mlflow.active_run() is someone
    with mock.patch("mlflow.tracking.fluent._active_run_stack.get", list), stage("s"):
        assert mlflow.active_run() is None
    with stage("t") as run:
        assert mlflow.active_run().info.run_id == run.run_id
    run = mlflow.start_run()
    assert threading.get_ident() in stack.get_all_thread_values()
    before = stack.get()
    stack.set([])
    assert mlflow.active_run() is None
    stack.set(before)
    assert mlflow.active_run() is run
    mlflow.end_run()
    stack.reset()
    assert mlflow.active_run() is None


def test_the_stack_inside_a_scope(here: str) -> None:
    """A run that is pushed inside a scope is active there, one that is popped is not; other threads have their own."""
    stack = mlflow.tracking.fluent._active_run_stack
    made = mlflow.MlflowClient()
    with stage("s") as run:
        added = mlflow.ActiveRun(made.create_run("0", run_name="added"))
        for add in (lambda: stack.get().append(added), lambda: stack.set([*stack.get(), added])):
            add()
            assert mlflow.active_run().info.run_id == added.info.run_id
            stack.get().clear()
            assert mlflow.active_run().info.run_id == run.run_id
        given = stack.get()

    def elsewhere() -> None:
        stack.set(given)
        with mlflow.start_run(run_name="elsewhere", nested=True):
            mlflow.log_metric("m", 1)
        assert len(stack.get()) == 1

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert Tree(here).parents() == {"s": None, "added": "s", "elsewhere": "s"}


def test_the_tracking_uri_of_the_environment(here: str) -> None:
    """The variable that MLflow asks for its tracking URI is one of MLflow's own kind."""
    variable = mlflow.tracking._tracking_service.utils.MLFLOW_TRACKING_URI
    theirs = mlflow.environment_variables.MLFLOW_TRACKING_URI
    assert isinstance(variable, type(theirs))
    assert (f"{variable}", str(variable), repr(variable)) == (f"{theirs}", str(theirs), repr(theirs))
    assert (variable.get(), variable.get_raw(), variable.name) == (here, here, "MLFLOW_TRACKING_URI")
    assert type(pickle.loads(pickle.dumps(variable))) is type(theirs)

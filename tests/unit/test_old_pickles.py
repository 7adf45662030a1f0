"""Pickles that earlier versions wrote: they load, and what comes out works."""

from __future__ import annotations

import asyncio
import pickle
import sys
from pathlib import Path
from typing import Any

import pytest

import trackdsl
from trackdsl import Metric, OptionError, RunNotReady, attach, current_run, stage
from trackdsl.testing import capture_runs

PICKLES = Path(__file__).parents[1] / "golden/pickles"
#: Functions are pickled with their bytecode.
of_this_python = pytest.mark.skipif(sys.version_info[:2] != (3, 11), reason="these hold the bytecode of Python 3.11")


def load(name: str) -> Any:
    return pickle.loads((PICKLES / name).read_bytes())


def test_values() -> None:
    """Markers, settings, errors, decorators and runs in pickles of earlier versions load unchanged."""
    assert load("markers.pickle")[0] == Metric("f1")
    assert load("settings.pickle").experiment_name == "churn"
    not_ready, wrong_option = load("errors.pickle")
    assert (type(not_ready), not_ready.run) == (RunNotReady, "a")
    assert (type(wrong_option), wrong_option.option) == (OptionError, "x")
    assert load("decorators.pickle")[0] is stage
    assert load("run.pickle").path == "churn"


def test_a_run_of_this_version() -> None:
    """A run that is pickled now comes back with its id, names, parent and target."""
    with capture_runs(), stage("outer"), stage("inner") as run:
        again = pickle.loads(pickle.dumps(run))
    assert (again.id, again.name, again.path, again.parent.name) == (run.id, "inner", "outer/inner", "outer")
    assert again.target.uri == run.target.uri


def test_a_context() -> None:
    """The run of an old pickled context becomes current."""
    context = load("context.pickle")
    with capture_runs(), attach(context):
        run = current_run()
        assert run is not None
        assert run.name == "churn"


@of_this_python
@pytest.mark.parametrize("kind", ["function", "coroutine", "generator", "method"])
def test_functions_that_were_pickled_with_their_code(kind: str) -> None:
    """A decorated function that cloudpickle has written by value still records."""
    loaded = load(f"{kind}.py311.pickle")
    with capture_runs() as captured:
        if kind == "function":
            assert loaded(2) == {"acc": 1.0}
        elif kind == "coroutine":
            assert asyncio.run(loaded(1)) == 1
        elif kind == "generator":
            assert list(loaded(2)) == [{"i": 0}, {"i": 1}]
        else:
            assert loaded().answer(1) == 1
    name = {"function": "fit-2", "coroutine": "later", "generator": "counted", "method": "answer"}[kind]
    assert captured.one(name).status == "FINISHED"
    assert trackdsl.current_run() is None

"""What a call or a value leaves in its only run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from trackdsl import stage, track_returns
from trackdsl._recording.flatten import Flat
from trackdsl.testing import RecordedRun, capture_runs

PLANT = "PLANTED"


def recorded(fn: Callable[..., Any], *args: Any, **kwargs: Any) -> RecordedRun:
    """The only run of a call."""
    with capture_runs() as captured:
        fn(*args, **kwargs)
    (run,) = captured.runs
    return run


def params_of(fn: Callable[..., Any], *args: Any, **kwargs: Any) -> dict[str, Any]:
    return dict(recorded(fn, *args, **kwargs).params)


def returned(value: Any) -> RecordedRun:
    """The run of a function that returns a value."""

    @stage
    @track_returns
    def f() -> Any:
        return value

    return recorded(f)


def metrics_of(run: RecordedRun) -> dict[str, float]:
    return {name: found[0].value for name, found in run.metrics.items()}


def flattened(value: Any) -> Flat:
    flat = Flat()
    flat.add("x", value)
    return flat

"""trackdsl, in the mode that the environment names, inside an open experiment."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping

from answering import Body, answer
from the_call import train

from trackdsl import experiment, flush, log_metric, stage, track_returns

decorated = stage(track_returns(train))


def stages(count: int) -> None:
    """Nested runs."""
    for _ in range(count):
        decorated("data/train.csv", 0.05, 20, seed=42)


def metrics(count: int) -> None:
    """Points of one metric."""
    for step in range(count):
        log_metric("loss", 0.25, step)


def plain(count: int) -> None:
    """The function alone."""
    for _ in range(count):
        train("data/train.csv", 0.05, 20, seed=42)


def prepare() -> Mapping[str, Body]:
    """Open a run; where something delivers, wait until it does."""
    stages(20)
    metrics(2000)
    flush(timeout=60)
    stages(500)
    return {"stage": stages, "metric": metrics, "plain": plain}


with contextlib.ExitStack() as stack:
    stack.enter_context(experiment("benchmark"))
    answer(prepare)

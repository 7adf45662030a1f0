"""A numeric loop in chunks of about a millisecond, with or without a metric after each."""

from __future__ import annotations

import time
from collections.abc import Mapping

import numpy as np
from answering import Body, answer

from trackdsl import experiment, flush, log_metric

_CHUNK = 1_000_000
_matrix = np.random.default_rng(0).normal(size=(120, 120))


def chunk(size: int) -> float:
    """Half NumPy, half the interpreter."""
    state, total = _matrix, 0.0
    for index in range(size):
        state = np.tanh(state @ _matrix[:, :8] @ _matrix[:8])
        total += sum([index * 0.5 + k for k in range(400)])
    return total + float(state[0, 0])


def size_of_chunk() -> int:
    """How many rounds take a millisecond; the least of many tries, the same for every segment."""
    size = 1
    while True:
        times = []
        for _ in range(30):
            start = time.perf_counter_ns()
            chunk(size)
            times.append(time.perf_counter_ns() - start)
        if min(times) * 2 > _CHUNK:
            return max(1, round(size * _CHUNK / min(times)))
        size *= 2


def prepare() -> Mapping[str, Body]:
    """Find the size of a chunk; wait until delivery is at work."""
    log_metric("loss", 1.0, 0)
    flush(timeout=60)
    size = size_of_chunk()

    def plain(count: int) -> None:
        for _ in range(count):
            chunk(size)

    def logged(count: int) -> None:
        for step in range(count):
            log_metric("loss", chunk(size), step)

    def catch_up(_: int) -> None:
        flush(timeout=60)

    return {"plain": plain, "logged": logged, "flush": catch_up}


with experiment("benchmark"):
    answer(prepare)

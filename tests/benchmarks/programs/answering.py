"""How a benchmark program talks with the one that started it.

`what count` comes in; two numbers of nanoseconds go out, by the clock on the wall and by the CPU's.
"""

from __future__ import annotations

import gc
import os
import sys
import time
from collections.abc import Callable, Mapping

Body = Callable[[int], None]

_clock = time.perf_counter_ns


def answer(prepare: Callable[[], Mapping[str, Body]]) -> None:
    """Serve until the input ends.

    Args:
        prepare: imports, opens, warms up; returns what can be asked for: functions that do it `count` times.
    """
    # MLflow prints the URL of a run to stdout: it must not land between the answers.
    out = os.fdopen(os.dup(1), "w", buffering=1)
    silence = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silence, 1)
    os.close(silence)
    bodies = prepare()
    gc.collect()
    gc.freeze()
    out.write("ready\n")
    for line in sys.stdin:
        what, count = line.split()
        wall, processor = timed(bodies[what], int(count))
        out.write(f"{wall} {processor}\n")
        if f"after-{what}" in bodies:
            bodies[f"after-{what}"](1)


def timed(body: Body, count: int) -> tuple[int, int]:
    """Nanoseconds of `body(count)`, without the garbage of what was before."""
    # While the others had their turn, the CPU's caches have forgotten this program.
    body(count // 20)
    gc.collect()
    gc.disable()
    try:
        start, busy = _clock(), time.thread_time_ns()
        body(count)
        return _clock() - start, time.thread_time_ns() - busy
    finally:
        gc.enable()

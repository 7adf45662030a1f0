"""An ordinary program of half a second; prints how long its body took, and when it ended."""

from __future__ import annotations

import sys
import time

from the_call import train

from trackdsl import experiment, log_metric, stage, track_returns

decorated = stage(track_returns(train))


def work(seconds: float) -> None:
    """Keep the CPU busy for this long, by the CPU clock of this thread."""
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        pass


def body() -> None:
    """Thirty stages of twenty milliseconds, with ten metrics each."""
    with experiment("benchmark"):
        for step in range(30):
            decorated("data/train.csv", 0.05, 20, seed=step)
            for index in range(10):
                log_metric("loss", 0.25, step * 10 + index)
            work(0.02)


start = time.perf_counter_ns()
body()
took = time.perf_counter_ns() - start
sys.stdout.write(f"{took} {time.monotonic_ns()}\n")
sys.stdout.flush()

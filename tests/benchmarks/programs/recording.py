"""A program that records: `recording.py runs|points|visible COUNT`, or `recording.py first STORE`.

`runs`: COUNT nested runs. `points`: COUNT points of one run. `visible`: as `runs`, and waits by `flush`; prints the
seconds of recording, and until `flush` returned. `first`: one run; prints the seconds until the SQLite store has it.
"""

from __future__ import annotations

import sqlite3
import sys
import time
from contextlib import closing

from measured import SERIES, value_of
from the_call import train

from trackdsl import experiment, flush, log_metric, stage, track_returns

decorated = stage(track_returns(train))


def record(what: str, count: int) -> None:
    """Record this many runs or points inside one run."""
    with experiment("delivered"):
        if what == "points":
            for step in range(count):
                log_metric(f"m{step % SERIES}", value_of(step), step)
        else:
            for _ in range(count):
                decorated("data/train.csv", 0.05, 20, seed=42)


def until_there(path: str) -> float:
    """Record one run; returns the seconds until the store has it."""
    with closing(sqlite3.connect(path, timeout=60)) as store:
        begun = time.perf_counter()
        with stage("first"):
            while not store.execute("SELECT count(*) FROM runs").fetchone()[0]:
                time.sleep(0.002)
            return time.perf_counter() - begun


if __name__ == "__main__":
    what, argument = sys.argv[1:]
    begun = time.perf_counter()
    if what == "first":
        sys.stdout.write(f"{until_there(argument)}\n")
    else:
        record(what, int(argument))
    recorded = time.perf_counter() - begun
    if what == "visible":
        arrived = flush()
        sys.stdout.write(f"{recorded} {time.perf_counter() - begun} {int(arrived)}\n")

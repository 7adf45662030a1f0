"""What benchmark programs of delivery share: the work, and how it is measured."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from the_call import PARAMETERS as PARAMETERS
from the_call import train

METRICS = train("data/train.csv", 0.05, 20, seed=42)
#: The points of a series belong to this many metrics.
SERIES = 10


def peak() -> int:
    """The most memory that this process has held so far, in bytes."""
    status = Path("/proc/self/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1]) * 1024


def value_of(step: int) -> float:
    """The value of a point: each is another one."""
    return 1.0 / (step + 1)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Send what libraries print to nowhere."""
    kept = os.dup(1)
    silence = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silence, 1)
    try:
        yield
    finally:
        sys.stdout.flush()
        os.dup2(kept, 1)
        os.close(kept)
        os.close(silence)


def print_costs(runs: Callable[[int], None], points: Callable[[int], None], counts: tuple[int, int]) -> None:
    """Record runs and points, and print the seconds that each takes, by the clock and by all CPUs.

    Args:
        runs: called with a number, records this many runs.
        points: records this many points.
        counts: how many.
    """
    measured: dict[str, object] = {}
    with quiet():
        runs(1)
        points(SERIES)
        for name, body, count in (("run", runs, counts[0]), ("point", points, counts[1])):
            begun, busy = time.perf_counter(), _processor()
            body(count)
            measured[name] = {
                "wall": (time.perf_counter() - begun) / count,
                "processor": (_processor() - busy) / count,
                "count": count,
            }
    json.dump({**measured, "peak": peak()}, sys.stdout)
    sys.stdout.flush()
    os._exit(0)


def _processor() -> float:
    """The CPU seconds of this process and its descendants, also of those that still run."""
    times = os.times()
    ended = times.children_user + times.children_system
    return time.process_time() + ended + sum(map(_seconds, _children(os.getpid())))


def _seconds(process: int) -> float:
    """Of a running process and its descendants."""
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:  # It has ended.
        return 0.0
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK") + sum(map(_seconds, _children(process)))


def _children(process: int) -> list[int]:
    found = []
    for listed in Path(f"/proc/{process}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            found += [int(child) for child in listed.read_text().split()]
    return found

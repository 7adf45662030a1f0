"""How much slower a numeric loop runs that logs a thousand metrics a second, delivery included.

The loop runs in segments of equal work, shorter than most of what disturbs a machine: plain, logged, plain, logged. The
delivery process is held still during plain segments, or its load would fall on both kinds and cancel out. Each logged
segment is compared with the two plain ones beside it; the plain ones, compared with each other in the same way, show
how large the noise is. The CPU time of the loop is shown too. Other
programs hardly affect it, but it also hides the CPU that delivery uses.
"""

from __future__ import annotations

import contextlib
import math
import statistics
from collections.abc import Sequence
from contextlib import AbstractContextManager

from figures import Row, Target
from pairing import Child
from recording_rows import Announce, Effort
from workspace import Delivery, Workspace

#: Seconds of a chunk, by the clock on the wall and by the CPU's.
_Times = list[tuple[float, float]]
#: Chunks of a segment, each about a millisecond.
_CHUNKS = 100


def loop(workspace: Workspace, effort: Effort, announce: Announce) -> list[Row]:
    """The group `loop`."""
    announce(f"loop: {effort.segments} segments")
    delivered, note = _delivered(workspace, effort.segments)
    _, env = workspace.recording("offline")
    with Child("subject_loop", env=env, cwd=workspace.folder) as child:
        recorded = _segments(child, contextlib.nullcontext(), effort.segments // 2)
    wall, processor = _by_clock(delivered)
    return [
        _row("1,000 metrics a second, delivered to sqlite", wall, note, Target("figure", 0.02)),
        _row("the same, processor time of the loop", processor),
        _row("1,000 metrics a second, recorded alone", _by_clock(recorded)[0], f"{_rate(recorded):,.0f} metrics/s"),
        _row("noise: plain segments against each other", _by_clock(delivered[::2])[0]),
    ]


def _delivered(workspace: Workspace, count: int) -> tuple[_Times, str]:
    spool, env = workspace.recording("online")
    delivery = Delivery(spool)
    try:
        with Child("subject_loop", env=env, cwd=workspace.folder) as child:
            child.wait()
            with delivery.stopped() as running:
                times = _segments(child, running, count)
            behind = child.ask("flush", 1)
    finally:
        delivery.end()
    if not running.pids:
        return times, "delivery was not running"
    return times, f"{_rate(times):,.0f} metrics/s; at the end delivery was {behind:.2f} s behind"


def _segments(child: Child, delivering: AbstractContextManager[None], count: int) -> _Times:
    """Plain segments at even positions, logged ones between."""
    times = []
    for _ in range(count // 2):
        times.append(child.ask_both("plain", _CHUNKS))
        with delivering:
            times.append(child.ask_both("logged", _CHUNKS))
    times.append(child.ask_both("plain", _CHUNKS))
    return times


def _by_clock(times: _Times) -> tuple[list[float], list[float]]:
    """The slow-down of every second segment against the mean of its two neighbours, by either clock."""
    wall, processor = ([both[clock] for both in times] for clock in (0, 1))
    return _slowdowns(wall), _slowdowns(processor)


def _slowdowns(times: Sequence[float]) -> list[float]:
    return [times[at] / ((times[at - 1] + times[at + 1]) / 2) - 1 for at in range(1, len(times) - 1, 2)]


def _row(name: str, slowdowns: Sequence[float], note: str = "", target: Target | None = None) -> Row:
    low, _, high = statistics.quantiles(slowdowns, n=4, method="inclusive")
    # Of a median of normal values; the interquartile range gives their deviation without the outliers.
    error = 1.2533 * (high - low) / 1.349 / math.sqrt(len(slowdowns))
    doubt = f"standard error {error * 100:.2f} %"
    return Row("loop", name, statistics.median(slowdowns), "share", target=target, note=f"{doubt}; {note}".rstrip("; "))


def _rate(times: _Times) -> float:
    return 1 / statistics.median(wall for wall, _ in times[1::2])

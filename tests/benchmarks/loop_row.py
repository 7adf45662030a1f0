"""How much slower a numeric loop runs that logs a thousand metrics a second, delivery included.

The loop runs in segments of equal work, shorter than most of what disturbs a machine: plain, logged, plain, logged. The
delivery process is held still during plain segments, or its load would fall on both kinds and cancel out. Each logged
segment is compared with the two plain ones beside it; the plain ones, compared with each other in the same way, tell
how large the noise is.
"""

from __future__ import annotations

import contextlib
import math
import statistics
from collections.abc import Sequence
from contextlib import AbstractContextManager

from figures import Row, Target
from pairing import Child
from places import Delivery, Place
from recording_rows import Effort, Tell

#: Chunks of a segment, each about a millisecond.
_CHUNKS = 100


def loop(place: Place, effort: Effort, tell: Tell) -> list[Row]:
    """The group `loop`."""
    tell(f"loop: {effort.segments} segments")
    spool, env = place.recording("online")
    delivery = Delivery(spool)
    try:
        with Child("subject_loop", env=env, cwd=place.folder) as child:
            child.wait()
            with delivery.stopped() as running:
                times = _segments(child, running, effort.segments)
            behind = child.ask("flush", 1)
    finally:
        delivery.end()
    note = f"{_rate(times):,.0f} metrics/s; at the end delivery was {behind:.2f} s behind"
    note = note if running.pids else "delivery was not running"
    delivered = _row("1,000 metrics a second, delivered to sqlite", _slowdowns(times), note, Target("figure", 0.02))
    noise = _row("noise: plain segments against each other", _slowdowns(times[::2]), "")
    _, env = place.recording("offline")
    with Child("subject_loop", env=env, cwd=place.folder) as child:
        times = _segments(child, contextlib.nullcontext(), effort.segments // 2)
    recorded = _row("1,000 metrics a second, recorded alone", _slowdowns(times), f"{_rate(times):,.0f} metrics/s")
    return [delivered, recorded, noise]


def _segments(child: Child, delivering: AbstractContextManager[None], count: int) -> list[float]:
    """Seconds of a chunk in each segment: plain ones at even places, logged ones between."""
    times = []
    for _ in range(count // 2):
        times.append(child.ask("plain", _CHUNKS))
        with delivering:
            times.append(child.ask("logged", _CHUNKS))
    times.append(child.ask("plain", _CHUNKS))
    return times


def _slowdowns(times: Sequence[float]) -> list[float]:
    """Every second segment against the mean of its two neighbours."""
    return [times[at] / ((times[at - 1] + times[at + 1]) / 2) - 1 for at in range(1, len(times) - 1, 2)]


def _row(name: str, slowdowns: Sequence[float], note: str, target: Target | None = None) -> Row:
    low, _, high = statistics.quantiles(slowdowns, n=4, method="inclusive")
    # Of a median of normal values; the interquartile range tells their deviation without the outliers.
    error = 1.2533 * (high - low) / 1.349 / math.sqrt(len(slowdowns))
    doubt = f"standard error {error * 100:.2f} %"
    return Row("loop", name, statistics.median(slowdowns), "share", target=target, note=f"{doubt}; {note}".rstrip("; "))


def _rate(times: Sequence[float]) -> float:
    return 1 / statistics.median(times[1::2])

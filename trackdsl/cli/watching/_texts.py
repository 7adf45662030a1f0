"""What is shown of a run, a program and the machine, in words and small curves."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping

from trackdsl._core.escaping import printable
from trackdsl._core.events import Loop
from trackdsl.cli._status import size
from trackdsl.cli.watching._journal import WatchedJournal
from trackdsl.cli.watching._runs import WatchedRun
from trackdsl.query._shown import duration, number
from trackdsl.query._sparkline import sparkline_text

_BAR = 8
_CURVE, _SHORTEST_CURVE = 8, 3
#: Delivery that is less behind is not mentioned, in seconds.
_SOON = 2.0
_LONGEST = 60


def name_of(run: WatchedRun) -> str:
    """The name of a run; its path if the run around it is not known."""
    cut_off = run.parent is None and run.parent_id is not None
    return printable((run.path if cut_off else run.name) or "unnamed")


def seconds_of(run: WatchedRun) -> float:
    """For how many seconds a run has been running, or ran."""
    return max(0.0, ((time.time_ns() if run.ended is None else run.ended) - run.began) / 1e9) if run.began else 0.0


def clock(seconds: float) -> str:
    """A duration in at most eight characters, for a column.

    >>> clock(0.3), clock(13.42), clock(75), clock(3725)
    ('300 ms', '13.4 s', '1:15', '1:02:05')
    """
    if seconds < 60:
        return duration(seconds)
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def remaining(loop: Loop) -> float | None:
    """The seconds that a loop still needs at the pace so far; None if nobody knows."""
    if not loop.total or not math.isfinite(loop.total) or loop.done <= 0 or loop.time <= loop.began:
        return None
    pace = (loop.time - loop.began) / 1e9 / loop.done
    since = (time.time_ns() - loop.time) / 1e9
    return max(0.0, pace * (loop.total - loop.done) - since)


def progress_of(run: WatchedRun, *, room: int = 80) -> str:
    """How far the loops of an open run are; empty without a loop.

    Args:
        run: the run.
        room: for how many characters there is room; what matters less is left out.
    """
    if not run.loops or not run.is_open:
        return ""
    outer, inner = run.loops[0], run.loops[-1]
    text = _count(outer)
    left = remaining(outer)
    eta = "" if left is None or not outer.total or outer.done >= outer.total else f" eta {clock(left)}"
    inside = "" if inner is outer else f" {_count(inner)}"
    bar = _bar(outer, inner)
    for parts in ((bar, eta, inside), (eta, inside), (eta,), ()):
        if len(text) + sum(map(len, parts)) <= room:
            return text + "".join(parts)
    return _share(outer)


def _bar(outer: Loop, inner: Loop) -> str:
    if not outer.total or not math.isfinite(outer.total):
        return ""
    inside = inner.done / inner.total if inner is not outer and inner.total else 0.0
    full = round(_BAR * max(0.0, min(1.0, (outer.done + min(inside, 1.0)) / outer.total)))
    return " " + "━" * full + "─" * (_BAR - full)


def metrics_of(run: WatchedRun, room: int) -> list[str]:
    """The last value and the curve of each metric that is kept, the latest first.

    Args:
        run: the run.
        room: for how many characters there is room, with two spaces between.
    """
    found = []
    for name, values in reversed(run.metrics.items()):
        text = f"{_brief(name)} {number(values[-1])}"
        room -= len(text)
        if room < 0:
            break
        if room > _SHORTEST_CURVE and sum(map(math.isfinite, values)) > 1:
            curve = sparkline_text(values, min(_CURVE, room - 1))
            text += f" {curve}"
            room -= len(curve) + 1
        found.append(text)
        room -= 2
    return found


def program_of(journal: WatchedJournal, readings: Mapping[str, float], delivering: str | None) -> list[str]:
    """A program: its name, what it takes of the machine, and how far behind delivery is.

    Args:
        journal: its journal.
        readings: of its processes, see `ProgramReadings`.
        delivering: what delivery does, in a few words; None if there is none.
    """
    origin = journal.origin
    parts = [f"{_brief(origin.source.rpartition('/')[2] or origin.source)}  pid {origin.pid}"]
    if not journal.is_local:
        parts[0] += f" on {_brief(origin.host)}"
    if journal.unsure:
        parts.append("running or ended")
    elif not journal.alive:
        parts.append("ended")
    if "process_cpu_percentage" in readings:
        parts.append(f"cpu {readings['process_cpu_percentage']:.0f} %")
    if "process_memory_megabytes" in readings:
        parts.append(size(readings["process_memory_megabytes"] * 1e6))
    if delivery := delivery_of(journal, delivering):
        parts.append(delivery)
    return parts


def delivery_of(journal: WatchedJournal, delivering: str | None) -> str:
    """How far behind delivery is; empty if it is not.

    Args:
        journal: a journal.
        delivering: what delivery does, in a few words; None if there is none.
    """
    if not journal.caught_up and not journal.finished:
        return "reading its journal"
    if not journal.behind or (journal.delay < _SOON and not journal.error):
        return ""
    if delivering is None:
        return f"{size(journal.behind)} not delivered"
    why = printable(journal.error) or delivering
    return f"delivery {size(journal.behind)}, {_whole(journal.delay)} behind" + (f": {why}" if why else "")


def machine_of(readings: Mapping[str, float]) -> list[str]:
    """What is used of the machine: CPUs, memory, GPUs."""
    parts = []
    if "cpu_utilization_percentage" in readings:
        parts.append(f"cpu {readings['cpu_utilization_percentage']:.0f} %")
    if "system_memory_usage_percentage" in readings:
        used, share = readings["system_memory_usage_megabytes"], readings["system_memory_usage_percentage"]
        parts.append(f"memory {used / 1e3:.1f} GB ({share:.0f} %)")
    for card in range(len(readings)):
        shown = {
            "utilization": readings.get(f"gpu_{card}_utilization_percentage"),
            "memory": readings.get(f"gpu_{card}_memory_usage_megabytes"),
        }
        if shown["utilization"] is None and shown["memory"] is None:
            break
        busy = "" if shown["utilization"] is None else f" {shown['utilization']:.0f} %"
        memory = "" if shown["memory"] is None else f" {shown['memory'] / 1e3:.1f} GB"
        parts.append(f"gpu {card}{busy}{memory}")
    return parts


def counts_of(counts: Mapping[str, int]) -> str:
    """How many runs have which status.

    >>> counts_of({"FINISHED": 1200, "FAILED": 1})
    '1 failed, 1,200 finished'
    """
    order = ("RUNNING", "FAILED", "KILLED", "ENDED", "FINISHED")
    known = [(status, counts[status]) for status in order if counts.get(status)]
    others = [(status, count) for status, count in counts.items() if status not in order and count]
    return ", ".join(f"{count:,} {printable(status.lower())}" for status, count in [*known, *others])


def _count(loop: Loop) -> str:
    return f"{_brief(loop.name)} {_share(loop)}"


def _share(loop: Loop) -> str:
    return f"{loop.done:,}" + (f"/{loop.total:,.0f}" if loop.total and math.isfinite(loop.total) else "")


def _whole(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 60 else clock(seconds)


def _brief(text: str) -> str:
    return printable(text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…")

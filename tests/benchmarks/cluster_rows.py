"""How much longer a cluster takes where each task is a run of its own, delivery included.

As in `loop_row`, batches of plain and of tracked tasks take turns, and delivery is held still while plain ones run.
"""

from __future__ import annotations

import importlib.util
import math
import statistics
from collections.abc import Sequence
from contextlib import AbstractContextManager

from figures import Row, Target
from pairing import Child
from recording_rows import Announce, Effort
from workspace import Delivery, Workspace

#: Tasks of one batch, for two workers: a second of work.
_BATCH = 200
_KINDS = {"sleep": "tasks that wait for 10 ms", "work": "tasks that work for 10 ms"}


def clusters(workspace: Workspace, effort: Effort, announce: Announce) -> list[Row]:
    """The group `clusters`."""
    if importlib.util.find_spec("distributed") is None:
        announce("clusters are left out: pip install 'trackdsl[dask]'")
        return []
    count = effort.tasks // _BATCH
    rows = _measured(workspace, "online", count, "delivered to sqlite", announce, Target("figure", 0.15))
    return rows + _measured(workspace, "offline", max(2, count // 2), "recorded alone", announce)


def _measured(
    workspace: Workspace, mode: str, count: int, what: str, announce: Announce, target: Target | None = None
) -> list[Row]:
    spool, env = workspace.recording(mode)
    delivery = Delivery(spool)
    rows = []
    try:
        with Child("subject_dask", env=env, cwd=workspace.folder) as child:
            child.wait()
            for kind, name in _KINDS.items():
                title = f"{count * _BATCH:,} {name}, each a run, {what}"
                announce(title)
                with delivery.stopped() as running:
                    times = _batches(child, kind, running, count)
                note = "" if running.pids or mode == "offline" else "delivery was not running"
                rows.append(_row(title, _slowdowns(times), note, target))
                if target is not None:
                    rows.append(_row(f"noise: {name}, plain batches against each other", _slowdowns(times[::2])))
    finally:
        delivery.end()
    return rows


def _batches(child: Child, kind: str, delivering: AbstractContextManager[object], count: int) -> list[float]:
    """Plain batches at even positions, tracked ones between."""
    times = []
    for _ in range(count):
        times.append(child.ask(kind, _BATCH))
        with delivering:
            times.append(child.ask(f"tracked_{kind}", _BATCH))
    return [*times, child.ask(kind, _BATCH)]


def _slowdowns(times: Sequence[float]) -> list[float]:
    """Of every second batch against the mean of its two neighbours."""
    return [times[at] / ((times[at - 1] + times[at + 1]) / 2) - 1 for at in range(1, len(times) - 1, 2)]


def _row(name: str, slowdowns: Sequence[float], note: str = "", target: Target | None = None) -> Row:
    low, _, high = statistics.quantiles(slowdowns, n=4, method="inclusive")
    # As in `loop_row`.
    error = 1.2533 * (high - low) / 1.349 / math.sqrt(len(slowdowns))
    note = f"standard error {error * 100:.2f} %; {note}".rstrip("; ")
    return Row("clusters", name, statistics.median(slowdowns), "share", target=target, note=note)

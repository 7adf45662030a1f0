"""When and where the runs of a tree ran: a lane for each thread and task, and tracks in it if they overlap there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from heapq import heappop, heappush
from itertools import count
from typing import NamedTuple

from trackdsl.store_format.call_tag import call_of
from trackdsl.store_format.report.node import RunNode, walk

#: In characters; of the name of a thread or task.
_LONGEST_NAME = 100


@dataclass(frozen=True)
class Process:
    """A process that recorded runs.

    Attributes:
        host: the name of its machine; empty if it is not known, as for runs of plain MLflow.
        pid: its process id on that machine; 0 if it is not known.
    """

    host: str
    pid: int

    @property
    def name(self) -> str:
        """A readable name of the process."""
        if not self.pid:
            return self.host or "unknown process"
        return f"process {self.pid} on {self.host}" if self.host else f"process {self.pid}"


@dataclass(frozen=True)
class Lane:
    """A thread or task that recorded runs.

    Attributes:
        process: its process.
        thread, thread_id, task, task_id: see `Lane` in `_core/events.py`. All are empty for the main thread outside of
            tasks, and for runs of older versions, which did not record them.
    """

    process: Process
    thread: str = ""
    thread_id: int = 0
    task: str = ""
    task_id: int = 0

    @property
    def name(self) -> str:
        """The thread or task, for people; empty if none is recorded."""
        thread = self.thread or (f"thread {self.thread_id}" if self.thread_id else "")
        if self.task and thread:
            return f"{self.task} in {thread}"
        return self.task or thread


@dataclass(frozen=True)
class Span:
    """A run in a timeline.

    Attributes:
        run: the run.
        path: the names from the root of the tree to it.
        lane: the thread or task that it began in.
        track: the number of its track in the lane, from 0. Runs in one track are one after the other, or below each
            other in the tree.
        depth: how many runs of its track are around it.
        start, end: in milliseconds since 1970. A run that has not ended ends now, or with the last that is known of it
            and of those below it.
    """

    run: RunNode
    path: tuple[str, ...]
    lane: Lane
    track: int
    depth: int
    start: int
    end: int

    @property
    def process(self) -> Process:
        """The process that recorded the run."""
        return self.lane.process


def timeline(tree: RunNode, latest: Mapping[str, int] | None = None, *, now: int = 0) -> list[Span]:
    """The runs of a tree with their times, in the order they began, each after its parent.

    A run is in the lane of the thread or task that it began in. Where that is not recorded, and where several runs of
    one lane were open at the same time, they have tracks of their own.

    Args:
        tree: the tree.
        latest: the times of the last points of runs, by their ids, in milliseconds since 1970.
        now: the time that what still runs reaches, in the same unit. Once the tree has ended it counts no more: what is
            open in it then was left behind.

    Returns:
        the runs. Those without a start, which MLflow may have of others, are left out.
    """
    times = _times(tree, latest or {}, now if tree.status == "RUNNING" else 0)
    spans: list[Span] = []
    tracks: dict[Lane, _Tracks] = {}
    parents = {child.run_id: run.run_id for run in walk(tree) for child in run.children}
    numbers = count()
    # Earlier runs first, so that what follows in a track is never earlier; of runs in one millisecond, shorter first.
    waiting: list[tuple[int, int, int, RunNode, tuple[str, ...], Lane]] = [
        (0, 0, next(numbers), tree, (), Lane(Process("", 0)))
    ]
    while waiting:
        before, _, _, run, above, parent_lane = heappop(waiting)
        path, lane = (*above, run.name), _lane_of(run) or parent_lane
        start, end = times.get(run.run_id, (before, before))
        if run.run_id in times:
            track, depth = tracks.setdefault(lane, _Tracks(parents)).take(run.run_id, start, end)
            spans.append(Span(run, path, lane, track, depth, start, end))
        for child in run.children:
            begin, until = times.get(child.run_id, (start, start))
            heappush(waiting, (begin, until, next(numbers), child, path, lane))
    return spans


class _Open(NamedTuple):
    """A run in a track, with its times in milliseconds since 1970."""

    run_id: str
    start: int
    end: int


class _Tracks:
    """The tracks of one lane, each with its last run and the runs around that one, from the outermost.

    Args:
        parents: the parent of each run, by their ids.
    """

    def __init__(self, parents: Mapping[str, str]) -> None:
        self._parents = parents
        self._last: list[list[_Open]] = []
        self._of: dict[str, int] = {}
        # Tracks by when they are free, and those that may be free: a lane can have thousands.
        self._until: list[tuple[int, int]] = []
        self._free: list[int] = []

    def take(self, run_id: str, start: int, end: int) -> tuple[int, int]:
        """Put a run into the track of the nearest run above it if it is free there, else into the next free one.

        Inside another run, only the runs below that one have a track: others would look as if it had called them.

        Returns:
            the number of the track, and how many runs are around it there.
        """
        above = self._parents.get(run_id)
        while above is not None and above not in self._of:
            above = self._parents.get(above)
        wanted = -1 if above is None else self._of[above]
        around = _around(self._last[wanted], start) if above is not None else []
        if above is None or (around and not self._is_inside(run_id, start, end, around)):
            wanted, around = self._next_free(wanted, start), []
        if not around:
            heappush(self._until, (end, wanted))
        self._last[wanted] = [*around, _Open(run_id, start, end)]
        self._of[run_id] = wanted
        return wanted, len(around)

    def _next_free(self, after: int, start: int) -> int:
        while self._until and self._until[0][0] <= start:
            heappush(self._free, heappop(self._until)[1])
        skipped = []
        found = len(self._last)
        while self._free:
            number = heappop(self._free)
            if number <= after:
                skipped.append(number)
            elif not _around(self._last[number], start):  # Else it was taken since.
                found = number
                break
        for number in skipped:
            heappush(self._free, number)
        if found == len(self._last):
            self._last.append([])
        return found

    def _is_inside(self, run_id: str, start: int, end: int, around: list[_Open]) -> bool:
        if start < around[-1].start or end > around[-1].end:
            return False
        above = self._parents.get(run_id)
        while above is not None and above != around[-1].run_id:
            above = self._parents.get(above)
        return above is not None


def _around(runs: list[_Open], start: int) -> list[_Open]:
    """The runs among a track's last ones that have not ended at a given time."""
    open_ = len(runs)
    while open_ and runs[open_ - 1].end <= start:
        open_ -= 1
    return runs[:open_]


def _times(tree: RunNode, latest: Mapping[str, int], now: int) -> dict[str, tuple[int, int]]:
    """The start and end of each run in milliseconds since 1970."""
    times: dict[str, tuple[int, int]] = {}
    for run in reversed(list(walk(tree))):
        below = [times[child.run_id][1] for child in run.children if child.run_id in times]
        if run.start is None:
            continue
        start = round(datetime.fromisoformat(run.start).timestamp() * 1000)
        # A clock that was set back may put the end before the start.
        end = (
            max([start, latest.get(run.run_id, start), now if run.status == "RUNNING" else 0, *below])
            if run.duration is None
            else start + max(0, round(run.duration * 1000))
        )
        times[run.run_id] = (start, end)
    return times


def _lane_of(run: RunNode) -> Lane | None:
    call = call_of(run.tags)
    pid = call.get("pid")
    if not isinstance(pid, int):
        return None
    thread, task = (str(call.get(field) or "")[:_LONGEST_NAME] for field in ("thread", "task"))
    process = Process(str(call.get("host") or ""), pid)
    return Lane(process, thread, call.get("thread_id") or 0, task, call.get("task_id") or 0)

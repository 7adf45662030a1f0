"""When the runs of a tree ran: a row for each process, and in it a track for each of those that ran side by side."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from trackdsl.store_format.call_tag import call_of
from trackdsl.store_format.report.node import RunNode, walk


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
        """The process, for people."""
        if not self.pid:
            return self.host or "unknown process"
        return f"process {self.pid} on {self.host}" if self.host else f"process {self.pid}"


@dataclass(frozen=True)
class Span:
    """A run in a timeline.

    Attributes:
        run: the run.
        path: the names from the root of the tree to it.
        process: the process that recorded it.
        track: the number of its track in the process, from 0. Runs in one track are one after the other, or below each
            other in the tree.
        start, end: in milliseconds since 1970. A run that has not ended ends with the last that is known of it and of
            those below it.
    """

    run: RunNode
    path: tuple[str, ...]
    process: Process
    track: int
    start: int
    end: int


def timeline(tree: RunNode, latest: Mapping[str, int] | None = None) -> list[Span]:
    """The runs of a tree with their times, each after its parent.

    A run is in the track of its parent, unless another child is there at the same time: threads and tasks get tracks of
    their own this way.

    Args:
        tree: the tree.
        latest: the times of the last points of runs, by their ids, in milliseconds since 1970.

    Returns:
        the runs. Those without a start, which MLflow may have of others, are left out.
    """
    times = _times(tree, latest or {})
    spans: list[Span] = []
    tracks: dict[Process, _Tracks] = {}
    parents = {child.run_id: run.run_id for run in walk(tree) for child in run.children}
    waiting: list[tuple[RunNode, tuple[str, ...], Process, int | None]] = [(tree, (), Process("", 0), None)]
    while waiting:
        run, above, parent_process, parent_track = waiting.pop()
        path = (*above, run.name)
        process = _process_of(run) or parent_process
        track = parent_track if process == parent_process else None
        if run.run_id in times:
            start, end = times[run.run_id]
            track = tracks.setdefault(process, _Tracks(parents)).take(run.run_id, start, end, track)
            spans.append(Span(run, path, process, track, start, end))
        waiting += ((child, path, process, track) for child in reversed(run.children))
    return spans


class _Open(NamedTuple):
    """A run in a track, with its times in milliseconds since 1970."""

    run_id: str
    start: int
    end: int


class _Tracks:
    """The tracks of one process, each with its last run and the runs around that one, from the outermost.

    Args:
        parents: the parent of each run, by their ids.
    """

    def __init__(self, parents: Mapping[str, str]) -> None:
        self._parents = parents
        self._last: list[list[_Open]] = []

    def take(self, run_id: str, start: int, end: int, wanted: int | None) -> int:
        """Put a run into the wanted track if it is free, else into the first free one after it.

        Inside another run, only the runs below that one have a track: others would look as if it had called them.
        """
        number = wanted or 0
        while number < len(self._last):
            around = _around(self._last[number], start)
            if not around or (around[-1].start <= start and end <= around[-1].end and self._is_below(run_id, around)):
                break
            number += 1
        else:
            self._last.append([])
            number, around = len(self._last) - 1, []
        self._last[number] = [*around, _Open(run_id, start, end)]
        return number

    def _is_below(self, run_id: str, around: list[_Open]) -> bool:
        above = self._parents.get(run_id)
        while above is not None and above != around[-1].run_id:
            above = self._parents.get(above)
        return above is not None


def _around(runs: list[_Open], start: int) -> list[_Open]:
    """The runs among a track's last ones that have not ended at a given time."""
    count = len(runs)
    while count and runs[count - 1].end <= start:
        count -= 1
    return runs[:count]


def _times(tree: RunNode, latest: Mapping[str, int]) -> dict[str, tuple[int, int]]:
    """The start and end of each run in milliseconds since 1970."""
    times: dict[str, tuple[int, int]] = {}
    for run in reversed(list(walk(tree))):
        below = [times[child.run_id][1] for child in run.children if child.run_id in times]
        if run.start is None:
            continue
        start = round(datetime.fromisoformat(run.start).timestamp() * 1000)
        # A clock that was set back may put the end before the start.
        end = (
            max([start, latest.get(run.run_id, start), *below])
            if run.duration is None
            else start + max(0, round(run.duration * 1000))
        )
        times[run.run_id] = (start, end)
    return times


def _process_of(run: RunNode) -> Process | None:
    call = call_of(run.tags)
    pid = call.get("pid")
    return Process(str(call.get("host") or ""), pid) if isinstance(pid, int) else None

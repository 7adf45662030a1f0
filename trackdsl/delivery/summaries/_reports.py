"""Makes the report of a root run that has ended, from what its store has: `trackdsl/report.html`.

The same run gives the same page under the same name, so it may be made again. While it is made, nothing is delivered:
so it is given up as soon as a program waits, and made later.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from trackdsl._core.readable import moment
from trackdsl._core.version import __version__
from trackdsl.delivery.store._errors import Refused
from trackdsl.delivery.store._sink import Sink, TreeRun
from trackdsl.store_format.report.files import Reading
from trackdsl.store_format.report.material import PATH, Bounds, collect
from trackdsl.store_format.report.node import Node
from trackdsl.store_format.tags import PARENT_TAG, SUPERSEDED_TAG

#: If a tree has more runs, only the first ones are shown.
MOST_RUNS = 12_000
#: A run with fewer child runs has no report: MLflow's page of it shows as much.
_FEWEST_CHILDREN = 2
#: About how many points of each metric are read, and how many files of each run are listed.
_MOST_POINTS, _MOST_FILES = 2000, 100
#: Where each question is a request to a server, fewer are asked.
_REMOTE = Bounds(curves=80, runs_with_files=30, reading=Reading(largest=5_000_000, everything=20_000_000))


class Interrupted(Exception):
    """A program waits for delivery, so that the report has to wait."""


def make_report(sink: Sink, run_id: str, waits: Callable[[], bool]) -> bool:
    """Write the report of a root run, if it has one.

    Args:
        sink: the store.
        run_id: the store's id of the run.
        waits: whether a program waits for delivery.

    Returns:
        whether there is nothing more to do: the report is there, or there will be none. False while the run is running.

    Raises:
        Interrupted: a program waits.
        Unavailable: the store cannot be reached.
        Refused: the run was deleted a moment ago, or the store does not take the report.
    """
    runs = sink.tree(run_id, MOST_RUNS)
    if not runs or runs[0].tags.get(PARENT_TAG):
        return True
    if runs[0].status == "RUNNING" or not runs[0].end:
        return False
    tree = _tree(runs)
    if len(tree.children) >= _FEWEST_CHILDREN:
        _write(sink, tree, runs, waits)
    return True


def _write(sink: Sink, tree: Node, runs: list[TreeRun], waits: Callable[[], bool]) -> None:
    asked = _InterruptibleSource(sink, waits)
    remote = sink.files(runs[0].run_id) is not None
    material = collect(tree, asked, _REMOTE if remote else Bounds())
    material.experiment = sink.experiment_name(runs[0].experiment_id)
    material.version, material.made = __version__, time.time_ns() // 1_000_000
    if len(runs) == MOST_RUNS:
        material.left_out.append(f"All but the first {MOST_RUNS:,} runs.")
    asked.check_interrupt()
    # Here, so that delivery begins without it: a report is made when nothing else is left to do.
    from trackdsl.store_format.report.page import report_html

    page = report_html(material)
    asked.check_interrupt()
    sink.write_text(runs[0].run_id, page, PATH)
    sink.commit()


def _tree(runs: list[TreeRun]) -> Node:
    """The tree of runs, of which the first is the root, without superseded runs and those below them."""
    nodes = {run.run_id: _node(run) for run in runs}
    for run in sorted(runs[1:], key=lambda run: (run.start, run.tags.get("trackdsl.id", ""), run.run_id)):
        parent = nodes.get(run.tags.get(PARENT_TAG, ""))
        if parent is not None and not run.tags.get(SUPERSEDED_TAG):
            parent.children.append(nodes[run.run_id])
    return nodes[runs[0].run_id]


def _node(run: TreeRun) -> Node:
    return Node(
        run_id=run.run_id,
        name=run.name,
        status=run.status,
        duration=(run.end - run.start) / 1000 if run.end and run.start else None,
        start=moment(run.start) if run.start else None,
        params=run.params,
        metrics=run.metrics,
        tags=run.tags,
    )


@dataclass(frozen=True)
class _File:
    path: str
    size: int | None


class _InterruptibleSource:
    """A sink that is asked for a report, as long as no program waits. What it refuses to give is not shown.

    Args:
        sink: the store.
        waits: whether a program waits.
    """

    def __init__(self, sink: Sink, waits: Callable[[], bool]) -> None:
        self._sink = sink
        self._waits = waits

    def check_interrupt(self) -> None:
        """Check that no program waits.

        Raises:
            Interrupted: one does.
        """
        if self._waits():
            raise Interrupted

    def points(self, run_id: str, key: str) -> Sequence[tuple[int, float, int]]:
        """See `Source`."""
        self.check_interrupt()
        try:
            return self._sink.points(run_id, key, _MOST_POINTS)
        except Refused:
            return []

    def files(self, run_id: str) -> Sequence[_File]:
        """See `Source`."""
        self.check_interrupt()
        try:
            return [_File(path, size) for path, size in self._sink.list_files(run_id, _MOST_FILES)]
        except Refused:
            return []

    def content(self, run_id: str, path: str) -> bytes | None:
        """See `Source`."""
        self.check_interrupt()
        try:
            return self._sink.read_artifact(run_id, path)
        except Refused:
            return None

"""What a report shows, chosen and bounded from a tree and from what its store can be asked for."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from trackdsl.store_format.changes.stored import PATH as CHANGES_PATH
from trackdsl.store_format.changes.stored import SOURCE_PATH, Stored, decode, decode_texts
from trackdsl.store_format.report.files import FileStore, ListedFile, Reading, choose_files
from trackdsl.store_format.report.node import RunNode, walk
from trackdsl.store_format.report.shown_files import ShownFile
from trackdsl.store_format.report.thinning import thinned

#: The path of a report in a run's artifacts, and of what it shows if it is there.
PATH = "trackdsl/report.html"
SYSTEM = "system/"
_MOST_SYSTEM = 6
#: The points of one curve that are shown.
_POINTS, _SYSTEM_POINTS = 120, 240
_MOST_LISTED = 200
#: How many runs source comes from.
_MOST_HOLDERS = 10
_NUMBERS = re.compile(r"\d+")

#: Step, value, time in milliseconds since 1970.
Point = tuple[int, float, int]


class Source(FileStore, Protocol):
    """The store of a report: what it is asked for besides the tree."""

    def points(self, run_id: str, key: str) -> Sequence[Point]:
        """The points of a metric, all or an even choice of them."""


@dataclass(frozen=True)
class Bounds:
    """Limits for what a store is asked for.

    Attributes:
        curves: how many metrics are asked for with their points.
        runs_with_files: how many runs are asked for their files.
        reading: how much of files is read.
    """

    curves: int = 300
    runs_with_files: int = 200
    reading: Reading = field(default_factory=Reading)


@dataclass(frozen=True)
class Curve:
    """A metric of a run with its points.

    Attributes:
        run: the run.
        key: the name of the metric.
        points: ordered by step and time, and thinned.
        count: how many there are in the store's answer.
    """

    run: RunNode
    key: str
    points: Sequence[Point]
    count: int


@dataclass
class Material:
    """The content of a report.

    Attributes:
        tree: the run and those below it.
        experiment: the name of its MLflow experiment; empty if it is not known.
        version: of trackdsl.
        made: when the report was made, in milliseconds since 1970.
        curves: metrics with several points.
        system: system metrics of the root run, or of the first run that has some.
        files: files whose content is shown.
        listed: files that are named only.
        changes: what changed since the last comparable run, and what the program consists of; None if it is not known.
        sources: the source of functions, and the list of packages, by their hashes.
        left_out: sentences about what the report does not show.
    """

    tree: RunNode
    experiment: str = ""
    version: str = ""
    made: int = 0
    curves: list[Curve] = field(default_factory=list)
    system: list[Curve] = field(default_factory=list)
    files: list[ShownFile] = field(default_factory=list)
    listed: list[ListedFile] = field(default_factory=list)
    changes: Stored | None = None
    sources: Mapping[str, str] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)


def collect(tree: RunNode, source: Source, bounds: Bounds | None = None) -> Material:
    """Choose what a report of a tree shows, and ask the store for it.

    Args:
        tree: the tree.
        source: the store.
        bounds: how much it is asked for.
    """
    bounds = bounds or Bounds()
    material = Material(tree)
    runs = list(walk(tree))
    ordered = _rare_first(runs)
    _add_curves(material, ordered, source, bounds.curves)
    _add_system(material, runs, source)
    _add_files(material, ordered, source, bounds)
    material.changes = decode(source.content(tree.run_id, CHANGES_PATH))
    if material.changes is not None:
        material.sources = _sources(material.changes, source)
    return material


def _sources(changes: Stored, source: Source) -> dict[str, str]:
    """What is kept of the program, from the runs that keep it."""
    found: dict[str, str] = {}
    for run_id in list(dict.fromkeys(changes.kept_in.values()))[:_MOST_HOLDERS]:
        if re.fullmatch(r"[A-Za-z0-9_-]{1,64}", run_id):
            texts = decode_texts(source.content(run_id, SOURCE_PATH))
            found |= {key: text for key, text in texts.items() if changes.kept_in.get(key) == run_id}
    return found


def _rare_first(runs: Sequence[RunNode]) -> list[RunNode]:
    """The runs in their order, but those of kinds with fewer runs first.

    So hundreds of similar runs do not push the training after them off the page.
    """
    kinds = [_NUMBERS.sub("#", run.name) for run in runs]
    counts = Counter(kinds)
    return [run for _, run in sorted(zip(kinds, runs, strict=True), key=lambda pair: counts[pair[0]])]


def _add_curves(material: Material, runs: Sequence[RunNode], source: Source, most: int) -> None:
    wanted = [(run, key) for run in runs for key in sorted(run.metrics) if not key.startswith(SYSTEM)]
    for run, key in wanted[:most]:
        points = sorted(source.points(run.run_id, key))
        if len({step for step, _, _ in points}) > 1:
            material.curves.append(Curve(run, key, thinned(points, _POINTS), len(points)))
    if len(wanted) > most:
        material.left_out.append(f"The curves of {len(wanted) - most:,} more metrics; their last values are shown.")


def _add_system(material: Material, runs: Sequence[RunNode], source: Source) -> None:
    for run in runs:
        keys = sorted((key for key in run.metrics if key.startswith(SYSTEM)), key=_importance)
        for key in keys[:_MOST_SYSTEM]:
            points = sorted(source.points(run.run_id, key), key=lambda point: point[2])
            # A network or a card that was not used needs no curve.
            if len(points) > 1 and any(value for _, value, _ in points):
                material.system.append(Curve(run, key, thinned(points, _SYSTEM_POINTS), len(points)))
        if material.system:
            return


def _importance(key: str) -> tuple[int, str]:
    """Percentages come first: they say at a glance whether a machine was busy."""
    order = ("cpu_utilization", "gpu", "process_cpu", "memory_usage_percentage", "process_memory", "network", "disk")
    return next((at for at, part in enumerate(order) if part in key), len(order)), key


def _add_files(material: Material, runs: Sequence[RunNode], source: Source, bounds: Bounds) -> None:
    chosen = choose_files(runs[: bounds.runs_with_files], source, bounds.reading)
    material.files, material.listed = chosen.shown, chosen.listed
    if len(runs) > bounds.runs_with_files:
        material.left_out.append(f"The files of {len(runs) - bounds.runs_with_files:,} more runs.")
    if len(material.listed) > _MOST_LISTED:
        material.left_out.append(f"The names of {len(material.listed) - _MOST_LISTED:,} more files.")
        del material.listed[_MOST_LISTED:]

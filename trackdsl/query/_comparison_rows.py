"""The rows of a comparison as people see them, in a terminal, a notebook and a page."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from trackdsl.query import _shown
from trackdsl.query._changes import RunChanges, change_line
from trackdsl.query._compared import ComparedRuns, ComparedStage, Difference
from trackdsl.store_format.changes.compare import numbered

#: The name of the row with the time of the runs themselves.
_WHOLE = "whole run"
#: The kinds of changes of a program; the others are rows.
OF_PROGRAM = ("dataset", "source", "package", "python", "patch")
NONE = "-"


@dataclass(frozen=True)
class ShownRow:
    """One row of a comparison as people see it.

    Attributes:
        name: what it is about; parameters and metrics of a stage begin with its path.
        cells: a text for each run, not escaped.
        deltas: how much each is above the first, as text; empty where there is no such number.
    """

    name: str
    cells: tuple[str, ...]
    deltas: tuple[str, ...]


@dataclass(frozen=True)
class ShownRows:
    """The rows of one kind.

    Attributes:
        kind: the kind.
        rows: the rows.
        hidden: how many more there are.
    """

    kind: str
    rows: Sequence[ShownRow]
    hidden: int


def sections(comparison: ComparedRuns, most: int, most_times: int) -> list[ShownRows]:
    """The rows by their kinds, those of the runs themselves first; kinds without rows are left out.

    Args:
        comparison: what is shown.
        most: the largest number of rows that stages have in one kind.
        most_times: the largest number of rows with times; those that differ most are chosen.
    """
    names = stage_names(comparison.stages)
    shown = []
    for kind in ("params", "metrics"):
        below = [
            (f"{names[at]}: {comparison.shown_name(one.name)}", one)
            for at, stage in enumerate(comparison.stages)
            for one in stage.differences
            if one.kind == kind
        ]
        rows = [_row(comparison.shown_name(one.name), one) for one in comparison if one.kind == kind]
        rows += [_row(name, one) for name, one in below[:most]]
        shown.append(ShownRows(kind, rows, max(0, len(below) - most)))
    shown += [_statuses(comparison, names, most), _times(comparison, names, most_times)]
    for kind in ("source", "tags"):
        shown.append(ShownRows(kind, [_row(one.name, one) for one in comparison if one.kind == kind], 0))
    return [one for one in shown if one.rows]


def stage_names(stages: Sequence[ComparedStage]) -> list[str]:
    """The label of each stage: its path, numbered if several stages have the same one."""
    return [label or _WHOLE for label in numbered([stage.path for stage in stages])]


def program_lines(changes: RunChanges) -> list[str]:
    """What changed in the program, one line each: datasets, source, packages, Python, what is not committed."""
    lines = [change_line(change) for change in changes if change.kind in OF_PROGRAM]
    if changes.parts_at:
        named = ", ".join(map(_shown.printable, changes.parts_by))
        lines.append(f"The runs part at {_shown.printable(changes.parts_at)}: {named}")
    return lines


def is_empty(comparison: ComparedRuns) -> bool:
    """Whether nothing differs, except times."""
    return not (
        comparison.differences
        or any(stage.differs for stage in comparison.stages)
        or any(program_lines(changes) for changes in comparison.changes)
    )


def rest(comparison: ComparedRuns) -> str:
    """A text with the number of values that are the same; empty if there are none."""
    same = comparison.same
    return f"{same:,} more{_of_runs(comparison)} {'is' if same == 1 else 'are'} the same" if same else ""


def same_values(comparison: ComparedRuns) -> str:
    """A sentence with the number of values that are the same."""
    same, whose = comparison.same, _of_runs(comparison)
    return f"1 value{whose} is the same." if same == 1 else f"{same:,} values{whose} are the same."


def _of_runs(comparison: ComparedRuns) -> str:
    """Whose values are counted as the same: not those of the stages."""
    return " of the runs themselves" if len(comparison.stages) > 1 else ""


def not_compared(comparison: ComparedRuns) -> str:
    """A sentence that says of which runs the program was not compared; empty if it was of all."""
    known = len(comparison.changes)
    if not 0 < known < len(comparison.runs) - 1:
        return ""
    return f"What changed in the program is compared for the first {known + 1} runs only."


def _row(name: str, one: Difference) -> ShownRow:
    deltas = (f"{delta:+.3g}" if delta else "" for delta in one.deltas)
    return ShownRow(name, tuple(map(_cell, one.values)), tuple(deltas))


def _cell(value: Any) -> str:
    if value is None:
        return NONE
    return _shown.number(value) if isinstance(value, float) else str(value)


def _statuses(comparison: ComparedRuns, names: Sequence[str], most: int) -> ShownRows:
    """Stages that some of the runs do not have, or that ended otherwise."""
    differing = [
        (name, stage) for name, stage in zip(names, comparison.stages, strict=True) if len(set(stage.statuses)) > 1
    ]
    rows = [
        ShownRow(name, tuple(status or NONE for status in stage.statuses), ("",) * len(stage.statuses))
        for name, stage in differing[:most]
    ]
    return ShownRows("stages", rows, len(differing) - len(rows))


def _times(comparison: ComparedRuns, names: Sequence[str], most: int) -> ShownRows:
    known = [at for at, stage in enumerate(comparison.stages) if len(set(stage.seconds)) > 1]
    below = sorted(known, key=lambda at: (at != 0, -spread(comparison.stages[at])))[:most]
    rows = [_time(names[at], comparison.stages[at].seconds) for at in sorted(below)]
    return ShownRows("time", rows, len(known) - len(rows))


def spread(stage: ComparedStage) -> float:
    """The spread of the times of a stage, in seconds. In a run without the stage it counts as zero."""
    seconds = [one or 0.0 for one in stage.seconds]
    return max(seconds) - min(seconds)


def _time(name: str, seconds: Sequence[float | None]) -> ShownRow:
    first = seconds[0]
    cells = tuple(NONE if one is None else _shown.duration(one) for one in seconds)
    deltas = ("", *(_time_delta(first, one) for one in seconds[1:]))
    return ShownRow(name, cells, deltas)


def _time_delta(first: float | None, one: float | None) -> str:
    if first is None or one is None or first == one:
        return ""
    return f"{'+' if one > first else '-'}{_shown.duration(abs(one - first))}"


def shown_diffs(changes: RunChanges) -> Iterator[tuple[str, list[str]]]:
    """The diffs of what changed in the program, each with what it is about, and the stages that it concerns."""
    stages = {change.name: [path for path in change.stages if path] for change in changes.changes}
    for name, diff in changes.diffs.items():
        where = stages.get(name, [])
        named = f" ({', '.join(where[:3])}{', …' if len(where) > 3 else ''})" if where else ""
        yield f"{name}{named}", diff.split("\n")

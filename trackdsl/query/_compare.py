"""`compare`: the differences between runs."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from trackdsl.errors import QueryError
from trackdsl.query import _shown
from trackdsl.query._rows import FoundRun
from trackdsl.query._run_lookup import asked_for

if TYPE_CHECKING:
    from pandas import DataFrame
    from rich.table import Table

#: The tags that say which code a run recorded, and their names here; see `FoundRun.value`.
_SOURCE = {
    "mlflow.source.name": "entry point",
    "mlflow.source.git.commit": "commit",
    "mlflow.source.git.branch": "branch",
    "trackdsl.git.dirty": "changes not committed",
    "trackdsl.function": "function",
    "trackdsl.source.file": "file",
    "trackdsl.source.hash": "source hash",
    "trackdsl.version": "trackdsl",
}
#: The prefixes of tags that are not the user's own.
_NOT_OF_USERS = ("mlflow.", "trackdsl.")
_WIDE = 10_000


@dataclass(frozen=True)
class Difference:
    """One name, with the value of each run.

    Attributes:
        kind: `params`, `metrics`, `source` or `tags`.
        name: the name.
        values: the value of each run, in order; None if the run has none.
    """

    kind: str
    name: str
    values: tuple[Any, ...]

    @property
    def differs(self) -> bool:
        """Whether the values are not all the same."""
        first = self.values[0]
        return not all(_same(first, value) for value in self.values[1:])


@dataclass(frozen=True, repr=False)
class Comparison:
    """The differences between runs. It can be printed, and `frame` has them as a data frame.

    Attributes:
        runs: MLflow's ids, in the given order.
        names: the names of the runs.
        labels: the titles of their columns: the names, with the first characters of the id if names are equal.
        differences: the differences.
        same: the number of values that are the same in all runs, and not in `differences`.
    """

    runs: tuple[str, ...]
    names: tuple[str, ...]
    labels: tuple[str, ...]
    differences: tuple[Difference, ...]
    same: int

    @property
    def frame(self) -> DataFrame:
        """A data frame with a row for each difference, indexed by kind and name, and a column for each run."""
        import pandas as pd

        index = pd.MultiIndex.from_tuples([(one.kind, one.name) for one in self.differences], names=["kind", "name"])
        rows = [list(one.values) for one in self.differences]
        return pd.DataFrame(rows, index=index, columns=list(self.labels), dtype=object)

    def __iter__(self) -> Iterator[Difference]:
        return iter(self.differences)

    def __len__(self) -> int:
        return len(self.differences)

    def __repr__(self) -> str:
        return f"<Comparison of {len(self.runs)} runs, {len(self.differences)} differences>"

    def __str__(self) -> str:
        from rich.console import Console

        console = Console(file=io.StringIO(), width=_WIDE, color_system=None, highlight=False, legacy_windows=False)
        console.print(self)
        assert isinstance(console.file, io.StringIO)
        return "\n".join(line.rstrip() for line in console.file.getvalue().splitlines())

    def __rich__(self) -> Table | str:
        from rich.table import Table
        from rich.text import Text

        if not self.differences:
            return f"No differences; {self.same} values are the same."
        table = Table(show_edge=False, pad_edge=False, caption=self._rest() or None, caption_justify="left")
        table.add_column("", overflow="fold")
        for label in self.labels:
            table.add_column(Text(_shown.printable(label)), overflow="fold")
        kind = ""
        for one in self.differences:
            if one.kind != kind:
                kind = one.kind
                table.add_row(Text(kind, "bold"))
            table.add_row(Text(f"  {_shown.printable(one.name)}"), *(Text(_cell(value)) for value in one.values))
        return table

    def _repr_html_(self) -> str:
        head = "".join(f"<th>{_shown.markup(label)}</th>" for label in self.labels)
        rows = "".join(
            f"<tr><td>{one.kind}</td><td>{_shown.markup(one.name)}</td>"
            + "".join(f"<td>{_shown.markup(_cell(value))}</td>" for value in one.values)
            + "</tr>"
            for one in self.differences
        )
        table = f"<table><thead><tr><th></th><th></th>{head}</tr></thead><tbody>{rows}</tbody></table>"
        return f"{table}<p>{self._rest() or 'nothing left out'}</p>"

    def _rest(self) -> str:
        return f"{self.same} more {'is' if self.same == 1 else 'are'} the same" if self.same else ""


def compare(*runs: Any, all: bool = False, tracking_uri: str | None = None) -> Comparison:  # noqa: A002 - the name that users expect
    """The differences between runs: parameters, metrics, source (commit, entry point, source hash, …) and your tags.

    Args:
        *runs: two or more runs: each a `Run`, MLflow's or trackdsl's id of it or its first characters, its name, or an
            MLflow run.
        all: also include values that are the same in all runs.
        tracking_uri: the store; by default that of the first `Run`, else the configured one.

    Returns:
        the comparison, which can be printed; its `frame` is a data frame.

    Raises:
        RunNotFound: there is no such run.
        QueryError: fewer than two runs were given.

    Example:
        >>> compare("a8c1", "77fe").frame  # doctest: +SKIP
    """
    if len(runs) == 1 and isinstance(runs[0], (list, tuple)):
        runs = tuple(runs[0])
    if len(runs) < 2:
        raise QueryError("compare takes two runs or more: compare(first, second).", argument="runs")
    with asked_for(runs, tracking_uri) as (_, found):
        lines = list(_lines(found))
    shown = tuple(line for line in lines if all or line.differs)
    ids, names = tuple(run.run_id for run in found), tuple(run.name for run in found)
    return Comparison(ids, names, _labels(found), shown, len(lines) - len(shown))


def _lines(runs: Sequence[FoundRun]) -> Iterator[Difference]:
    yield from _of_kind("params", [run.params for run in runs])
    yield from _of_kind("metrics", [run.metrics for run in runs])
    yield from _of_kind("source", [_source(run) for run in runs], _SOURCE.values())
    yield from _of_kind("tags", [_own_tags(run) for run in runs])


def _of_kind(kind: str, held: Sequence[Mapping[str, Any]], order: Any = None) -> Iterator[Difference]:
    names = {name for mapping in held for name in mapping}
    for name in sorted(names) if order is None else [one for one in order if one in names]:
        yield Difference(kind, name, tuple(mapping.get(name) for mapping in held))


def _source(run: FoundRun) -> dict[str, str]:
    found = {name: run.value("tags", tag) for tag, name in _SOURCE.items()}
    return {name: str(text) for name, text in found.items() if text is not None}


def _own_tags(run: FoundRun) -> dict[str, str]:
    return {key: value for key, value in run.tags.items() if not key.startswith(_NOT_OF_USERS)}


def _labels(runs: Sequence[FoundRun]) -> tuple[str, ...]:
    names = [run.name or _shown.short(run.run_id) for run in runs]
    if len(set(names)) == len(names):
        return tuple(names)
    shorts = [f"{name} {_shown.short(run.run_id)}" for name, run in zip(names, runs, strict=True)]
    return tuple(shorts)


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, float) and isinstance(other, float) and math.isnan(one) and math.isnan(other):
        return True
    return bool(one == other)


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    return _shown.number(value) if isinstance(value, float) else _shown.printable(str(value))

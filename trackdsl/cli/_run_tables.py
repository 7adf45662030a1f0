"""The tables of `trackdsl ls` and `show`. They fit 80 columns: ids are never cut, long names are."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from trackdsl.cli._console import output
from trackdsl.query import _shown
from trackdsl.query._rows import FoundRun

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text

_SHOWN = 6
_LONG = 40
_LONGEST_NAME = 60
#: The length of MLflow's ids, in characters.
_WIDTH_OF_ID = 32
#: Narrower terminals get the most important columns only; of the others, nothing but their titles would be left.
_NARROW = 64
#: Columns that are never narrower than their content; the others share the rest of the width.
_WHOLE = ("run", "status", "started", "took")


def table_of(runs: Sequence[FoundRun], experiments: Mapping[str, str]) -> Table:
    """A table with a row for each run.

    Args:
        runs: in order; at least one.
        experiments: names by MLflow's id.
    """
    from rich.table import Table

    several = len({run.experiment_id for run in runs}) > 1
    titles = ["run", "name", *(["experiment"] if several else []), "status", "started", "took", "params", "metrics"]
    if output().width < _NARROW:
        titles = ["run", "name", "status", "took"]
    rows = [[_cells(run, experiments)[title] for title in titles] for run in runs]
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for title, cells in zip(titles, zip(*rows, strict=True), strict=True):
        width = max(len(title), *(cell.cell_len for cell in cells))
        whole = title in _WHOLE
        table.add_column(title, overflow="ellipsis", no_wrap=whole, min_width=width if whole else min(width, 7))
    for row in rows:
        table.add_row(*row)
    return table


def print_run(run: Mapping[str, Any], traceback: str | None) -> None:
    """Print everything that MLflow has of a run, except files.

    Args:
        run: as `trackdsl show --json` prints it, and `call`: the fields of its tag `trackdsl.call`.
        traceback: of the exception that ended it, with its line breaks.
    """
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(overflow="fold")
    table.add_column(overflow="fold", min_width=_WIDTH_OF_ID)
    for field in ("run_id", "id", "name", "experiment", "status", "start", "duration", "parent", "path"):
        value = _shown.duration(run[field]) if field == "duration" else run[field]
        if value is not None:
            table.add_row(field, Text(_shown.printable(str(value))))
    for kind in ("params", "metrics", "call", "tags"):
        if run[kind]:
            table.add_row(Text(f"\n{kind}", "bold"))
        for name, value in run[kind].items():
            shown = repr(value) if kind == "metrics" else _shown.printable(str(value))
            table.add_row(Text(f"  {_shown.printable(name)}"), Text(shown))
    output().print(table)
    if traceback is not None:
        output().print(Text("\nexception", "bold"))
        for line in traceback.rstrip("\n").split("\n"):
            output().print(Text(_shown.printable(line.replace("\t", "    "))), soft_wrap=True)


def _cells(run: FoundRun, experiments: Mapping[str, str]) -> dict[str, Text]:
    from rich.text import Text

    name = run.name if len(run.name) <= _LONGEST_NAME else f"{run.name[: _LONGEST_NAME - 1]}…"
    return {
        "run": Text(_shown.short(run.run_id)),
        "name": _line(name),
        "experiment": _line(experiments.get(run.experiment_id, "")),
        "status": Text(run.status, _shown.colour(run.status)),
        "started": Text(_local(run.start)),
        "took": Text(_shown.duration(run.duration) if run.end is not None else "-"),
        "params": _lines(f"{_shown.printable(key)}={_brief(text)}" for key, text in sorted(run.params.items())),
        "metrics": _lines(
            f"{_shown.printable(key)} {_shown.number(value)}" for key, value in sorted(run.metrics.items())
        ),
    }


def _line(text: str) -> Text:
    from rich.text import Text

    return Text(_shown.printable(text), no_wrap=True, overflow="ellipsis")


def _lines(texts: Iterable[str]) -> Text:
    from rich.text import Text

    found = list(texts)
    few = found if len(found) <= _SHOWN else [*found[:_SHOWN], f"… {len(found) - _SHOWN} more"]
    return Text("\n".join(few), no_wrap=True, overflow="ellipsis")


def _local(milliseconds: int | None) -> str:
    """A time in a readable form, without the year if it is this year."""
    try:
        time = None if milliseconds is None else datetime.fromtimestamp(milliseconds / 1000)
    except (OverflowError, ValueError, OSError):
        time = None
    if time is None:
        return "-"
    return f"{time:%m-%d %H:%M}" if time.year == datetime.now().year else f"{time:%Y-%m-%d}"


def _brief(text: str) -> str:
    return _shown.printable(text if len(text) <= _LONG else f"{text[: _LONG - 1]}…")

"""The tables of `trackdsl ls` and `show`. They fit 80 columns: ids are never cut, long names of runs are."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from trackdsl.cli._console import output
from trackdsl.query import _shown
from trackdsl.query._rows import FoundRun
from trackdsl.store_format.original_names import with_originals

if TYPE_CHECKING:
    from rich.console import Group, RenderableType
    from rich.table import Table
    from rich.text import Text

_SHOWN = 6
_LONG = 40
_LONGEST_NAME = 60
#: The length of MLflow's ids, in characters, the room between a name and its value, and the least for names next to it.
_WIDTH_OF_ID, _GAP, _NAMES = 32, 2, 20
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
        run: as `trackdsl show --json` prints it, with the original names of parameters and metrics, and `call`: the
            fields of its tag `trackdsl.call`.
        traceback: of the exception that ended it, with its line breaks.
    """
    from rich.text import Text

    room = output().width - _WIDTH_OF_ID - _GAP
    output().print(_beside(_rows_of(run), room) if room >= _NAMES else _below(_rows_of(run)))
    if traceback is not None:
        output().print(Text("\nexception", "bold"))
        for line in traceback.rstrip("\n").split("\n"):
            output().print(Text(_shown.printable(line.replace("\t", "    "))), soft_wrap=True)


def _rows_of(run: Mapping[str, Any]) -> Iterator[tuple[str, str | None]]:
    """The names of what MLflow has of a run, with the values; a title has None."""
    for field in ("run_id", "id", "name", "experiment", "status", "start", "duration", "parent", "path"):
        value = _shown.duration(run[field]) if field == "duration" else run[field]
        if value is not None:
            yield field, _shown.printable(str(value))
    for kind in ("params", "metrics", "call", "tags"):
        if run[kind]:
            yield kind, None
        for name, value in run[kind].items():
            shown = repr(value) if kind == "metrics" else _shown.printable(str(value))
            yield f"  {_shown.printable(name)}", shown


def _beside(rows: Iterable[tuple[str, str | None]], room: int) -> Table:
    """Each value next to its name, for which there is this room."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(overflow="fold", max_width=min(room, output().width // 2))
    table.add_column(overflow="fold", min_width=_WIDTH_OF_ID)
    for name, value in rows:
        table.add_row(*([Text(f"\n{name}", "bold")] if value is None else [Text(name), Text(value)]))
    return table


def _below(rows: Iterable[tuple[str, str | None]]) -> Group:
    """Each value that is too long for the line of its name below it."""
    from rich.console import Group
    from rich.padding import Padding
    from rich.text import Text

    parts: list[RenderableType] = []
    for name, value in rows:
        if value is None:
            parts.append(Text(f"\n{name}", "bold"))
        elif (line := Text(f"{name}{' ' * _GAP}{value}")).cell_len <= output().width:
            parts.append(line)
        else:
            indent = len(name) - len(name.lstrip())
            parts += [
                Padding(Text(text, overflow="fold"), (0, 0, 0, left))
                for text, left in ((name.lstrip(), indent), (value, indent + 2))
            ]
    return Group(*parts)


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
        "params": _lines(
            f"{_shown.printable(key)}={_brief(text)}" for key, text in with_originals(run.params, run).items()
        ),
        "metrics": _lines(
            f"{_shown.printable(key)} {_shown.number(value)}" for key, value in with_originals(run.metrics, run).items()
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

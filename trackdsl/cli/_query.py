"""`trackdsl ls`, `show`, `tree` and `compare`: looking at runs as MLflow has them.

What `--json` prints is stable: fields may come, none go. A number that is none (NaN) is `null` there.

| command | structure |
|---|---|
| `ls` | `{"runs": [run, …], "more": whether there are more than `--max`}` |
| `show` | a run: `run_id`, `id`, `name`, `experiment`, `status`, `start`, `end`, `duration`, `parent`, `path`, `params`, `metrics`, `tags`; times in ISO 8601, seconds, parameters as text |
| `tree` | `run_id`, `id`, `name`, `status`, `start`, `duration`, `params`, `metrics`, `tags`, `children` |
| `compare` | `{"runs": [{"run_id", "name"}, …], "differences": [{"kind", "name", "values"}, …], "same": how many}` |
"""  # noqa: E501 - a table's rows cannot be broken

from __future__ import annotations

import contextlib
import json
import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

import click

from trackdsl._http import bound_requests
from trackdsl.delivery._process import prepare_environment
from trackdsl.errors import QueryError, TrackingServerError
from trackdsl.query import _shown
from trackdsl.query._compare import Comparison, compare
from trackdsl.query._found import FoundRun
from trackdsl.query._frame import paths_of
from trackdsl.query._one import asked_for
from trackdsl.query._runs import Question
from trackdsl.query._store import opened
from trackdsl.query._tree import RunTree, tree

if TYPE_CHECKING:
    from rich.console import Console

#: Wide enough that nothing is broken where the output goes to a file or another program.
_WIDTH_OF_PIPES = 1000
_SHOWN = 6
_LONG = 40


def ls(
    experiments: Sequence[str],
    where: str | None,
    order_by: Sequence[str],
    most: int,
    tracking_uri: str | None,
    *,
    as_json: bool,
) -> None:
    """Print runs.

    Args:
        experiments: names; all experiments where there are none.
        where: a filter in MLflow's language.
        order_by: as for `trackdsl.runs`.
        most: how many at most; 0 for all.
        tracking_uri: the store; the configured one by default.
        as_json: print JSON instead of a table.
    """
    with _asking(), opened(tracking_uri) as reader:
        asked = Question.of(reader, list(experiments) or None, where, list(order_by) or None, {})
        found = asked.ask(most + 1 if most else None)
        shown, more = (found[:most], len(found) > most) if most else (found, False)
        paths = paths_of(shown, reader) if as_json else {}
    if as_json:
        _echo_json({"runs": [_run(run, asked.names, paths) for run in shown], "more": more})
    elif not shown:
        click.echo("No runs.")
    else:
        _print_runs(shown, asked.names)
        if more:
            click.echo(f"There are more than these {most}: --max 0 shows all.")


def show(run: str, tracking_uri: str | None, *, as_json: bool) -> None:
    """Print everything that MLflow has of a run, files apart."""
    with _asking(), asked_for([run], tracking_uri) as (reader, (found,)):
        experiments = {one.id: one.name for one in reader.experiments(deleted=True)}
        structure = _run(found, experiments, paths_of([found], reader))
    if as_json:
        _echo_json(structure)
    else:
        _print_run({**structure, "metrics": dict(sorted(found.metrics.items()))})


def show_tree(run: str, tracking_uri: str | None, *, whole: bool, as_json: bool) -> None:
    """Print a run and everything below it."""
    with _asking():
        found = tree(run, whole=whole, tracking_uri=tracking_uri)
    if as_json:
        _echo_json(_branch(found))
    else:
        _console().print(found)


def show_comparison(runs: Sequence[str], tracking_uri: str | None, *, everything: bool, as_json: bool) -> None:
    """Print in what runs differ."""
    with _asking():
        found = compare(*runs, all=everything, tracking_uri=tracking_uri)
    if as_json:
        _echo_json(_comparison(found))
    else:
        _console().print(found)


@contextlib.contextmanager
def _asking() -> Iterator[None]:
    """Errors as lines that a terminal can be given: they name what runs hold."""
    prepare_environment()
    bound_requests()
    before = logging.root.manager.disable
    logging.disable(logging.INFO)  # Some versions of MLflow tell of the database as they open it.
    try:
        yield
    except (QueryError, TrackingServerError) as error:
        raise click.ClickException(_shown.printable(str(error))) from None
    finally:
        logging.disable(before)


def _console() -> Console:
    from rich.console import Console

    console = Console(highlight=False, markup=False)
    return console if console.is_terminal else Console(highlight=False, markup=False, width=_WIDTH_OF_PIPES)


def _echo_json(structure: Any) -> None:
    click.echo(json.dumps(structure, indent=2, allow_nan=False))


def _numbers(values: Mapping[str, float]) -> dict[str, float | None]:
    return {name: value if math.isfinite(value) else None for name, value in sorted(values.items())}


def _run(run: FoundRun, experiments: Mapping[str, str], paths: Mapping[str, str]) -> dict[str, Any]:
    return {
        "run_id": run.run_id,
        "id": run.id,
        "name": run.name,
        "experiment": experiments.get(run.experiment_id),
        "status": run.status,
        "start": _shown.moment(run.start),
        "end": _shown.moment(run.end),
        "duration": run.duration,
        "parent": run.parent,
        "path": run.tags.get("trackdsl.path") or paths.get(run.run_id),
        "params": dict(sorted(run.params.items())),
        "metrics": _numbers(run.metrics),
        "tags": dict(sorted(run.tags.items())),
    }


def _branch(top: RunTree) -> dict[str, Any]:
    made: dict[str, dict[str, Any]] = {}
    for run in reversed(list(top.walk())):
        made[run.run_id] = {
            "run_id": run.run_id,
            "id": run.id,
            "name": run.name,
            "status": run.status,
            "start": run.start,
            "duration": run.duration,
            "params": dict(sorted(run.params.items())),
            "metrics": _numbers(run.metrics),
            "tags": dict(sorted(run.tags.items())),
            "children": [made[child.run_id] for child in run.children],
        }
    return made[top.run_id]


def _comparison(found: Comparison) -> dict[str, Any]:
    def plain(value: Any) -> Any:
        return None if isinstance(value, float) and not math.isfinite(value) else value

    return {
        "runs": [{"run_id": id_, "name": name} for id_, name in zip(found.runs, found.names, strict=True)],
        "differences": [
            {"kind": one.kind, "name": one.name, "values": [plain(value) for value in one.values]} for one in found
        ],
        "same": found.same,
    }


def _print_runs(runs: Sequence[FoundRun], experiments: Mapping[str, str]) -> None:
    from rich.table import Table
    from rich.text import Text

    several = len({run.experiment_id for run in runs}) > 1
    table = Table(show_edge=False, pad_edge=False)
    titles = ["run", "name", *(["experiment"] if several else []), "status", "started", "took", "params", "metrics"]
    for title in titles:
        table.add_column(title, overflow="fold", no_wrap=title in ("run", "status"))
    for run in runs:
        experiment = [Text(_shown.printable(experiments.get(run.experiment_id, "")))] if several else []
        table.add_row(
            _shown.short(run.run_id),
            Text(_shown.printable(run.name)),
            *experiment,
            Text(run.status, _shown.colour(run.status)),
            _local(run.start),
            _shown.duration(run.duration) if run.end is not None else "-",
            Text(_few([f"{_shown.printable(key)}={_brief(text)}" for key, text in sorted(run.params.items())])),
            Text(
                _few([f"{_shown.printable(key)} {_shown.number(value)}" for key, value in sorted(run.metrics.items())])
            ),
        )
    _console().print(table)


def _print_run(run: Mapping[str, Any]) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, show_header=False)
    for _ in range(2):
        table.add_column(overflow="fold")
    for field in ("run_id", "id", "name", "experiment", "status", "start", "duration", "parent", "path"):
        value = _shown.duration(run[field]) if field == "duration" else run[field]
        if value is not None:
            table.add_row(field, Text(_shown.printable(str(value))))
    for kind in ("params", "metrics", "tags"):
        if run[kind]:
            table.add_row(Text(f"\n{kind}", "bold"))
        for name, value in run[kind].items():
            shown = repr(value) if kind == "metrics" else _shown.printable(str(value))
            table.add_row(Text(f"  {_shown.printable(name)}"), Text(shown))
    _console().print(table)


def _local(milliseconds: int | None) -> str:
    try:
        return "-" if milliseconds is None else f"{datetime.fromtimestamp(milliseconds / 1000):%Y-%m-%d %H:%M:%S}"
    except (OverflowError, ValueError, OSError):
        return "-"


def _few(texts: Sequence[str]) -> str:
    return "\n".join(texts if len(texts) <= _SHOWN else [*texts[:_SHOWN], f"… {len(texts) - _SHOWN} more"])


def _brief(text: str) -> str:
    return _shown.printable(text if len(text) <= _LONG else f"{text[: _LONG - 1]}…")

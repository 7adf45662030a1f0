"""`trackdsl ls`, `show`, `tree` and `compare`: show runs as MLflow has them.

The output of `--json` is stable: a new version may add fields, and removes none. NaN is `null` there.

| command | structure |
|---|---|
| `ls` | `{"runs": [run, …], "more": whether there are more than `--max`}` |
| `show` | a run: `run_id`, `id`, `name`, `experiment`, `status`, `start`, `end`, `duration`, `parent`, `path`, `params`, `metrics`, `tags`; times in ISO 8601, seconds, parameters as text |
| `tree` | `run_id`, `id`, `name`, `status`, `start`, `duration`, `failure`, `params`, `metrics`, `tags`, `children` |
| `compare` | `{"runs": [{"run_id", "name"}, …], "differences": [{"kind", "name", "values"}, …], "same": how many}` |
"""  # noqa: E501 - a table's rows cannot be broken

from __future__ import annotations

import contextlib
import json
import logging
import math
import shlex
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

import click

from trackdsl._server.http import bound_requests
from trackdsl.cli._console import output
from trackdsl.cli._run_tables import print_run, print_runs
from trackdsl.delivery.service import prepare_environment
from trackdsl.errors import QueryError, TrackingServerError
from trackdsl.query import _shown
from trackdsl.query._compare import Comparison, compare
from trackdsl.query._frame import paths_of
from trackdsl.query._paged import PagedReader
from trackdsl.query._rows import FoundRun, Search
from trackdsl.query._run_lookup import asked_for
from trackdsl.query._runs import Question
from trackdsl.query._store import opened, text_of
from trackdsl.query._tree import RunTree, tree
from trackdsl.store_format.call_tag import CALL_TAG, FIELDS, call_of
from trackdsl.store_format.limits import fit_key
from trackdsl.store_format.tags import path_of_text

#: If an experiment has no runs, the message names at most so many experiments that have some.
_MOST_NAMED = 10
#: The tag with the traceback of the exception that ended a run.
_TRACEBACK = "trackdsl.exception.traceback"


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
        most: the largest number of runs; 0 for all.
        tracking_uri: the store; the configured one by default.
        as_json: print JSON instead of a table.
    """
    with _errors_printed(), opened(tracking_uri) as reader:
        asked = Question.of(reader, list(experiments) or None, where, list(order_by) or None, {})
        found = asked.ask(most + 1 if most else None, roots_first=True)
        shown, more = (found[:most], len(found) > most) if most else (found, False)
        paths = paths_of(shown, reader) if as_json else {}
        empty = "" if shown or as_json else _why_empty(asked, where)
    if as_json:
        _echo_json({"runs": [_run(run, asked.names, paths) for run in shown], "more": more})
    elif not shown:
        click.echo(empty)
    else:
        print_runs(shown, asked.names)
        if more:
            click.echo(f"There are more than these {most}: --max 0 shows all.")


def show(run: str, tracking_uri: str | None, *, as_json: bool) -> None:
    """Print everything that MLflow has of a run, except files."""
    with _errors_printed(), asked_for([run], tracking_uri) as (reader, (found,)):
        experiments = {one.id: one.name for one in reader.experiments(deleted=True)}
        structure = _run(found, experiments, paths_of([found], reader))
        traceback = None if as_json else _traceback(found, reader)
    if as_json:
        _echo_json(structure)
        return
    # The table shows NaN and infinity, which JSON cannot. The traceback follows it, with its line breaks.
    elsewhere = {_TRACEBACK, CALL_TAG, *FIELDS.values()}
    tags = {key: value for key, value in structure["tags"].items() if key not in elsewhere}
    shown = {"call": call_of(found.tags), "tags": tags, "metrics": dict(sorted(found.metrics.items()))}
    print_run({**structure, **shown}, traceback)


def show_tree(run: str, tracking_uri: str | None, *, whole: bool, as_json: bool) -> None:
    """Print a run and all runs below it."""
    with _errors_printed():
        found = tree(run, whole=whole, tracking_uri=tracking_uri)
    if as_json:
        _echo_json(_branch(found))
    else:
        output().print(found)


def show_comparison(runs: Sequence[str], tracking_uri: str | None, *, everything: bool, as_json: bool) -> None:
    """Print the differences between runs."""
    with _errors_printed():
        found = compare(*runs, all=everything, tracking_uri=tracking_uri)
    if as_json:
        _echo_json(_comparison(found))
    else:
        output().print(found)


def _why_empty(asked: Question, where: str | None) -> str:
    """The message if no run was found: records wait for delivery, or other experiments have runs."""
    from trackdsl.store_format.journals import undelivered_sentence

    if waiting := undelivered_sentence(asked.reader.client.tracking_uri):
        return f"No runs yet: {waiting}"
    named = ", ".join(repr(_shown.printable(name)) for name in asked.names.values())
    if where:
        return "No runs."
    holders = list(islice(_experiments_with_runs(asked.reader), _MOST_NAMED + 1))
    if not holders:
        return "No runs."
    listed = ", ".join(repr(_shown.printable(name)) for name in holders[:_MOST_NAMED])
    more = " and more" if len(holders) > _MOST_NAMED else ""
    return f"No runs in {named}. There are runs in {listed}{more}: `trackdsl ls {shlex.quote(holders[0])}`."


def _experiments_with_runs(reader: PagedReader) -> Iterator[str]:
    for one in reader.experiments():
        if next(iter(reader.search(Search((one.id,), limit=1))), None) is not None:
            yield one.name


def _traceback(run: FoundRun, reader: PagedReader) -> str | None:
    """The whole traceback of the exception that ended a run; a long one is in a file, and the tag has a part."""
    known = run.tags.get(_TRACEBACK)
    path = path_of_text("tags", _TRACEBACK)
    if known is None or fit_key(f"trackdsl.truncated.{path}") not in run.tags:
        return known
    whole = text_of(reader, run.run_id, path)
    return f"{known}\n(the rest is in the file {path}, which cannot be read)" if whole is None else whole


@contextlib.contextmanager
def _errors_printed() -> Iterator[None]:
    """Print errors as one line without control characters: they quote names and values of runs."""
    prepare_environment()
    bound_requests()
    before = logging.root.manager.disable
    logging.disable(logging.INFO)  # Some versions of MLflow log that they open the database.
    try:
        yield
    except (QueryError, TrackingServerError) as error:
        raise click.ClickException(_shown.printable(str(error))) from None
    finally:
        logging.disable(before)


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
            "failure": run.failure,
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

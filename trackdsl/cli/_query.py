"""`trackdsl show`, `tree`, `changes`, `compare` and `trace`: show runs as MLflow has them.

The output of `--json` is stable: a new version may add fields, and removes none. NaN is `null` there.

| command | structure |
|---|---|
| `show` | a run: `run_id`, `id`, `name`, `experiment`, `status`, `start`, `end`, `duration`, `parent`, `path`, `params`, `metrics`, `tags`; times in ISO 8601, seconds, parameters as text |
| `tree` | `run_id`, `id`, `name`, `status`, `start`, `duration`, `failure`, `params`, `metrics`, `tags`, `children` |
| `changes` | `run_id`, `name`, `previous`, `previous_name`, `previous_start`, `summary`, `changes` (each with `kind`, `name`, `before`, `after`, `stages`, `runs`), `parts_at`, `parts_by`, `metrics` (each with `stage`, `name`, `before`, `after`), `diffs`, `unknown`, `left_out` |
| `compare` | `{"runs": [{"run_id", "name"}, …], "differences": [{"kind", "name", "values"}, …], "same": how many, "stages": [{"path", "run_ids", "statuses", "durations", "differences"}, …], "changes": [as of `changes`, one for each run but the first]}`; `differences` are those of the runs themselves, `stages` begins with these; a list of values has one for each run |
"""  # noqa: E501 - a table's rows cannot be broken

from __future__ import annotations

import contextlib
import json
import logging
import math
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import click
import msgspec
import wrapt

from trackdsl.cli._console import output
from trackdsl.cli._output_file import replacing
from trackdsl.cli._run_tables import print_run
from trackdsl.delivery.environment import prepare_environment
from trackdsl.errors import QueryError, TrackingServerError
from trackdsl.query import _shown
from trackdsl.query._changes import changes
from trackdsl.query._compare import compare
from trackdsl.query._compared import Difference
from trackdsl.query._comparison import Comparison
from trackdsl.query._frame import paths_of
from trackdsl.query._paged import PagedReader
from trackdsl.query._rows import FoundRun
from trackdsl.query._run_lookup import asked_for
from trackdsl.query._store import text_of
from trackdsl.query._trace_formats import chrome_trace, mermaid, speedscope
from trackdsl.query._tree import RunTree, tree
from trackdsl.store_format.call_tag import CALL_TAG, FIELDS, call_of
from trackdsl.store_format.limits import fit_key
from trackdsl.store_format.report.timeline import timeline
from trackdsl.store_format.tags import path_of_text

#: The pages that open a trace, by its format.
_OPENED_AT = {"chrome": "https://ui.perfetto.dev", "speedscope": "https://speedscope.app"}
#: The tag with the traceback of the exception that ended a run.
_TRACEBACK = "trackdsl.exception.traceback"


def show(run: str, tracking_uri: str | None, *, as_json: bool) -> None:
    """Print everything that MLflow has of a run, except files."""
    with errors_printed(), asked_for([run], tracking_uri) as (reader, (found,)):
        experiments = {one.id: one.name for one in reader.experiments(deleted=True)}
        structure = structure_of(found, experiments, paths_of([found], reader))
        traceback = None if as_json else _traceback(found, reader)
    if as_json:
        _echo_json(structure)
        return
    # The table shows NaN and infinity, which JSON cannot. The traceback follows it, with its line breaks.
    elsewhere = {_TRACEBACK, CALL_TAG, *FIELDS.values()}
    tags = {key: value for key, value in structure["tags"].items() if key not in elsewhere}
    shown = {"call": call_of(found.tags), "tags": tags, "metrics": dict(sorted(found.metrics.items()))}
    print_run({**structure, **shown}, traceback)


def show_tree(run: str, tracking_uri: str | None, *, whole: bool, superseded: bool, as_json: bool) -> None:
    """Print a run and all runs below it."""
    with errors_printed():
        found = tree(run, whole=whole, superseded=superseded, tracking_uri=tracking_uri)
    if as_json:
        _echo_json(_branch(found))
    else:
        output().print(found)


def show_comparison(
    runs: Sequence[str], tracking_uri: str | None, html: Path | None, *, everything: bool, as_json: bool
) -> None:
    """Print the differences between runs, or write them to a page.

    Args:
        runs: two runs or more.
        tracking_uri: the store; the configured one by default.
        html: the file of the page; None to print text.
        everything: also what is the same.
        as_json: print JSON.

    Raises:
        click.ClickException: the file cannot be written.
    """
    with errors_printed():
        found = compare(*runs, all=everything, tracking_uri=tracking_uri)
        page = None if html is None else found.to_html()
    if html is not None and page is not None:
        with replacing(html) as file:
            file.write_text(page, encoding="utf-8", errors="replace")
        click.echo(f"{_shown.printable(str(html))} compares {len(runs)} runs: open it in a browser.", err=True)
    if as_json:
        _echo_json(_comparison(found))
    elif html is None:
        output().print(found)


def show_changes(run: str, since: str | None, tracking_uri: str | None, *, as_json: bool) -> None:
    """Print what changed in a run since another one."""
    with errors_printed():
        found = changes(run, since, tracking_uri=tracking_uri)
    if as_json:
        # msgspec writes NaN and infinity as `null`.
        _echo_json(json.loads(msgspec.json.encode(found)))
    else:
        output().print(found)


def write_trace(
    run: str, tracking_uri: str | None, output: Path | None, form: str, *, superseded: bool, as_json: bool
) -> None:
    """Print the timeline of a run and all runs below it, or write it to a file.

    Args:
        run: the run.
        tracking_uri: the store; the configured one by default.
        output: the file; None to print.
        form: `chrome`, `speedscope` or `mermaid`.
        superseded: as for `trackdsl.tree`.
        as_json: print what was written as JSON.
    """
    with errors_printed():
        spans = timeline(tree(run, superseded=superseded, tracking_uri=tracking_uri))
    if form == "mermaid":
        text = f"```mermaid\n{mermaid(spans)}```\n"
    else:
        content = (speedscope if form == "speedscope" else chrome_trace)(spans)
        text = json.dumps(content, separators=(",", ":")) + "\n"
    if output is None:
        click.echo(text, nl=False)
        return
    with replacing(output) as file:
        file.write_text(text, encoding="utf-8", errors="replace")
    if as_json:
        click.echo(json.dumps({"path": str(output), "format": form, "runs": len(spans)}))
        return
    count = f"{len(spans):,} runs" if len(spans) != 1 else "1 run"
    where = f" Open it at {_OPENED_AT[form]}." if form in _OPENED_AT else ""
    click.echo(f"{_shown.printable(str(output))} has {count}.{where}", err=True)


def _traceback(run: FoundRun, reader: PagedReader) -> str | None:
    """The whole traceback of the exception that ended a run. The tag has only a part of a long one; a file has all."""
    known = run.tags.get(_TRACEBACK)
    path = path_of_text("tags", _TRACEBACK)
    if known is None or fit_key(f"trackdsl.truncated.{path}") not in run.tags:
        return known
    whole = text_of(reader, run.run_id, path)
    return f"{known}\n(the rest is in the file {path}, which cannot be read)" if whole is None else whole


@contextlib.contextmanager
def errors_printed() -> Iterator[None]:
    """Print errors as one line without control characters: they quote names and values of runs."""
    prepare_environment()
    _bound_requests()
    before = logging.root.manager.disable
    logging.disable(logging.INFO)  # Some versions of MLflow log that they open the database.
    try:
        yield
    except (QueryError, TrackingServerError) as error:
        raise click.ClickException(_shown.printable(str(error))) from None
    finally:
        logging.disable(before)


def _bound_requests() -> None:
    """Make the requests of this process end, also if `requests` is imported later: most commands never do."""
    if "requests" not in sys.modules:
        _bound_when_imported()
        return
    from trackdsl._server.http import bound_requests

    bound_requests()


@cache
def _bound_when_imported() -> None:
    wrapt.register_post_import_hook(lambda _requests: _bound_requests(), "requests")


def _echo_json(structure: Any) -> None:
    click.echo(json.dumps(structure, indent=2, allow_nan=False))


def _numbers(values: Mapping[str, float]) -> dict[str, float | None]:
    return {name: value if math.isfinite(value) else None for name, value in sorted(values.items())}


def structure_of(run: FoundRun, experiments: Mapping[str, str], paths: Mapping[str, str]) -> dict[str, Any]:
    """A run as `--json` prints it.

    Args:
        run: the run.
        experiments: names by MLflow's id.
        paths: in the tree, by MLflow's id, for runs without a tag for it.
    """
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
    return {
        "runs": [{"run_id": id_, "name": name} for id_, name in zip(found.runs, found.names, strict=True)],
        "differences": _differences(found),
        "same": found.same,
        "stages": [
            {
                "path": stage.path,
                "run_ids": list(stage.run_ids),
                "statuses": list(stage.statuses),
                "durations": list(stage.seconds),
                "differences": _differences(stage.differences),
            }
            for stage in found.stages
        ],
        # msgspec writes NaN and infinity as `null`.
        "changes": [json.loads(msgspec.json.encode(one)) for one in found.changes],
    }


def _differences(found: Iterable[Difference]) -> list[dict[str, Any]]:
    def plain(value: Any) -> Any:
        return None if isinstance(value, float) and not math.isfinite(value) else value

    return [{"kind": one.kind, "name": one.name, "values": [plain(value) for value in one.values]} for one in found]

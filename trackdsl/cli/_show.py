"""`trackdsl show`: shows everything that MLflow has of a run.

The structure of `--json` is a run: `run_id`, `id`, `name`, `experiment`, `status`, `start`, `end`, `duration`,
`parent`, `path`, `params`, `metrics`, `tags`; times in ISO 8601, seconds, parameters as text. Names are those that the
store has, as in MLflow; the table has the original ones.
"""

from __future__ import annotations

from trackdsl.cli._reading import errors_printed
from trackdsl.cli._run_tables import print_run
from trackdsl.cli._structures import print_json, structure_of
from trackdsl.query._frame import paths_of
from trackdsl.query._paged import PagedReader
from trackdsl.query._rows import FoundRun
from trackdsl.query._run_lookup import asked_for
from trackdsl.query._store import text_of
from trackdsl.store_format.call_tag import CALL_TAG, FIELDS, call_of
from trackdsl.store_format.limits import fit_key
from trackdsl.store_format.original_names import with_originals
from trackdsl.store_format.tags import TRACEBACK_TAG, TRUNCATED, path_of_text


def show(run: str, tracking_uri: str | None, *, as_json: bool) -> None:
    """Print everything that MLflow has of a run, except files."""
    with errors_printed(), asked_for([run], tracking_uri) as (reader, (found,)):
        experiments = {one.id: one.name for one in reader.experiments(deleted=True)}
        structure = structure_of(found, experiments, paths_of([found], reader))
        traceback = None if as_json else _traceback(found, reader)
    if as_json:
        print_json(structure)
        return
    # The table shows NaN and infinity, which JSON cannot. The traceback follows it, with its line breaks.
    elsewhere = {TRACEBACK_TAG, CALL_TAG, *FIELDS.values()}
    tags = {key: value for key, value in structure["tags"].items() if key not in elsewhere}
    params, metrics = (with_originals(values, found) for values in (structure["params"], found.metrics))
    shown = {"params": params, "metrics": metrics, "call": call_of(found.tags), "tags": tags}
    print_run({**structure, **shown}, traceback)


def _traceback(run: FoundRun, reader: PagedReader) -> str | None:
    """The whole traceback of the exception that ended a run. The tag has only a part of a long one; a file has all."""
    known = run.tags.get(TRACEBACK_TAG)
    path = path_of_text("tags", TRACEBACK_TAG)
    if known is None or fit_key(TRUNCATED + path) not in run.tags:
        return known
    whole = text_of(reader, run.run_id, path)
    return f"{known}\n(the rest is in the file {path}, which cannot be read)" if whole is None else whole

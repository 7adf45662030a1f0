"""`compare`: reads runs with the stages below them, and finds the differences."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from trackdsl.errors import QueryError
from trackdsl.query import _shown
from trackdsl.query._aligned import Row, aligned
from trackdsl.query._changes import run_changes
from trackdsl.query._compared import ComparedStage, Difference
from trackdsl.query._comparison import Comparison
from trackdsl.query._paged import PagedReader
from trackdsl.query._recorded_runs import RecordedRuns
from trackdsl.query._rows import FoundRun
from trackdsl.query._run_lookup import asked_for
from trackdsl.store_format.call_tag import FIELDS, GIT_DIRTY_TAG
from trackdsl.store_format.changes.recorded import stages_of
from trackdsl.store_format.original_names import originals_of
from trackdsl.store_format.tags import BRANCH_TAG, COMMIT_TAG, SOURCE_NAME_TAG

#: The tags that say which code a run recorded, and their names here; see `FoundRun.value`.
_SOURCE = {
    SOURCE_NAME_TAG: "entry point",
    COMMIT_TAG: "commit",
    BRANCH_TAG: "branch",
    GIT_DIRTY_TAG: "changes not committed",
    FIELDS["function"]: "function",
    FIELDS["file"]: "file",
    FIELDS["source_hash"]: "source hash",
    FIELDS["version"]: "trackdsl",
}
#: The prefixes of tags that are not the user's own.
_NOT_OF_USERS = ("mlflow.", "trackdsl.")
#: If there are more runs, the files with their source are not read.
_MOST_WITH_CHANGES = 8


def compare(
    *runs: Any,
    all: bool = False,  # noqa: A002 - the name that users expect
    superseded: bool = False,
    tracking_uri: str | None = None,
) -> Comparison:
    """The differences between runs: parameters, metrics, source, tags, time, and those of the stages below them.

    Stages of the same path are compared with each other. What changed in the program is compared too, as far as the
    root runs keep it: the source of the stages, packages, what is not committed, datasets. Delivery writes that a
    moment after a root run has ended; as long as it is at work on that, this waits for it.

    Args:
        *runs: two or more runs: each a `Run`, MLflow's or trackdsl's id of it or its first characters, its name, or an
            MLflow run. Differences are from the first.
        all: also include values that are the same in all runs.
        superseded: a name may mean a run of a notebook cell that was executed again since. Ids always may.
        tracking_uri: the store; by default that of the first `Run`, else the configured one.

    Returns:
        the comparison, which can be printed; its `frame` is a data frame, and `to_html` a page with curves and diffs.

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
    with asked_for(runs, tracking_uri, superseded=superseded) as (reader, stored_runs):
        return _comparison(stored_runs, reader, everything=all)


def _comparison(runs: Sequence[FoundRun], reader: PagedReader, *, everything: bool) -> Comparison:
    lines = list(_lines(runs))
    shown = tuple(line for line in lines if everything or line.differs)
    below = _below(runs, reader)
    rows = aligned([stages_of(run, below[run.run_id]) for run in runs])
    kept = RecordedRuns(reader, below)
    kept.wait(*runs[:_MOST_WITH_CHANGES])
    return Comparison(
        runs=tuple(run.run_id for run in runs),
        names=tuple(run.name for run in runs),
        labels=_labels(runs),
        differences=shown,
        same=len(lines) - len(shown),
        stages=tuple(_stage(row, everything=everything) for row in rows),
        changes=tuple(run_changes(run, kept.changes(run, runs[0])) for run in runs[1:_MOST_WITH_CHANGES]),
        tracking_uri=reader.uri,
        originals=originals_of([*runs, *(one for each in below.values() for one in each)]),
    )


def _below(tops: Sequence[FoundRun], reader: PagedReader) -> dict[str, list[FoundRun]]:
    """The runs below each run, by its id, without superseded ones."""
    children: dict[str | None, list[FoundRun]] = {}
    for run in reader.descendants(*tops):
        if not run.superseded:
            children.setdefault(run.parent, []).append(run)
    below_each: dict[str, list[FoundRun]] = {}
    for top in tops:
        below = below_each[top.run_id] = list(children.get(top.run_id, ()))
        seen = {top.run_id}
        for run in below:  # The list grows level by level.
            if run.run_id not in seen:
                seen.add(run.run_id)
                below += children.get(run.run_id, ())
    return below_each


def _stage(row: Row, *, everything: bool) -> ComparedStage:
    path = next(stage.path for stage in row if stage is not None)
    differences: list[Difference] = []
    if path:
        for kind in ("params", "metrics"):
            differences += _of_kind(kind, [{} if stage is None else getattr(stage, kind) for stage in row])
    return ComparedStage(
        path=path,
        run_ids=tuple(None if stage is None else stage.run_id for stage in row),
        statuses=tuple(None if stage is None else stage.status for stage in row),
        seconds=tuple(None if stage is None else stage.seconds for stage in row),
        differences=tuple(one for one in differences if everything or one.differs),
        metrics=tuple(sorted({name for stage in row if stage is not None for name in stage.metrics})),
    )


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
    values = {name: run.value("tags", tag) for tag, name in _SOURCE.items()}
    return {name: str(text) for name, text in values.items() if text is not None}


def _own_tags(run: FoundRun) -> dict[str, str]:
    return {key: value for key, value in run.tags.items() if not key.startswith(_NOT_OF_USERS)}


def _labels(runs: Sequence[FoundRun]) -> tuple[str, ...]:
    names = [run.name or _shown.short(run.run_id) for run in runs]
    if len(set(names)) == len(names):
        return tuple(names)
    shorts = [f"{name} {_shown.short(run.run_id)}" for name, run in zip(names, runs, strict=True)]
    return tuple(shorts)

"""Which run is meant: a handle of trackdsl's or MLflow's, an id, the beginning of one, or a name."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from trackdsl._run import AdoptedRun, Run
from trackdsl.errors import QueryError, RunNotFound
from trackdsl.query import _shown
from trackdsl.query._found import FoundRun
from trackdsl.query._paged import PagedReader
from trackdsl.query._store import opened

#: MLflow takes ids of other forms too, from stores of other makes.
_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
_BEGINNING = re.compile(r"[0-9a-f]{4,31}")
#: How many of those that fit are named in an error.
_SHOWN = 5


@contextmanager
def asked_for(asked: Sequence[Any], tracking_uri: str | None) -> Iterator[tuple[PagedReader, list[FoundRun]]]:
    """A reader, and the runs that are meant; in the store of the first handle of ours where none is named."""
    handles = (run for run in asked if isinstance(run, Run))
    place = tracking_uri or next((run._target.uri for run in handles if run._target.delivers), None)
    with opened(place) as reader:
        yield reader, [find(run, reader) for run in asked]


def find(asked: Any, reader: PagedReader) -> FoundRun:
    """The run that is meant.

    Raises:
        RunNotFound: there is none, or there are several.
    """
    if isinstance(asked, AdoptedRun):
        asked = asked.mlflow_run_id
    elif isinstance(asked, Run):
        return _recorded(asked, reader)
    text = getattr(getattr(asked, "info", None), "run_id", None) or getattr(asked, "run_id", asked)
    if not isinstance(text, str) or not text:
        raise QueryError(f"{asked!r} is no run: give a Run, its id, or its name.", argument="run")
    return _only(text, _fitting(text, reader))


def _recorded(run: Run, reader: PagedReader) -> FoundRun:
    found = reader.with_id(run.id)
    if not found:
        raise RunNotFound(
            f"run {run.name!r} is not at MLflow yet: `trackdsl status` tells why, `trackdsl sync` delivers it.",
            argument="run",
        )
    return found[0]


def _fitting(text: str, reader: PagedReader) -> list[FoundRun]:
    """Some of the runs that a text may mean, the surest meaning first."""
    found = reader.with_id(text) if _ID.fullmatch(text) else []
    if not found and _BEGINNING.fullmatch(text):
        found = reader.beginning_with(text, _SHOWN + 1)
    return found or reader.named(text, _SHOWN + 1)


def _only(text: str, found: list[FoundRun]) -> FoundRun:
    if len(found) == 1:
        return found[0]
    if not found:
        raise RunNotFound(
            f"there is no run {text!r}: give its id, MLflow's or trackdsl's, the first four characters of it or more, "
            "or its name. `trackdsl ls` lists runs.",
            argument="run",
        )
    named = ", ".join(f"{run.run_id} ({_shown.printable(run.name)})" for run in found[:_SHOWN])
    more = " and more" if len(found) > _SHOWN else ""
    raise RunNotFound(f"{text!r} fits several runs: {named}{more}. Give more of the id.", argument="run")

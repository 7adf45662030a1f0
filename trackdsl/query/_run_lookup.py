"""Finds the run that a user names: by a `Run`, an MLflow run, an id, the first characters of an id, or a name."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from trackdsl._runs.run import Run, adoption_of
from trackdsl.errors import QueryError, RunNotFound, note
from trackdsl.query import _shown
from trackdsl.query._paged import PagedReader
from trackdsl.query._rows import FoundRun
from trackdsl.query._store import opened

#: MLflow accepts ids of other forms, from other kinds of stores.
_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
_BEGINNING = re.compile(r"[0-9a-f]{4,31}")
#: An error names at most so many runs.
_SHOWN = 5


@contextmanager
def asked_for(asked: Sequence[Any], tracking_uri: str | None) -> Iterator[tuple[PagedReader, list[FoundRun]]]:
    """A reader, and the runs that the user names. By default the store is that of the first `Run`."""
    handles = (run for run in asked if isinstance(run, Run))
    uri = tracking_uri or next((run.target.uri for run in handles if run.target.delivers), None)
    with opened(uri) as reader:
        yield reader, [find(run, reader) for run in asked]


def find(asked: Any, reader: PagedReader) -> FoundRun:
    """The run that the user names; the newest if several have the name.

    Raises:
        RunNotFound: there is none, or several ids have these first characters.
    """
    if isinstance(asked, Run):
        adopted = adoption_of(asked)
        if adopted is None:
            return _recorded(asked, reader)
        asked = adopted[0]
    text = getattr(getattr(asked, "info", None), "run_id", None) or getattr(asked, "run_id", asked)
    if not isinstance(text, str) or not text:
        raise QueryError(f"{asked!r} is no run: give a Run, its id, or its name.", argument="run")
    if by_id := _by_id(text, reader):
        return _only(text, by_id)
    if named := reader.named(text, _SHOWN + 1):
        return _newest(text, named)
    missing = (
        f"there is no run {text!r}: give its id, MLflow's or trackdsl's, the first four characters of it or more, or "
        "its name. `trackdsl ls` lists runs."
    )
    raise RunNotFound(reader.absent(f"run {text!r}", missing), argument="run")


def _recorded(run: Run, reader: PagedReader) -> FoundRun:
    found = reader.with_id(run.id)
    if not found:
        raise RunNotFound(
            f"run {run.name!r} is not at MLflow yet: `trackdsl status` shows why, `trackdsl sync` delivers it.",
            argument="run",
        )
    return found[0]


def _by_id(text: str, reader: PagedReader) -> list[FoundRun]:
    """Some of the runs whose id is a text or begins with it."""
    found = reader.with_id(text) if _ID.fullmatch(text) else []
    if not found and _BEGINNING.fullmatch(text):
        found = reader.beginning_with(text, _SHOWN + 1)
    return found


def _only(text: str, found: list[FoundRun]) -> FoundRun:
    if len(found) == 1:
        return found[0]
    named = ", ".join(f"{run.run_id} ({_shown.printable(run.name)})" for run in found[:_SHOWN])
    more = " and more" if len(found) > _SHOWN else ""
    raise RunNotFound(f"{text!r} fits several runs: {named}{more}. Give more of the id.", argument="run")


def _newest(name: str, found: list[FoundRun]) -> FoundRun:
    """The newest of the runs with a name. If there are several, a message says once which one it is."""
    newest = max(found, key=lambda run: (run.start or 0, run.id or ""))
    if len(found) > 1:
        count = f"more than {_SHOWN}" if len(found) > _SHOWN else len(found)
        shown = _shown.printable(name)
        note(
            f"trackdsl: {count} runs are called {shown!r}; this is the newest, {newest.run_id}, begun "
            f"{_shown.moment(newest.start)}. Give the id of another one: `trackdsl ls` lists them.",
            key=f"newest:{name}",
        )
    return newest

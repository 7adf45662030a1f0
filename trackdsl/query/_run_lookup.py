"""Finds the run that a user names: by a `Run`, an MLflow run, an id, the first characters of an id, or a name."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeGuard

from trackdsl._core.redaction import mask_text
from trackdsl._core.suggest import suggestion_for
from trackdsl.errors import QueryError, RunNotFound, log_once
from trackdsl.query import _shown
from trackdsl.query._paged import PagedReader
from trackdsl.query._rows import FoundRun, Search
from trackdsl.query._store import opened

if TYPE_CHECKING:
    from trackdsl._runs.run import Run

#: MLflow accepts ids of other forms, from other kinds of stores.
_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
_BEGINNING = re.compile(r"[0-9a-f]{4,31}")
#: The short form of an id of ours, see `_shown.short`: its beginning, and the count that it ends in.
_SHORT = re.compile(r"([0-9a-f]{4,20})-([0-9a-f]{1,12})")
#: An error names at most this many runs.
_SHOWN = 5
#: How many of the newest runs may be meant by a name that no run has.
_SUGGESTED = 200


@contextmanager
def asked_for(
    asked: Sequence[Any], tracking_uri: str | None, *, superseded: bool = False
) -> Iterator[tuple[PagedReader, list[FoundRun]]]:
    """A reader, and the runs that the user names. By default the store is that of the first `Run`.

    Raises:
        QueryError: the runs are in several stores.
    """
    stores = dict.fromkeys(run.target.uri for run in asked if _is_run(run) and run.target.delivers)
    if len(stores) > 1 and tracking_uri is None:
        named = " and ".join(mask_text(uri) for uri in stores)
        raise QueryError(
            f"the runs are in several stores: {named}. Give runs of one store, or tracking_uri= of one that has all.",
            argument="tracking_uri",
        )
    with opened(tracking_uri or next(iter(stores), None)) as reader:
        yield reader, [find(run, reader, superseded=superseded) for run in asked]


def find(asked: Any, reader: PagedReader, *, superseded: bool = False) -> FoundRun:
    """The run that the user names; the newest if several have the name, superseded ones last unless they are asked for.

    Raises:
        RunNotFound: there is none, or several ids have these first characters.
    """
    if _is_run(asked):
        from trackdsl._runs.run import adoption_of

        adopted = adoption_of(asked)
        if adopted is None:
            return _recorded(asked, reader)
        asked = adopted[0]
    text = getattr(getattr(asked, "info", None), "run_id", None) or getattr(asked, "run_id", asked)
    if not isinstance(text, str) or not text:
        raise QueryError(f"{asked!r} is not a run: give a Run, its id, or its name.", argument="run")
    if by_id := _by_id(text, reader):
        return _only(text, by_id)
    if named := reader.named(text, _SHOWN + 1):
        return _newest(text, named if superseded else [run for run in named if not run.superseded] or named)
    nearest = suggestion_for(text, _newest_names(reader))
    missing = (
        f"there is no run {text!r}{':' if nearest.name is None else _shown.printable(nearest.text)} give its id, "
        "MLflow's or trackdsl's, the first four characters of it or more, the short form that `trackdsl ls` shows, or "
        "its name."
    )
    raise RunNotFound(reader.absent(f"run {text!r}", missing, nearest.text), argument="run", suggestion=nearest.name)


def _is_run(asked: Any) -> TypeGuard[Run]:
    """Whether it is a `Run`. Commands ask with text, and do not import what records."""
    if isinstance(asked, str):
        return False
    from trackdsl._runs.run import Run

    return isinstance(asked, Run)


def _newest_names(reader: PagedReader) -> set[str]:
    """The names of the newest runs of the store."""
    everywhere = tuple(one.id for one in reader.experiments())
    newest = reader.search(Search(everywhere, order_by=("attributes.start_time DESC",)))
    return {run.name for run in islice(newest, _SUGGESTED) if run.name}


def _recorded(run: Run, reader: PagedReader) -> FoundRun:
    matches = reader.with_id(run.id)
    if not matches:
        raise RunNotFound(
            f"run {run.name!r} is not at MLflow yet: `trackdsl status` shows why, `trackdsl sync` delivers it.",
            argument="run",
        )
    return matches[0]


def _by_id(text: str, reader: PagedReader) -> list[FoundRun]:
    """Some of the runs whose id is a text, begins with it, or has it as its short form."""
    matches = reader.with_id(text) if _ID.fullmatch(text) else []
    if not matches and _BEGINNING.fullmatch(text):
        matches = reader.beginning_with(text, _SHOWN + 1)
    if not matches and (short := _SHORT.fullmatch(text)):
        matches = reader.beginning_with(f"{short[1]}%{short[2]:0>12}", _SHOWN + 1)
    return matches


def _only(text: str, matches: list[FoundRun]) -> FoundRun:
    if len(matches) == 1:
        return matches[0]
    named = ", ".join(f"{run.run_id} ({_shown.printable(run.name)})" for run in matches[:_SHOWN])
    more = " and more" if len(matches) > _SHOWN else ""
    raise RunNotFound(f"{text!r} matches several runs: {named}{more}. Give more of the id.", argument="run")


def _newest(name: str, matches: list[FoundRun]) -> FoundRun:
    """The newest of the runs with a name. If there are several, a message says once which one it is."""
    newest = max(matches, key=lambda run: (run.start or 0, run.id or ""))
    if len(matches) > 1:
        count = f"more than {_SHOWN}" if len(matches) > _SHOWN else len(matches)
        shown = _shown.printable(name)
        log_once(
            f"trackdsl: {count} runs are called {shown!r}; this is the newest, {newest.run_id}, started "
            f"{_shown.moment(newest.start)}. Give the id of another one: `trackdsl ls` lists them.",
            key=f"newest:{name}",
        )
    return newest

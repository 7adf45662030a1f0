"""The report of a run, made of what a query reads: see `trackdsl.store_format.report`."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from trackdsl._core.version import __version__
from trackdsl.delivery.known_tables import Entry
from trackdsl.query._paged import PagedReader
from trackdsl.query._run_lookup import asked_for
from trackdsl.query._store import comes_from_store, content_of
from trackdsl.query._tree import RunTree, tree_of
from trackdsl.store_format.report.material import collect
from trackdsl.store_format.report.page import report_html

#: Folders are listed to this depth, and up to this number of files for each run.
_DEEPEST, _MOST_FILES = 4, 100
#: If a metric has more points, some are left out at even distances.
_MOST_POINTS = 20_000


@dataclass(frozen=True)
class Report:
    """The report of a run.

    Attributes:
        html: the page.
        tree: what it shows.
    """

    html: str
    tree: RunTree


def report(run: Any, *, superseded: bool = False, tracking_uri: str | None = None) -> Report:
    """The report of a run and all runs below it, as MLflow has them now.

    Args:
        run: as for `trackdsl.tree`.
        superseded: the same.
        tracking_uri: the store; by default that of the `Run`, else the configured one.

    Raises:
        RunNotFound: there is no such run.
    """
    with asked_for([run], tracking_uri) as (reader, (top,)):
        tree = tree_of(top, reader, superseded=superseded)
        material = collect(tree, _LenientSource(reader))
        names = {one.id: one.name for one in reader.experiments(deleted=True)}
    material.experiment = names.get(top.experiment_id, "")
    material.version = __version__
    material.made = time.time_ns() // 1_000_000
    return Report(report_html(material), tree)


class _LenientSource:
    """A store that queries read; what it cannot give is left out."""

    def __init__(self, reader: PagedReader) -> None:
        self._reader = reader

    def points(self, run_id: str, key: str) -> list[tuple[int, float, int]]:
        """See `Source`."""
        history = self._reader.history(run_id, key)
        apart = max(1, len(history) // _MOST_POINTS)
        return [(point.step, point.value, point.time) for point in history[::apart]]

    def files(self, run_id: str) -> Iterator[Entry]:
        """See `Source`."""
        waiting = [("", 0)]
        count = 0
        while waiting and count < _MOST_FILES:
            folder, depth = waiting.pop()
            for one in self._listed(run_id, folder):
                if one.is_folder:
                    waiting += [(one.path, depth + 1)] if depth < _DEEPEST else []
                else:
                    count += 1
                    yield one

    def content(self, run_id: str, path: str) -> bytes | None:
        """See `Source`."""
        return content_of(self._reader, run_id, path)

    def _listed(self, run_id: str, folder: str) -> list[Entry]:
        try:
            return self._reader.files(run_id, folder)
        except Exception as error:
            if not comes_from_store(error):
                raise
            return []

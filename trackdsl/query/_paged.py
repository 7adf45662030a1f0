"""Reads runs through MLflow's public client, page by page. This works with every store."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from trackdsl.query._grammar import is_nameable, is_quotable, quoted_key
from trackdsl.query._mlflow_client import client_of, downloaded
from trackdsl.query._rows import FoundExperiment, FoundRun, HistoryPoint, Search
from trackdsl.store_format.tags import ID_TAG, PARENT_TAG

if TYPE_CHECKING:
    from trackdsl.delivery.known_tables import Entry

#: MLflow's default size of a page. Larger pages take as much time per run.
_PAGE = 1000
_IDS_PER_QUERY = 100
#: For more runs than this it is quicker to ask for the children of each run.
_MOST_TO_SIFT = 5 * _PAGE
_DAY = 86_400_000


class PagedReader:
    """Reads a store through an `mlflow.MlflowClient`.

    Args:
        uri: the tracking URI.
        client: the client; it is made when it is needed, which imports MLflow.
    """

    def __init__(self, uri: str, client: Any = None) -> None:
        self.uri = uri
        if client is not None:
            self.client = client

    @cached_property
    def client(self) -> Any:
        """The client."""
        return client_of(self.uri)

    def close(self) -> None:
        """Release what the reader has opened itself."""

    def absent(self, what: str, otherwise: str, nearest: str = ".") -> str:
        """The message about something that the store does not have. Records for it may still wait for delivery.

        Args:
            what: names what was not found.
            otherwise: the message if no records wait.
            nearest: the text of a `Suggestion`.
        """
        from trackdsl.store_format.journals import absence_message

        return absence_message(what, self.uri, otherwise, nearest)

    def experiments(self, *, deleted: bool = False) -> list[FoundExperiment]:
        """The store's experiments; deleted ones only if `deleted` is true."""
        found: list[FoundExperiment] = []
        token = None
        while True:
            page = self.client.search_experiments(view_type=3 if deleted else 1, max_results=1000, page_token=token)
            found += [FoundExperiment(str(one.experiment_id), one.name) for one in page]
            token = page.token
            if not token:
                return found

    def search(self, wanted: Search) -> Iterator[FoundRun]:
        """The runs, in order. They are read page by page, as the caller iterates."""
        for page in self._pages(wanted):
            yield from (run for run in page if wanted.roots is None or wanted.roots == (run.parent is None))

    def with_ids(self, run_ids: Sequence[str]) -> list[FoundRun]:
        """The runs with these MLflow ids, including deleted ones; ids without a run are skipped."""
        everywhere = tuple(one.id for one in self.experiments(deleted=True))
        found: list[FoundRun] = []
        for start in range(0, len(run_ids), _IDS_PER_QUERY):
            part = [id_ for id_ in run_ids[start : start + _IDS_PER_QUERY] if is_quotable(id_)]
            if part:
                listed = ", ".join(f"'{id_}'" for id_ in part)
                wanted = Search(everywhere, f"attributes.run_id IN ({listed})")
                found += [run for page in self._pages(wanted, deleted=True) for run in page]
        return found

    def with_id(self, id_: str) -> list[FoundRun]:
        """The runs with this id, MLflow's or trackdsl's."""
        if not is_quotable(id_):
            return []
        found = self.with_ids([id_])
        return found or self._everywhere(f"tags.`{ID_TAG}` = '{id_}'")

    def beginning_with(self, start: str, most: int) -> list[FoundRun]:
        """Some of the runs whose id, MLflow's or trackdsl's, begins with `start`, in which `%` stands for anything."""
        found = self._everywhere(f"attributes.run_id LIKE '{start}%'", most)
        return found or self._everywhere(f"tags.`{ID_TAG}` LIKE '{start}%'", most)

    def named(self, name: str, most: int) -> list[FoundRun]:
        """Some runs with this name, newest first, and all that began in the same millisecond as the newest."""
        if not is_quotable(name):
            all_ = [run for run in self._everywhere("") if run.name == name]
            return [run for at, run in enumerate(all_) if at < most or run.start == all_[0].start]
        where = f"attributes.run_name = '{name}'"
        found = self._everywhere(where, most)
        if len(found) == most and found[0].start is not None and found[0].start == found[-1].start:
            return self._everywhere(f"{where} AND attributes.start_time = {found[0].start}")
        return found

    def descendants(self, *roots: FoundRun) -> list[FoundRun]:
        """All runs below some runs, in any order."""
        children = self._sifted(roots)
        found: dict[str, FoundRun] = {}
        level = list(roots)
        while level:
            below = [
                child
                for run in level
                for child in (self._children(run) if children is None else children.get(run.run_id, ()))
                if child.run_id not in found
            ]
            found.update((run.run_id, run) for run in below)
            level = below
        return list(found.values())

    def descendant_ids(self, roots: Sequence[FoundRun]) -> set[str]:
        """MLflow's ids of all runs below some runs."""
        return {run.run_id for run in self.descendants(*roots)} if roots else set()

    def history(self, run_id: str, key: str) -> list[HistoryPoint]:
        """All points of a metric."""
        return [
            HistoryPoint(point.step, point.value, point.timestamp)
            for point in self.client.get_metric_history(run_id, key)
        ]

    def has_key(self, kind: str, key: str, experiments: tuple[str, ...]) -> bool:
        """Whether any run has a metric, parameter or tag with this name."""
        if not is_nameable(key):
            # MLflow's filters cannot contain such names. Only tags that are passed to `create_run` can have them.
            return kind == "tags" and any(key in run.tags for run in self.search(Search(experiments)))
        # This value is so unlikely that every run with the metric passes; one with NaN passes too.
        where = "!= 1.0e-300" if kind == "metrics" else "LIKE '%'"
        found = self.search(Search(experiments, f"{kind}.{quoted_key(key)} {where}", limit=1))
        return next(found, None) is not None

    def keys(self, experiments: tuple[str, ...]) -> dict[str, set[str]]:
        """The names of metrics, params and tags of the newest runs."""
        found: dict[str, set[str]] = {"metrics": set(), "params": set(), "tags": set()}
        for run in next(self._pages(Search(experiments, limit=_PAGE)), ()):
            for kind, names in found.items():
                names.update(run.of_kind(kind))
        return found

    def content(self, run_id: str, path: str) -> bytes | None:
        """The content of an artifact; None if there is none. Whatever the store raises is raised."""
        return downloaded(self.client, run_id, path)

    def files(self, run_id: str, folder: str) -> list[Entry]:
        """What is directly in a folder of a run's artifacts, by path. Whatever the store raises is raised."""
        from trackdsl.delivery.known_tables import Entry

        found = self.client.list_artifacts(run_id, folder or None)
        return [Entry(one.path, bool(one.is_dir), one.file_size) for one in found]

    def _pages(self, wanted: Search, *, deleted: bool = False) -> Iterator[list[FoundRun]]:
        if wanted.experiments:
            size = _PAGE if wanted.roots is not None else min(_PAGE, wanted.limit or _PAGE)
            yield from self._found_pages(
                list(wanted.experiments), wanted.filter, list(wanted.order_by), size, deleted=deleted
            )

    def _found_pages(
        self, experiments: list[str], wanted: str, order: list[str], size: int, *, deleted: bool
    ) -> Iterator[list[FoundRun]]:
        """The pages of a search."""
        token = None
        while True:
            page = self.client.search_runs(
                experiments,
                wanted,
                run_view_type=3 if deleted else 1,
                max_results=size,
                order_by=order,
                page_token=token,
            )
            yield [found_of(run) for run in page]
            token = page.token
            if not token:
                return

    def _everywhere(self, where: str, most: int | None = None) -> list[FoundRun]:
        experiments = tuple(one.id for one in self.experiments(deleted=True))
        found: list[FoundRun] = []
        for page in self._pages(Search(experiments, where, limit=most)):
            found += page
            if most is not None and len(found) >= most:
                return found[:most]
        return found

    def _children(self, run: FoundRun) -> list[FoundRun]:
        return self._everywhere(f"tags.`{PARENT_TAG}` = '{run.run_id}'")

    def _sifted(self, roots: Sequence[FoundRun]) -> dict[str, list[FoundRun]] | None:
        """All runs with a parent since the first of the roots began, by parent; None if there are too many."""
        experiments = tuple(one.id for one in self.experiments())
        # From a day before, because the clocks of machines differ.
        first = min(root.start or 0 for root in roots)
        since = f" AND attributes.start_time >= {max(0, first - _DAY)}" if first else ""
        found: dict[str, list[FoundRun]] = {}
        count = 0
        for page in self._pages(Search(experiments, f"tags.`{PARENT_TAG}` LIKE '%'{since}")):
            count += len(page)
            if count > _MOST_TO_SIFT:
                return None
            for run in page:
                found.setdefault(run.parent or "", []).append(run)
        return found


def found_of(run: Any) -> FoundRun:
    """Convert an MLflow run."""
    info, data = run.info, run.data
    return FoundRun(
        run_id=info.run_id,
        name=info.run_name or "",
        experiment_id=str(info.experiment_id),
        status=str(info.status),
        start=info.start_time,
        end=info.end_time,
        params=data.params,
        metrics=data.metrics,
        tags=data.tags,
    )

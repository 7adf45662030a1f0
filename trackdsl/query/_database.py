"""Reads runs directly from the tables of a database store, many at a time.

`MlflowClient.search_runs` creates an object for every parameter, metric and tag, which takes a millisecond per run, and
`import mlflow` takes seconds. So where the version of the tables is known, MLflow is not imported, except for filters
of unusual form and for artifacts that are elsewhere. Other tables are read through MLflow's connections.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from trackdsl.delivery.known_tables import MOST_VALUES, Row, marks, open_tables
from trackdsl.query._filters import Comparison, Order, read_filter, read_order
from trackdsl.query._mlflow_client import client_of, store_of
from trackdsl.query._paged import PagedReader
from trackdsl.query._rows import FoundExperiment, FoundRun, HistoryPoint, Search
from trackdsl.query._selection import ACTIVE, COLUMNS, TABLES, Selection, listed
from trackdsl.store_format.tags import ID_TAG, PARENT_TAG, RUN_NAME_TAG

if TYPE_CHECKING:
    from trackdsl.delivery.known_tables import Entry, LocalArtifacts

#: How many runs are read at once: few at first, because the caller may need only the first.
_FIRST_PART = 50


class Tables(Protocol):
    """MLflow's tables: a `Connection` of delivery, or `MlflowTables`."""

    dialect: str

    def rows(self, statement: str, values: Sequence[Any] = ()) -> list[Row]:
        """The rows of a query; `?` stands for a value."""

    def close(self) -> None:
        """Close the connection."""


class DatabaseReader(PagedReader):
    """Reads a store whose tables can be reached.

    Args:
        uri: the tracking URI.
        tables: MLflow's tables.
        client: MLflow's client of the store, if it opened the tables; else their version is known.
    """

    def __init__(self, uri: str, tables: Tables, client: Any = None) -> None:
        super().__init__(uri, client)
        self._tables = tables
        self._known = client is None
        self._in_workspaces = bool(getattr(store_of(client), "supports_workspaces", False))

    def close(self) -> None:
        """See `PagedReader`."""
        self._tables.close()

    def experiments(self, *, deleted: bool = False) -> list[FoundExperiment]:
        """See `PagedReader`."""
        if not self._known:
            return super().experiments(deleted=deleted)
        stage = "" if deleted else "WHERE lifecycle_stage = 'active'"
        statement = f"SELECT experiment_id, name FROM experiments {stage} ORDER BY creation_time DESC, experiment_id"  # noqa: S608
        return [FoundExperiment(str(id_), name) for id_, name in self._tables.rows(statement)]

    def search(self, wanted: Search) -> Iterator[FoundRun]:
        """See `PagedReader`."""
        if not wanted.experiments:
            return
        rows = self._found(wanted)
        yield from super().search(wanted) if rows is None else self._filled(rows)

    def with_ids(self, run_ids: Sequence[str]) -> list[FoundRun]:
        """See `PagedReader`."""
        found: list[FoundRun] = []
        for part in _parts(run_ids):
            statement = f"SELECT {COLUMNS} FROM runs r WHERE r.run_uuid IN ({marks(part)}){self._visible()}"  # noqa: S608
            found += self._filled(self._tables.rows(statement, part))
        return found

    def with_id(self, id_: str) -> list[FoundRun]:
        """See `PagedReader`."""
        return self.with_ids([id_]) or list(self._filled(self._tagged(ID_TAG, [id_])))

    def named(self, name: str, most: int) -> list[FoundRun]:
        """See `PagedReader`."""
        if "\0" in name or any("\ud800" <= one <= "\udfff" for one in name):
            return []  # No database can hold it.
        everywhere = tuple(one.id for one in self.experiments(deleted=True))
        called = Comparison("attributes", "run_name", "=", name)
        rows = self._selected(Search(everywhere, limit=most), (called,), ())
        if len(rows) == most and rows[0][4] is not None and rows[0][4] == rows[-1][4]:
            at_once = Comparison("attributes", "start_time", "=", rows[0][4])
            rows = self._selected(Search(everywhere), (called, at_once), ())
        return list(self._filled(rows))

    def descendants(self, *roots: FoundRun) -> list[FoundRun]:
        """See `PagedReader`."""
        return self.with_ids(list(self._below(roots)))

    def descendant_ids(self, roots: Sequence[FoundRun]) -> set[str]:
        """See `PagedReader`."""
        return set(self._below(roots))

    def history(self, run_id: str, key: str) -> list[HistoryPoint]:
        """See `PagedReader`."""
        statement = 'SELECT step, value, is_nan, timestamp FROM metrics WHERE run_uuid = ? AND "key" = ?'
        rows = self._tables.rows(statement, (run_id, key))
        return [HistoryPoint(step, math.nan if is_nan else value, time) for step, value, is_nan, time in rows]

    def has_key(self, kind: str, key: str, experiments: tuple[str, ...]) -> bool:
        """See `PagedReader`."""
        statement = f'{_joined("1", kind, experiments)} AND v."key" = ? LIMIT 1'
        return bool(self._tables.rows(statement, (key,)))

    def keys(self, experiments: tuple[str, ...]) -> dict[str, set[str]]:
        """See `PagedReader`."""
        statements = {kind: _joined('DISTINCT v."key"', kind, experiments) for kind in TABLES}
        return {kind: {key for (key,) in self._tables.rows(text)} for kind, text in statements.items()}

    def content(self, run_id: str, path: str) -> bytes | None:
        """See `PagedReader`."""
        folder = self._folder(run_id, path)
        return super().content(run_id, path) if folder is None else _local_artifacts().read(folder, path)

    def files(self, run_id: str, folder: str) -> list[Entry]:
        """See `PagedReader`."""
        root = self._folder(run_id, folder)
        return super().files(run_id, folder) if root is None else _local_artifacts().entries(root, folder)

    def _found(self, wanted: Search) -> list[Row] | None:
        """The rows of the runs, in order; None if only MLflow's client can find them."""
        if self._known:
            where, prefilter, orders = (
                read_filter(wanted.where),
                read_filter(wanted.prefilter),
                read_order(wanted.order_by),
            )
            if where is not None and prefilter is not None and orders is not None and not self._nan_decides(where):
                return self._selected(wanted, (*where, *prefilter), orders)
        from trackdsl.query._mlflow_search import found_by_mlflow

        return found_by_mlflow(store_of(self.client), wanted)

    def _everywhere(self, where: str, most: int | None = None) -> list[FoundRun]:
        everywhere = tuple(one.id for one in self.experiments(deleted=True))
        return list(self.search(Search(everywhere, where, limit=most)))

    def _nan_decides(self, comparisons: Sequence[Comparison]) -> bool:
        """Whether a metric that is compared is NaN in some run: then versions of MLflow differ."""
        keys = [one.key for one in comparisons if one.kind == "metrics"]
        statement = f'SELECT 1 FROM latest_metrics WHERE "key" IN ({marks(keys)}) AND is_nan LIMIT 1'  # noqa: S608
        return bool(keys) and bool(self._tables.rows(statement, keys))

    def _selected(self, wanted: Search, comparisons: Sequence[Comparison], orders: Sequence[Order]) -> list[Row]:
        selection = Selection(self._tables.dialect)
        selection.within(wanted.experiments)
        if wanted.roots is not None:
            selection.with_parent(not wanted.roots)
        for comparison in comparisons:
            selection.passing(comparison)
        selection.ordered(orders)
        return self._tables.rows(*selection.statement(wanted.limit))

    def _below(self, roots: Sequence[FoundRun]) -> dict[str, None]:
        found: dict[str, None] = {}
        level = [root.run_id for root in roots]
        while level:
            level = [row[0] for row in self._tagged(PARENT_TAG, level) if row[0] not in found]
            found.update(dict.fromkeys(level))
        return found

    def _tagged(self, key: str, values: Sequence[str]) -> list[Row]:
        """The rows of active runs that have a tag with one of these values."""
        found: list[Row] = []
        for part in _parts(values):
            found += self._tables.rows(
                f"SELECT {COLUMNS} FROM runs r JOIN tags t ON t.run_uuid = r.run_uuid "  # noqa: S608
                f'WHERE t."key" = ? AND t.value IN ({marks(part)}) AND {ACTIVE}{self._visible()}',
                (key, *part),
            )
        return found

    def _visible(self) -> str:
        """A condition that excludes runs of other workspaces, which the stores of some servers have."""
        if not self._in_workspaces:
            return ""
        return f" AND r.experiment_id IN ({listed(one.id for one in self.experiments(deleted=True))})"

    def _folder(self, run_id: str, path: str) -> Path | None:
        """The local folder of a run's artifacts; None if only MLflow knows where one is.

        MLflow also finds the files of a model that the run has logged, below the model's name.
        """
        from trackdsl.delivery.known_tables import local_folder

        rows = self._tables.rows("SELECT artifact_uri FROM runs WHERE run_uuid = ?", (run_id,)) if self._known else []
        folder = local_folder(rows[0][0]) if rows and rows[0][0] else None
        model = path.partition("/")[0]
        of_model = "SELECT 1 FROM logged_models WHERE source_run_id = ? AND name = ? LIMIT 1"
        return None if folder is None or (model and self._tables.rows(of_model, (run_id, model))) else folder

    def _filled(self, rows: Sequence[Row]) -> Iterator[FoundRun]:
        """The runs of some rows, with their parameters, metrics and tags."""
        for part in _parts(rows, _FIRST_PART):
            ids = [row[0] for row in part]
            params, tags, metrics = self._texts("params", ids), self._texts("tags", ids), self._metrics(ids)
            for id_, name, experiment, status, start, end in part:
                yield FoundRun(
                    run_id=id_,
                    name=name or tags[id_].get(RUN_NAME_TAG) or "",
                    experiment_id=str(experiment),
                    status=status,
                    start=start,
                    end=end,
                    params=params[id_],
                    metrics=metrics[id_],
                    tags=tags[id_],
                )

    def _texts(self, table: str, ids: list[str]) -> dict[str, dict[str, str]]:
        found: dict[str, dict[str, str]] = {id_: {} for id_ in ids}
        statement = f'SELECT run_uuid, "key", value FROM {table} WHERE run_uuid IN ({marks(ids)})'  # noqa: S608
        for id_, key, value in self._tables.rows(statement, ids):
            found[id_][key] = value
        return found

    def _metrics(self, ids: list[str]) -> dict[str, dict[str, float]]:
        found: dict[str, dict[str, float]] = {id_: {} for id_ in ids}
        statement = f'SELECT run_uuid, "key", value, is_nan FROM latest_metrics WHERE run_uuid IN ({marks(ids)})'  # noqa: S608
        for id_, key, value, is_nan in self._tables.rows(statement, ids):
            found[id_][key] = math.nan if is_nan else value
        return found


def reader_for(uri: str) -> PagedReader:
    """The fastest reader of a store that works with this version of MLflow.

    Args:
        uri: the tracking URI.
    """
    tables = open_tables(uri, os.getcwd())
    if tables is not None:
        return DatabaseReader(uri, tables)
    if uri.startswith(("http://", "https://")):
        # These import `requests`, which a query of a database does not need.
        from trackdsl.delivery.known_server import KnownServer
        from trackdsl.query._server import ServerReader

        return ServerReader(uri, KnownServer(uri))
    client = client_of(uri)
    from trackdsl.query._mlflow_search import MlflowTables, can_be_read

    store = store_of(client)
    if store is not None and can_be_read(store):
        return DatabaseReader(uri, MlflowTables(store), client)
    return PagedReader(uri, client)


def _joined(selected: str, kind: str, experiments: tuple[str, ...]) -> str:
    """A statement about the named values of a kind of the active runs of experiments."""
    return (
        f"SELECT {selected} FROM {TABLES[kind]} v JOIN runs r ON r.run_uuid = v.run_uuid "  # noqa: S608
        f"WHERE r.experiment_id IN ({listed(experiments)}) AND {ACTIVE}"
    )


def _parts(items: Sequence[Any], first: int = MOST_VALUES - 1) -> Iterator[Sequence[Any]]:
    start, size = 0, first
    while start < len(items):
        yield items[start : start + size]
        start, size = start + size, min(size * 4, MOST_VALUES - 1)


def _local_artifacts() -> LocalArtifacts:
    from trackdsl.delivery.known_tables import LocalArtifacts

    return LocalArtifacts()

"""Reads runs directly from the tables of a database store, many at a time.

`MlflowClient.search_runs` creates an object for every parameter, metric and tag, which takes a millisecond per run.
Here MLflow's own code parses the filter and converts it to SQL, so that it means the same. The content of the runs is
then read in bulk. If a version of MLflow has changed the private functions that this needs, the public client is used.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from trackdsl.query._grammar import language_of_mlflow
from trackdsl.query._paged import PagedReader
from trackdsl.query._rows import ID_TAG, PARENT_TAG, FoundRun, HistoryPoint, Search

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

#: How many runs are read at once: few at first, because the caller may need only the first. SQLite allows at least 999
#: variables.
_FIRST_PART = 50
_LARGEST_PART = 900
_POINTS_AT_ONCE = 25_000


class DatabaseReader(PagedReader):
    """Reads a store whose tables can be reached.

    Args:
        client: MLflow's client of it.
        store: the `SqlAlchemyStore` behind the client.
    """

    def __init__(self, client: Any, store: Any) -> None:
        super().__init__(client)
        self._store = store

    def search(self, wanted: Search) -> Iterator[FoundRun]:
        """See `PagedReader`."""
        if not wanted.experiments:
            return
        with self._store.ManagedSessionMaker() as session:
            try:
                statement = self._statement(session, wanted)
            except (AttributeError, ImportError, LookupError, TypeError, ValueError):
                statement = None  # MLflow's private functions have changed: use its client.
            if statement is not None:
                yield from _filled(session, session.execute(statement).all())
        if statement is None:
            yield from super().search(wanted)

    def with_ids(self, run_ids: Sequence[str]) -> list[FoundRun]:
        """See `PagedReader`."""
        from mlflow.store.tracking.dbmodels.models import SqlRun

        found: list[FoundRun] = []
        with self._store.ManagedSessionMaker() as session:
            for part in _parts(run_ids):
                statement = _of_runs().where(SqlRun.run_uuid.in_(part), self._visible())
                found += _filled(session, session.execute(statement).all())
        return found

    def with_id(self, id_: str) -> list[FoundRun]:
        """See `PagedReader`."""
        return self.with_ids([id_]) or self._with_tag(ID_TAG, [id_])

    def descendants(self, root: FoundRun) -> list[FoundRun]:
        """See `PagedReader`."""
        found: dict[str, None] = {}
        level = [root.run_id]
        with self._store.ManagedSessionMaker() as session:
            while level:
                below = [row[0] for row in self._tagged(session, PARENT_TAG, level) if row[0] not in found]
                found.update(dict.fromkeys(below))
                level = below
        return self.with_ids(list(found))

    def history(self, run_id: str, key: str) -> list[HistoryPoint]:
        """See `PagedReader`."""
        from mlflow.store.tracking.dbmodels.models import SqlMetric
        from sqlalchemy import select

        columns: tuple[Any, ...] = (SqlMetric.step, SqlMetric.value, SqlMetric.is_nan, SqlMetric.timestamp)
        statement: Any = select(*columns).where(SqlMetric.run_uuid == run_id, SqlMetric.key == key)
        with self._store.ManagedSessionMaker() as session:
            rows = session.execute(statement.execution_options(yield_per=_POINTS_AT_ONCE))
            return [HistoryPoint(step, math.nan if is_nan else value, time) for step, value, is_nan, time in rows]

    def has_key(self, kind: str, key: str, experiments: tuple[str, ...]) -> bool:
        """See `PagedReader`."""
        table = _table(kind)
        with self._store.ManagedSessionMaker() as session:
            statement = _joined(table.run_uuid, experiments).where(table.key == key).limit(1)
            return session.execute(statement).first() is not None

    def keys(self, experiments: tuple[str, ...]) -> dict[str, set[str]]:
        """See `PagedReader`."""
        with self._store.ManagedSessionMaker() as session:
            return {
                kind: set(session.execute(_joined(_table(kind).key, experiments).distinct()).scalars())
                for kind in ("metrics", "params", "tags")
            }

    def _with_tag(self, key: str, values: Sequence[str]) -> list[FoundRun]:
        with self._store.ManagedSessionMaker() as session:
            return list(_filled(session, self._tagged(session, key, values)))

    def _tagged(self, session: Session, key: str, values: Sequence[str]) -> list[Any]:
        """The rows of active runs that have a tag with one of these values."""
        from mlflow.store.tracking.dbmodels.models import SqlRun, SqlTag

        found: list[Any] = []
        for part in _parts(values):
            statement = _of_runs().join(SqlTag, SqlTag.run_uuid == SqlRun.run_uuid)
            statement = statement.where(SqlTag.key == key, SqlTag.value.in_(part))
            found += session.execute(statement.where(SqlRun.lifecycle_stage == "active", self._visible())).all()
        return found

    def _visible(self) -> Any:
        """A condition that excludes runs of other workspaces, which the stores of some servers have."""
        from mlflow.store.tracking.dbmodels.models import SqlRun
        from sqlalchemy import true

        if not getattr(self._store, "supports_workspaces", False):
            return true()
        return SqlRun.experiment_id.in_([int(one.id) for one in self.experiments(deleted=True)])

    def _statement(self, session: Session, wanted: Search) -> Any:
        """The statement of `SqlAlchemyStore._search_runs`, without the content of the runs."""
        from mlflow.store.tracking import sqlalchemy_store
        from mlflow.store.tracking.dbmodels.models import SqlRun

        ours: Any = sqlalchemy_store
        parsed = language_of_mlflow().parse_search_filter(wanted.where)
        selected, order, sorting = ours._get_orderby_clauses(list(wanted.order_by), session)
        conditions, joined, datasets = ours._get_sqlalchemy_filter_clauses(parsed, session, self._store._get_dialect())
        statement = _of_runs().add_columns(*selected)
        for part in joined:
            statement = statement.join(part, SqlRun.run_uuid == part.c.run_uuid)
        for part in datasets:
            statement = statement.join(part, SqlRun.run_uuid == part.c.destination_id).distinct()
        for part in sorting:
            statement = statement.outerjoin(part, SqlRun.run_uuid == part.c.run_uuid)
        statement = statement.where(
            SqlRun.experiment_id.in_([int(id_) for id_ in wanted.experiments]),
            SqlRun.lifecycle_stage == "active",
            *conditions,
            *_with_or_without_parent(wanted.roots),
        ).order_by(*order)
        return statement if wanted.limit is None else statement.limit(wanted.limit)


def reader_for(client: Any) -> PagedReader:
    """The fastest reader that works with this version of MLflow and this store."""
    store = getattr(getattr(client, "_tracking_client", None), "store", None)
    return DatabaseReader(client, store) if store is not None and _can_be_read_directly(store) else PagedReader(client)


def _can_be_read_directly(store: Any) -> bool:
    try:
        from mlflow.store.tracking import sqlalchemy_store
        from mlflow.store.tracking.dbmodels import models

        tables = (models.SqlRun, models.SqlParam, models.SqlLatestMetric, models.SqlTag, models.SqlMetric)
        two = list(inspect.signature(sqlalchemy_store._get_orderby_clauses).parameters)
        three = list(inspect.signature(sqlalchemy_store._get_sqlalchemy_filter_clauses).parameters)
    except (ImportError, AttributeError, TypeError, ValueError):
        return False
    return (
        (len(two), len(three), len(tables)) == (2, 3, 5)
        and hasattr(language_of_mlflow(), "parse_search_filter")
        and isinstance(store, sqlalchemy_store.SqlAlchemyStore)
        and hasattr(store, "ManagedSessionMaker")
        and hasattr(store, "_get_dialect")
    )


def _table(kind: str) -> Any:
    from mlflow.store.tracking.dbmodels import models

    return {"metrics": models.SqlLatestMetric, "params": models.SqlParam, "tags": models.SqlTag}[kind]


def _of_runs() -> Any:
    from mlflow.store.tracking.dbmodels.models import SqlRun
    from sqlalchemy import select

    columns = (SqlRun.run_uuid, SqlRun.name, SqlRun.experiment_id, SqlRun.status, SqlRun.start_time, SqlRun.end_time)
    return select(*columns).select_from(SqlRun)


def _with_or_without_parent(roots: bool | None) -> Iterator[Any]:
    """The condition of `Search.roots`."""
    from mlflow.store.tracking.dbmodels.models import SqlRun, SqlTag
    from sqlalchemy import select

    if roots is not None:
        of_run: Any = select(SqlTag.value).where(SqlTag.run_uuid == SqlRun.run_uuid, SqlTag.key == PARENT_TAG)
        has_parent = of_run.where(SqlTag.value != "").exists()
        yield ~has_parent if roots else has_parent


def _joined(column: Any, experiments: tuple[str, ...]) -> Any:
    from mlflow.store.tracking.dbmodels.models import SqlRun
    from sqlalchemy import select

    statement = select(column).join(SqlRun, column.class_.run_uuid == SqlRun.run_uuid)
    ids = [int(id_) for id_ in experiments]
    return statement.where(SqlRun.experiment_id.in_(ids), SqlRun.lifecycle_stage == "active")


def _parts(items: Sequence[Any], first: int = _LARGEST_PART) -> Iterator[Sequence[Any]]:
    start, size = 0, first
    while start < len(items):
        yield items[start : start + size]
        start, size = start + size, min(size * 4, _LARGEST_PART)


def _filled(session: Session, rows: Sequence[Any]) -> Iterator[FoundRun]:
    """The runs of some rows, with their parameters, metrics and tags."""
    for part in _parts(rows, _FIRST_PART):
        ids = [row[0] for row in part]
        params, tags = (_texts(session, _table(kind), ids) for kind in ("params", "tags"))
        metrics = _metrics(session, ids)
        for id_, name, experiment, status, start, end, *_ in part:
            yield FoundRun(
                run_id=id_,
                name=name or tags[id_].get("mlflow.runName") or "",
                experiment_id=str(experiment),
                status=status,
                start=start,
                end=end,
                params=params[id_],
                metrics=metrics[id_],
                tags=tags[id_],
            )


def _texts(session: Session, table: Any, ids: list[str]) -> dict[str, dict[str, str]]:
    from sqlalchemy import select

    found: dict[str, dict[str, str]] = {id_: {} for id_ in ids}
    columns = table.__table__.c
    statement = select(columns.run_uuid, columns.key, columns.value).where(columns.run_uuid.in_(ids))
    # Through the connection: the session would convert each row, which is slower.
    for id_, key, value in session.connection().execute(statement):
        found[id_][key] = value
    return found


def _metrics(session: Session, ids: list[str]) -> dict[str, dict[str, float]]:
    from sqlalchemy import select

    columns = _table("metrics").__table__.c
    found: dict[str, dict[str, float]] = {id_: {} for id_ in ids}
    wanted = (columns.run_uuid, columns.key, columns.value, columns.is_nan)
    for id_, key, value, is_nan in session.connection().execute(select(*wanted).where(columns.run_uuid.in_(ids))):
        found[id_][key] = math.nan if is_nan else value
    return found

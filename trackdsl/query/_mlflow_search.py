"""What only MLflow can read of a database: filters of unusual form, and tables whose version is not known.

MLflow's own code parses the filter and converts it to SQL, so that it means the same. If a version of MLflow has
changed the private functions that this needs, its public client is used.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from typing import Any

from trackdsl.delivery.known_tables import Row, for_driver
from trackdsl.query._grammar import language_of_mlflow
from trackdsl.query._rows import Search
from trackdsl.store_format.tags import PARENT_TAG


class MlflowTables:
    """The tables of a store, through the connections of MLflow.

    Args:
        store: MLflow's `SqlAlchemyStore`.
    """

    def __init__(self, store: Any) -> None:
        self._store = store
        self.dialect = str(store._get_dialect())

    def rows(self, statement: str, values: Sequence[Any] = ()) -> list[Row]:
        """The rows of a query; `?` stands for a value."""
        text = for_driver(statement, self.dialect)
        with self._store.ManagedSessionMaker() as session:
            return [tuple(row) for row in session.connection().exec_driver_sql(text, tuple(values))]

    def close(self) -> None:
        """The connections stay open, for MLflow."""


def can_be_read(store: Any) -> bool:
    """Whether a store has the tables and the private functions that are needed."""
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
        and store._get_dialect() in ("sqlite", "postgresql", "mysql")  # type: ignore[no-untyped-call]
    )


def found_by_mlflow(store: Any, wanted: Search) -> list[Row] | None:
    """The rows of `_selection.COLUMNS` of the runs that MLflow finds; None if its private functions have changed."""
    if not can_be_read(store):
        return None
    with store.ManagedSessionMaker() as session:
        try:
            statement = _statement(store, session, wanted)
        except (AttributeError, ImportError, LookupError, TypeError, ValueError):
            return None
        return [tuple(row)[:6] for row in session.execute(statement)]


def _statement(store: Any, session: Any, wanted: Search) -> Any:
    """The statement of `SqlAlchemyStore._search_runs`, without the content of the runs."""
    from mlflow.store.tracking import sqlalchemy_store
    from mlflow.store.tracking.dbmodels.models import SqlRun
    from sqlalchemy import select

    ours: Any = sqlalchemy_store
    parsed = language_of_mlflow().parse_search_filter(wanted.filter)
    selected, order, sorting = ours._get_orderby_clauses(list(wanted.order_by), session)
    conditions, joined, datasets = ours._get_sqlalchemy_filter_clauses(parsed, session, store._get_dialect())
    columns = (SqlRun.run_uuid, SqlRun.name, SqlRun.experiment_id, SqlRun.status, SqlRun.start_time, SqlRun.end_time)
    statement = select(*columns, *selected).select_from(SqlRun)
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


def _with_or_without_parent(roots: bool | None) -> Iterator[Any]:
    """The condition of `Search.roots`."""
    from mlflow.store.tracking.dbmodels.models import SqlRun, SqlTag
    from sqlalchemy import select

    if roots is not None:
        of_run: Any = select(SqlTag.value).where(SqlTag.run_uuid == SqlRun.run_uuid, SqlTag.key == PARENT_TAG)
        has_parent = of_run.where(SqlTag.value != "").exists()
        yield ~has_parent if roots else has_parent

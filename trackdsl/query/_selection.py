"""SQL that selects and orders runs in MLflow's tables, as `SqlAlchemyStore._search_runs` of MLflow does."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from trackdsl.query._filters import Comparison, Order
from trackdsl.store_format.tags import PARENT_TAG, RUN_NAME_TAG

COLUMNS = "r.run_uuid, r.name, r.experiment_id, r.status, r.start_time, r.end_time"
#: The tables with the named values of runs, by kind.
TABLES = {"metrics": "latest_metrics", "params": "params", "tags": "tags"}
ACTIVE = "r.lifecycle_stage = 'active'"
_HAS_PARENT = "EXISTS (SELECT 1 FROM tags p WHERE p.run_uuid = r.run_uuid AND p.\"key\" = ? AND p.value <> '')"


@dataclass
class Selection:
    """Which runs a statement selects, and in which order.

    Args:
        dialect: of the database.
    """

    dialect: str
    _joins: list[str] = field(default_factory=list, init=False)
    _join_values: list[Any] = field(default_factory=list, init=False)
    _conditions: list[str] = field(default_factory=lambda: [ACTIVE], init=False)
    _condition_values: list[Any] = field(default_factory=list, init=False)
    _order: list[str] = field(default_factory=list, init=False)

    def within(self, experiments: Iterable[str]) -> None:
        """Only runs of these experiments."""
        self._conditions.append(f"r.experiment_id IN ({listed(experiments)})")

    def with_parent(self, wanted: bool) -> None:
        """Only runs with a parent, or only runs without one."""
        self._conditions.append(_HAS_PARENT if wanted else f"NOT {_HAS_PARENT}")
        self._condition_values.append(PARENT_TAG)

    def passing(self, comparison: Comparison) -> None:
        """Only runs that pass a comparison."""
        kind, key, value = comparison.kind, comparison.key, comparison.value
        if kind == "attributes" and key == "run_name":
            kind, key = "tags", RUN_NAME_TAG  # Runs of MLflow before 1.30 have their names only there.
        if kind == "attributes":
            text, values = self._compared(f"r.{_column(key)}", comparison.operator, value)
            self._conditions.append(text)
            self._condition_values += values
            return
        name = f"f{len(self._joins)}"
        same_key, keys = self._compared(f'{name}."key"', "=", key)
        text, values = self._compared(f"{name}.value", comparison.operator, value)
        if kind == "metrics":  # The value next to NaN is 0.
            text = f"({text} OR {name}.is_nan)" if comparison.operator == "!=" else f"{text} AND NOT {name}.is_nan"
        self._joins.append(f"JOIN {TABLES[kind]} {name} ON {name}.run_uuid = r.run_uuid AND {same_key} AND {text}")
        self._join_values += [*keys, *values]

    def ordered(self, orders: Sequence[Order]) -> None:
        """Runs in an order; those without a value come last, and of equal ones the newest first."""
        for order in orders:
            column, absent = f"r.{_column(order.key)}", ""
            if order.kind != "attributes":
                name = f"o{len(self._joins)}"
                table = TABLES[order.kind]
                self._joins.append(f'LEFT JOIN {table} {name} ON {name}.run_uuid = r.run_uuid AND {name}."key" = ?')
                self._join_values.append(order.key)
                column = f"{name}.value"
                absent = f"WHEN {name}.is_nan THEN 1 " if order.kind == "metrics" else ""
            way = "" if order.ascending else " DESC"
            self._order += [f"CASE {absent}WHEN {column} IS NULL THEN 2 ELSE 0 END", f"{column}{way}"]
        if not any(order.kind == "attributes" and order.key == "start_time" for order in orders):
            self._order.append("r.start_time DESC")
        self._order.append("r.run_uuid")

    def statement(self, limit: int | None) -> tuple[str, list[Any]]:
        """The statement and its values."""
        text = f"SELECT {COLUMNS} FROM runs r {' '.join(self._joins)} WHERE {' AND '.join(self._conditions)}"  # noqa: S608
        text += f" ORDER BY {', '.join(self._order)}" if self._order else ""
        text += "" if limit is None else f" LIMIT {int(limit)}"
        return text, [*self._join_values, *self._condition_values]

    def _compared(self, column: str, operator: str, value: Any) -> tuple[str, list[Any]]:
        """A comparison of a column, and its values. MLflow makes text in MySQL differ by case."""
        if operator == "ILIKE" and self.dialect != "postgresql":
            return f"lower({column}) LIKE lower(?)", [value]
        if self.dialect == "mysql" and isinstance(value, str) and operator != "ILIKE":
            either = "OR" if operator == "!=" else "AND"
            return f"({column} {operator} ? {either} BINARY {column} {operator} ?)", [value, value]
        return f"{column} {operator} ?", [value]


def listed(experiments: Iterable[str]) -> str:
    """Ids of experiments as literals for `IN`, as there may be more than a statement may have parameters."""
    return ", ".join(str(int(id_)) for id_ in experiments) or "NULL"


def _column(attribute: str) -> str:
    return {"run_id": "run_uuid", "run_name": "name"}.get(attribute, attribute)

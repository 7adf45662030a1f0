"""Inserting rows that may exist, in the dialect of each database.

Sources: sqlite.org/lang_upsert.html, PostgreSQL's `INSERT … ON CONFLICT`, MySQL's `INSERT … ON DUPLICATE KEY UPDATE`.
"""

from __future__ import annotations

from dataclasses import dataclass

_NEWER = "(excluded.step, excluded.timestamp, excluded.value) > ({0}.step, {0}.timestamp, {0}.value)"
#: MySQL assigns from left to right: with this order, the comparison has the same result for each column.
_MYSQL_LATEST = ("is_nan", "value", "timestamp", "step")


@dataclass(frozen=True)
class Upserts:
    """The clauses after the values of an `INSERT`: what happens to a row that exists.

    Attributes:
        keep: a row that exists stays.
        set_tag: a tag gets the new value.
        newer_metric: the latest point of a metric is replaced by one that comes later, as MLflow orders points: by
            step, time, and value.
    """

    keep: str
    set_tag: str
    newer_metric: str


def upserts(dialect: str) -> Upserts:
    """The upserts of a dialect: `sqlite`, `postgresql` or `mysql`."""
    if dialect == "mysql":
        newer = "(VALUES(step), VALUES(timestamp), VALUES(value)) > (step, timestamp, value)"
        assigned = ", ".join(f"{name} = IF({newer}, VALUES({name}), {name})" for name in _MYSQL_LATEST)
        return Upserts(
            'ON DUPLICATE KEY UPDATE "key" = "key"',
            "ON DUPLICATE KEY UPDATE value = VALUES(value)",
            f"ON DUPLICATE KEY UPDATE {assigned}",
        )
    latest = ", ".join(f"{name} = excluded.{name}" for name in _MYSQL_LATEST)
    return Upserts(
        "ON CONFLICT DO NOTHING",
        'ON CONFLICT ("key", run_uuid) DO UPDATE SET value = excluded.value',
        f'ON CONFLICT ("key", run_uuid) DO UPDATE SET {latest} WHERE {_NEWER.format("latest_metrics")}',
    )

"""The attributes of a run, such as its name and status: the first columns of the frame."""

from __future__ import annotations

import math
from datetime import UTC, date, datetime
from typing import Any

from trackdsl._core.suggest import suggestion_for
from trackdsl.errors import QueryError
from trackdsl.query._grammar import is_quotable
from trackdsl.query._rows import FoundRun
from trackdsl.store_format.tags import ID_TAG, PARENT_TAG, PATH_TAG

COLUMNS = ("run_id", "id", "name", "experiment", "status", "start", "duration", "parent", "path")
STATUSES = ("FINISHED", "FAILED", "KILLED", "RUNNING", "SCHEDULED")
#: Their names in MLflow's filters and orders.
IN_MLFLOW = {
    "run_id": "attributes.run_id",
    "id": f"tags.`{ID_TAG}`",
    "name": "attributes.run_name",
    "status": "attributes.status",
    "start": "attributes.start_time",
    "parent": f"tags.`{PARENT_TAG}`",
    "path": f"tags.`{PATH_TAG}`",
}


def is_time(value: Any) -> bool:
    """Whether a value is a point in time."""
    return isinstance(value, (date, datetime))


def value_of(run: FoundRun, name: str) -> Any:
    """The value of an attribute of a run; times in milliseconds since 1970."""
    if name == "path":
        return run.tags.get(PATH_TAG)
    return getattr(run, name)


def checked(name: str, operator: str, value: Any) -> Any:
    """A value that can be compared with an attribute.

    Raises:
        QueryError: the value has a wrong type, or the operator does not fit.
    """
    if operator == "in":
        return tuple(checked(name, "eq", one) for one in value)
    if name == "experiment":
        raise QueryError(
            "experiment cannot be a condition: pass names of experiments as the first argument.", argument="experiment"
        )
    if name == "start":
        return _milliseconds(value)
    if name == "duration":
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise QueryError(f"duration is in seconds: give a number, not {value!r}.", argument=name)
        return value
    if operator in ("gt", "ge", "lt", "le"):
        raise QueryError(f"{name} is a string: {operator} compares numbers and times.", argument=name)
    if value is not None and not isinstance(value, str):
        raise QueryError(f"{name} is a string, not {value!r}.", argument=name)
    if name == "status" and operator in ("eq", "ne") and value not in STATUSES:
        nearest = suggestion_for(str(value).upper(), STATUSES)
        raise QueryError(
            f"{value!r} is not a status{nearest.text} Known: {', '.join(STATUSES)}.",
            argument=name,
            suggestion=nearest.name,
        )
    return value


def prefilter(name: str, operator: str, value: Any) -> str | None:
    """See `Condition.prefilter`."""
    column = IN_MLFLOW.get(name)
    if name == "start" and operator in ("gt", "ge", "lt", "le", "eq") and abs(value) < 1e17:
        low, high = f"{column} >= {math.floor(value)}", f"{column} <= {math.ceil(value)}"
        return {"gt": low, "ge": low, "lt": high, "le": high, "eq": f"{low} AND {high}"}[operator]
    if column is None or not isinstance(value, str) or not is_quotable(value):
        return None
    return f"{column} = '{value}'" if operator == "eq" else None


def _milliseconds(value: Any) -> float:
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            raise QueryError(
                f"start: {value!r} is not a time; write it as 2026-01-31 or 2026-01-31T12:00:00+00:00.",
                argument="start",
            ) from None
    if isinstance(value, date) and not isinstance(value, datetime):
        value = datetime(value.year, value.month, value.day)
    if not isinstance(value, datetime):
        raise QueryError(
            f"start is a time: give a datetime, or text such as 2026-01-31, not {value!r}.", argument="start"
        )
    return (value if value.tzinfo is not None else value.replace(tzinfo=UTC)).timestamp() * 1000

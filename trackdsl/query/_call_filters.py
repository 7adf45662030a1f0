"""Filters on single fields of the tag `trackdsl.call`, such as `tags.trackdsl.function = 'train'`.

MLflow sees one text in that tag, and in runs of older versions a tag for each field. So these parts of a filter are
taken out, and compared here with each run that passes the rest.
"""

from __future__ import annotations

import re
from typing import Any

from trackdsl.query._conditions import SIGNS, Condition
from trackdsl.query._filters import read_filter
from trackdsl.query._grammar import language_of_mlflow
from trackdsl.store_format.call_tag import is_call_value

#: A quoted name or text, the AND between two parts, or any other character.
_TOKEN = re.compile(r"'[^']*'|\"[^\"]*\"|`[^`]*`|(?P<between>(?<=\s)AND(?=\s))|.", re.IGNORECASE | re.DOTALL)
_OPERATORS = {**{sign: operator for operator, sign in SIGNS.items()}, "LIKE": "like", "ILIKE": "ilike", "IN": "in"}


def without_call_values(where: str) -> tuple[str, list[Condition]]:
    """Split the parts on fields of `trackdsl.call` from a filter, because MLflow cannot search for them.

    Args:
        where: a filter that MLflow understands.

    Returns:
        the filter without its parts on fields of calls, and these parts as conditions.
    """
    if "trackdsl." not in where:
        return where, []
    left: list[str] = []
    conditions: list[Condition] = []
    for part in _parts(where):
        condition = _condition(part)
        if condition is None:
            left.append(part)
        else:
            conditions.append(condition)
    return (" AND ".join(left), conditions) if conditions else (where, [])


def _parts(where: str) -> list[str]:
    parts = [""]
    for token in _TOKEN.finditer(where):
        if token["between"] is None:
            parts[-1] += token[0]
        else:
            parts.append("")
    return [part.strip() for part in parts]


def _condition(part: str) -> Condition | None:
    """The condition of one part of a filter; None where it is not on a field of calls."""
    parts: list[tuple[Any, ...]]
    if (read := read_filter(part)) is not None:
        parts = [(one.kind, one.key, one.operator, one.value) for one in read]
    else:
        try:
            parsed: list[dict[str, Any]] = language_of_mlflow().parse_search_filter(part)
        except Exception:  # It is not a part by itself: MLflow reads it as a whole, as before.
            return None
        parts = [tuple(one.get(name) for name in ("type", "key", "comparator", "value")) for one in parsed]
    if len(parts) != 1:
        return None
    ((kind, key, sign, value),) = parts
    operator = _OPERATORS.get(str(sign).upper())
    if kind not in ("tag", "tags") or operator is None or not isinstance(key, str) or not is_call_value(key):
        return None
    return Condition(("tags",), key, operator, value)

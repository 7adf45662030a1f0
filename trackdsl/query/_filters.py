"""Reads the usual filters and orders of MLflow's language without MLflow, and exactly as MLflow does.

What has another form is left to MLflow's own parser, which takes seconds to import: lists, `IS NULL`, data sets, quotes
and backslashes within text.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from trackdsl._core.late_pattern import late_pattern

#: MLflow's words for the kinds of values; "" stands for none.
_KINDS = {
    **dict.fromkeys(("metric", "metrics"), "metrics"),
    **dict.fromkeys(("param", "params", "parameter", "parameters"), "params"),
    **dict.fromkeys(("tag", "tags"), "tags"),
    **dict.fromkeys(("attribute", "attributes", "attr", "run"), "attributes"),
}
_TEXTS = frozenset(("run_id", "run_name", "status", "artifact_uri", "user_id"))
_TIMES = frozenset(("start_time", "end_time"))
_ORDERINGS = frozenset((">", ">=", "<", "<="))
_EQUALITIES = frozenset(("=", "!="))
_LIKES = frozenset(("LIKE", "ILIKE"))
#: Words that MLflow's parser takes for parts of a statement, also in a name without quotes.
_WORDS = frozenset(("AS", "CASE", "FROM", "IN", "USING", "VALUES"))
_KEY = r"`[\w.\-/: ]+`|[A-Za-z][A-Za-z0-9_]*(?:\.[A-Za-z][A-Za-z0-9_]*)*"
#: MLflow's parser takes more digits than a database does.
_NUMBER = r"-?[0-9]{1,17}(?:\.[0-9]{1,30})?(?:[eE]-?[0-9]{1,3})?"
_COMPARISON = late_pattern(
    rf"(?:(?P<kind>{'|'.join(_KINDS)})\.(?P<key>{_KEY})|(?P<attribute>{'|'.join(sorted(_TEXTS | _TIMES))}))"
    r"(?: *(?P<sign>!=|>=|<=|=|>|<) *| +(?P<like>(?i:I?LIKE)) +)"
    rf"(?:'(?P<text>[^'\"\\`\x00-\x1f\x7f]*)'|(?P<number>{_NUMBER}))(?: +(?i:AND) +(?=\S)|\Z)"
)
_ORDER = late_pattern(
    rf"(?P<kind>{'|'.join(_KINDS)})\.(?:`(?P<quoted>[\w.\-/: ]+)`|(?P<attribute>\w+)) (?P<way>ASC|DESC)"
)


@dataclass(frozen=True)
class Comparison:
    """One part of a filter.

    Attributes:
        kind: `metrics`, `params`, `tags` or `attributes`.
        key: the name, in MLflow's language.
        operator: `=`, `!=`, `<`, `<=`, `>`, `>=`, `LIKE` or `ILIKE`.
        value: a number for a metric or a time, else text.
    """

    kind: str
    key: str
    operator: str
    value: str | float


@dataclass(frozen=True)
class Order:
    """One name of an order.

    Attributes:
        kind: as in `Comparison`.
        key: the name, in MLflow's language.
        ascending: whether the smallest value comes first.
    """

    kind: str
    key: str
    ascending: bool


def read_filter(where: str) -> tuple[Comparison, ...] | None:
    """The comparisons of a filter, which it joins by AND; None if it has a form that only MLflow's parser reads.

    >>> read_filter("metrics.accuracy > 0.9")
    (Comparison(kind='metrics', key='accuracy', operator='>', value=0.9),)
    """
    found: list[Comparison] = []
    start = 0
    while start < len(where):
        match = _COMPARISON().match(where, start)
        comparison = None if match is None else _comparison(match)
        if match is None or comparison is None:
            return None
        found.append(comparison)
        start = match.end()
    return tuple(found)


def read_order(order_by: Sequence[str]) -> tuple[Order, ...] | None:
    """The names of an order that `order_in_mlflow` wrote; None if only MLflow's parser reads its form."""
    found: list[Order] = []
    for text in order_by:
        match = _ORDER().fullmatch(text)
        if match is None:
            return None
        kind, key = _KINDS[match["kind"]], match["quoted"] or match["attribute"]
        if (kind == "attributes") != (match["quoted"] is None) or (kind == "attributes" and key not in _TEXTS | _TIMES):
            return None
        found.append(Order(kind, key, match["way"] == "ASC"))
    return tuple(found)


def _comparison(match: re.Match[str]) -> Comparison | None:
    kind = "attributes" if match["attribute"] else _KINDS[match["kind"]]
    key = match["attribute"] or match["key"].strip("`")
    if match["key"] == key and not _WORDS.isdisjoint(key.upper().split(".")):
        return None
    operator, text, number = match["sign"] or match["like"].upper(), match["text"], match["number"]
    if kind == "metrics" or (kind == "attributes" and key in _TIMES):
        fits, value = number is not None and operator in _EQUALITIES | _ORDERINGS, _number(kind, number)
    else:
        known = kind != "attributes" or key in _TEXTS
        fits, value = known and text is not None and operator in _EQUALITIES | _LIKES, text
    return Comparison(kind, key, operator, value) if fits else None


def _number(kind: str, text: str | None) -> Any:
    if text is None:
        return None
    return int(text) if kind == "attributes" and text.lstrip("-").isdigit() else float(text)

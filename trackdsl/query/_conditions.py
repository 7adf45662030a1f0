"""Conditions as keywords: `accuracy__gt=0.9`, `model="rf"`, `params__lr=0.1`.

MLflow filters by each condition that its language can express. The runs that it returns are then compared here. This
second comparison decides, so any name and any value can be used.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from trackdsl._core.suggest import suggestion_for
from trackdsl.errors import QueryError
from trackdsl.query import _attributes
from trackdsl.query._grammar import is_nameable, is_quotable, number_text, quoted_key
from trackdsl.query._paged import PagedReader
from trackdsl.query._rows import KINDS, FoundRun, Search
from trackdsl.store_format.call_tag import CALL_TAG, is_call_value

#: The signs of operators in MLflow's filters.
SIGNS = {"eq": "=", "ne": "!=", "gt": ">", "ge": ">=", "lt": "<", "le": "<="}
_ORDERING = ("gt", "ge", "lt", "le")
_TEXT_ONLY = ("like", "ilike", "contains", "startswith")
OPERATORS = (*SIGNS, "in", *_TEXT_ONLY)
_INTEGER = re.compile(r"[+-]?\d{1,400}")
_KIND_OF = {**{kind: kind for kind in KINDS}, **{kind[:-1]: kind for kind in KINDS}}
#: Arguments that are not conditions.
_ARGUMENTS = ("experiment", "where", "order_by", "max_results", "tracking_uri")
#: Names of operators in other libraries.
_ALIASES = {"gte": "ge", "lte": "le", "equals": "eq", "not": "ne", "icontains": "contains", "exact": "eq"}


@dataclass(frozen=True)
class Condition:
    """A comparison that a run has to pass.

    Attributes:
        kinds: some of `metrics`, `params`, `tags`, or `attribute`; a run passes if one of them passes.
        key: the name.
        operator: one of `OPERATORS`.
        value: a number, text, truth value or None, or a tuple of them.
    """

    kinds: tuple[str, ...]
    key: str
    operator: str
    value: Any

    def holds(self, run: FoundRun) -> bool:
        """Whether a run meets the condition."""
        return any(self._holds(kind, run) for kind in self.kinds)

    def prefilter(self) -> str | None:
        """A filter for MLflow that keeps every run that passes this condition; None if MLflow cannot express one."""
        if len(self.kinds) != 1:
            return None
        (kind,) = self.kinds
        if kind == "attribute":
            return _attributes.prefilter(self.key, self.operator, self.value)
        if not is_nameable(self.key) or (kind == "tags" and is_call_value(self.key)):
            return None  # MLflow cannot compare one field of the tag `trackdsl.call`.
        name = f"{kind}.{quoted_key(self.key)}"
        return _pushed_metric(name, self) if kind == "metrics" else _pushed_text(name, self)

    def _holds(self, kind: str, run: FoundRun) -> bool:
        if kind == "attribute":
            return compare(_attributes.value_of(run, self.key), self.operator, self.value)
        stored = run.value(kind, self.key)
        return stored is not None and compare(stored, self.operator, self.value)


def conditions_from(given: Mapping[str, Any], reader: PagedReader, experiments: tuple[str, ...]) -> list[Condition]:
    """Convert keywords to conditions.

    Args:
        given: names, with or without an operator, and values.
        reader: the reader of the store, which says whether a name is a metric, a parameter or a tag.
        experiments: MLflow's ids of the experiments.

    Raises:
        QueryError: an operator is unknown, no run has the name, or the value cannot be compared.
    """
    names = _Names(reader, experiments)
    return [_condition(keyword, value, names) for keyword, value in given.items()]


def compare(stored: Any, operator: str, value: Any) -> bool:
    """Whether the value of a run passes a comparison.

    >>> compare("10", "eq", 10), compare("rf", "in", ("rf", "svm")), compare(float("nan"), "gt", 0)
    (True, True, False)
    """
    if operator == "in":
        return any(compare(stored, "eq", one) for one in value)
    if isinstance(stored, str) and (operator in _TEXT_ONLY or isinstance(value, (str, bool))):
        return _compare_text(stored, operator, str(value))
    if stored is None or value is None:
        same = stored is value or (isinstance(stored, str) and stored == str(value))
        return {"eq": same, "ne": not same}.get(operator, False)
    number = _number(stored)
    if number is None or isinstance(value, str):
        return operator == "ne"
    return _ordered(number, operator, value)


def _compare_text(stored: str, operator: str, value: str) -> bool:
    if operator == "contains":
        return value in stored
    if operator == "startswith":
        return stored.startswith(value)
    if operator in ("like", "ilike"):
        pattern = "".join({"%": ".*", "_": "."}.get(one, re.escape(one)) for one in value)
        flags = re.DOTALL | (re.IGNORECASE if operator == "ilike" else 0)
        return re.fullmatch(pattern, stored, flags) is not None
    return stored != value if operator == "ne" else stored == value


def _ordered(stored: float, operator: str, value: float) -> bool:
    return {
        "eq": stored == value,
        "ne": stored != value,
        "gt": stored > value,
        "ge": stored >= value,
        "lt": stored < value,
        "le": stored <= value,
    }[operator]


def _number(stored: Any) -> float | int | None:
    """The number in a parameter's text; integers are exact."""
    if not isinstance(stored, str):
        return stored if isinstance(stored, (int, float)) else None
    text = stored.strip()
    try:
        return int(text) if _INTEGER.fullmatch(text) else float(text)
    except ValueError:
        return None


@dataclass(frozen=True)
class _Names:
    """Whether a name is a metric, a parameter or a tag in the given experiments."""

    reader: PagedReader
    experiments: tuple[str, ...]

    def has(self, kind: str, key: str) -> bool:
        if self.reader.has_key(kind, key, self.experiments):
            return True
        return kind == "tags" and is_call_value(key) and self.reader.has_key(kind, CALL_TAG, self.experiments)

    def stored(self, kind: str, key: str) -> str:
        """A name as it is in MLflow: trackdsl escapes names that MLflow refuses."""
        from trackdsl.store_format.limits import fit_key

        fitted = fit_key(key)
        return key if fitted == key or self.has(kind, key) else fitted

    def kinds(self, key: str) -> tuple[str, ...]:
        """The kinds of a name without a prefix: a column of the frame, else metric or parameter, else tag."""
        if key in _attributes.COLUMNS:
            return ("attribute",)
        present = tuple(kind for kind in ("metrics", "params") if self.has(kind, self.stored(kind, key)))
        return present or (("tags",) if self.has("tags", self.stored("tags", key)) else ())

    def unknown(self, keyword: str, key: str) -> tuple[str, ...]:
        """The kinds of a name that no run has, if there are no runs at all.

        Raises:
            QueryError: there are runs, and none has the name.
        """
        if next(iter(self.reader.search(Search(self.experiments, limit=1))), None) is None:
            return KINDS
        keys = self.reader.keys(self.experiments)
        names = [name for kind in ("metrics", "params") for name in sorted(keys[kind])]
        nearest = suggestion_for(key, [*names, *_attributes.COLUMNS, *_ARGUMENTS, *sorted(keys["tags"])])
        missing = (
            f"{keyword}: no run has a metric, parameter or tag {key!r}{nearest.text} Write metrics__{key}, "
            f"params__{key} or tags__{key} for one that none has yet."
        )
        message = self.reader.absent(f"{keyword}: a metric, parameter or tag {key!r}", missing, nearest.text)
        raise QueryError(message, argument=keyword, suggestion=nearest.name)


def _condition(keyword: str, value: Any, names: _Names) -> Condition:
    head, _, rest = keyword.partition("__")
    kind = _KIND_OF.get(head) if rest else None
    key, operator = _split(keyword, keyword if kind is None else rest, KINDS if kind is None else (kind,), names)
    if kind == "tags":
        value = [*map(_text_of_tag, value)] if operator == "in" and isinstance(value, list) else _text_of_tag(value)
    value = _checked_value(keyword, operator, value)
    kinds = (kind,) if kind is not None else names.kinds(key) or names.unknown(keyword, key)
    if kinds == ("attribute",):
        return Condition(kinds, key, operator, _attributes.checked(key, operator, value))
    value = tuple(map(_stored_value, value)) if operator == "in" else _stored_value(value)
    return Condition(_fitting(keyword, kinds, operator, value), names.stored(kinds[0], key), operator, value)


def _stored_value(value: Any) -> Any:
    """A value as MLflow has it: long text is cut."""
    from trackdsl.store_format.limits import MAX_PARAM, fit_value

    value = _recorded(value)
    return fit_value(value, MAX_PARAM) if type(value) is str else value


def _recorded(value: Any) -> Any:
    """A value as a parameter holds it. Commands have no keywords: they do without what records."""
    from trackdsl._recording.flatten import recorded_value

    return recorded_value(value)


def _text_of_tag(value: Any) -> Any:
    """The text of a tag with this value."""
    from trackdsl._recording.emit import tags_of
    from trackdsl.handlers._plain import is_scalar

    return value if is_scalar(value) else tags_of([("value", value)]).get("value", value)


def _split(keyword: str, name: str, kinds: tuple[str, ...], names: _Names) -> tuple[str, str]:
    """The name and the operator in a keyword."""
    key, mark, operator = name.rpartition("__")
    if not mark or not key:
        return name, "eq"
    if operator in OPERATORS:
        return key, operator
    if any(names.has(kind, names.stored(kind, name)) for kind in kinds):
        return name, "eq"  # The underscores belong to the name.
    nearest = suggestion_for(_ALIASES.get(operator, operator), OPERATORS)
    raise QueryError(
        f"{keyword}: {operator!r} is not an operator{nearest.text} Known: {', '.join(OPERATORS)}. For a name that "
        f"contains two underscores write {keyword}__eq.",
        argument=keyword,
        suggestion=None if nearest.name is None else f"{keyword[: -len(operator)]}{nearest.name}",
    )


def _checked_value(keyword: str, operator: str, value: Any) -> Any:
    if operator == "in":
        if isinstance(value, (str, bytes, Mapping)) or not isinstance(value, Iterable):
            raise QueryError(f"{keyword} takes a list of values, not {value!r}.", argument=keyword)
        return tuple(_checked_value(keyword, "eq", one) for one in value)
    if _attributes.is_time(value):
        return value
    value = _recorded(value)
    if value is not None and not isinstance(value, (str, bool, int, float)):
        raise QueryError(
            f"{keyword}: runs can be compared with numbers, strings, True, False, None and what is one parameter, such "
            f"as a list; a {type(value).__name__} holds several values, or none.",
            argument=keyword,
        )
    if operator in _TEXT_ONLY and not isinstance(value, str):
        raise QueryError(f"{keyword}: {operator} compares strings, not {value!r}.", argument=keyword)
    return value


def _fitting(keyword: str, kinds: tuple[str, ...], operator: str, value: Any) -> tuple[str, ...]:
    """The kinds that the comparison can be used for."""
    values = value if operator == "in" else (value,)
    if operator in _ORDERING and any(isinstance(one, str) or one is None for one in values):
        raise QueryError(f"{keyword}: {operator} compares numbers, not {value!r}.", argument=keyword)
    if not any(isinstance(one, str) or one is None for one in values):
        return kinds
    texts = tuple(kind for kind in kinds if kind != "metrics")
    if not texts:
        raise QueryError(f"{keyword}: metrics are numbers, and {value!r} is not one.", argument=keyword)
    return texts


def _pushed_metric(name: str, condition: Condition) -> str | None:
    # Not `ne`: versions of MLflow treat NaN differently.
    if condition.operator not in (*_ORDERING, "eq"):
        return None
    try:
        text = number_text(condition.value)
    except OverflowError:  # The integer is larger than any float.
        return None
    return None if text is None else f"{name} {SIGNS[condition.operator]} {text}"


def _pushed_text(name: str, condition: Condition) -> str | None:
    operator, value = condition.operator, condition.value
    if isinstance(value, bool) or value is None:
        value = str(value)
    if not isinstance(value, str) or not is_quotable(value):
        return None
    if operator in ("eq", "ne"):
        return f"{name} {SIGNS[operator]} '{value}'"
    if operator == "like":
        return f"{name} LIKE '{value}'"
    if operator in ("contains", "startswith") and not {"%", "_"} & set(value):
        return f"{name} LIKE '{'%' if operator == 'contains' else ''}{value}%'"
    return None

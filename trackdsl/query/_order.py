"""The order of runs: `order_by`."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Sequence

from trackdsl._core.suggest import suggestion_for
from trackdsl.errors import QueryError
from trackdsl.query import _shown
from trackdsl.query._attributes import COLUMNS, IN_MLFLOW
from trackdsl.query._grammar import is_nameable, quoted_key
from trackdsl.query._paged import PagedReader
from trackdsl.query._rows import KINDS
from trackdsl.store_format.call_tag import CALL_TAG, is_call_value

_CLAUSE = re.compile(r"\s*(?P<name>.+?)(?:\s+(?P<way>ASC|DESC))?\s*", re.IGNORECASE | re.DOTALL)
#: Other words for ASC and DESC.
_WAYS = {
    "ASCENDING": "ASC",
    "DESCENDING": "DESC",
    "INCREASING": "ASC",
    "DECREASING": "DESC",
    "UP": "ASC",
    "DOWN": "DESC",
}
_KIND = re.compile(r"(?P<kind>metric|param|parameter|tag)s?\.(?P<key>.+)", re.DOTALL)
_ATTRIBUTE = re.compile(r"(?:attributes?|attr|run)\.(?P<key>.+)", re.DOTALL)
_MLFLOW_ATTRIBUTES = ("artifact_uri", "created", "end_time", "run_id", "run_name", "start_time", "status", "user_id")
#: MLflow treats these names as the same.
_SAME = {"created": "start_time"}


def order_in_mlflow(
    order_by: str | Sequence[str] | None, reader: PagedReader, experiments: tuple[str, ...]
) -> tuple[str, ...]:
    """The order in MLflow's language.

    Raises:
        QueryError: no run has a name, or MLflow cannot order by it.
    """
    if order_by is None:
        return ()
    given: tuple[object, ...] = tuple(order_by) if isinstance(order_by, (list, tuple)) else (order_by,)
    texts = tuple(one for one in given if isinstance(one, str) and one.strip())
    if len(texts) < len(given):
        raise QueryError(f"order_by takes names such as 'accuracy DESC', not {order_by!r}.", argument="order_by")
    clauses: dict[str, str] = {}
    for one in texts:
        clause = _clause(one, reader, experiments)
        # A second order by the same name changes nothing, and MLflow refuses it.
        clauses.setdefault(clause.rpartition(" ")[0], clause)
    return tuple(clauses.values())


def _clause(text: str, reader: PagedReader, experiments: tuple[str, ...]) -> str:
    match = _CLAUSE.fullmatch(text)
    assert match is not None
    name, way = match["name"].strip(), (match["way"] or "ASC").upper()
    attribute = _ATTRIBUTE.fullmatch(name)
    if attribute is not None or name in _MLFLOW_ATTRIBUTES:
        bare = _bare(attribute["key"]) if attribute is not None else name
        if bare in _MLFLOW_ATTRIBUTES:
            return f"attributes.{_SAME.get(bare, bare)} {way}"
        _check_way(text)
        raise _unknown(text, bare, _MLFLOW_ATTRIBUTES, "attributes.", reader)
    if name in IN_MLFLOW:
        return f"{IN_MLFLOW[name]} {way}"
    if name in COLUMNS:
        raise QueryError(
            f"order_by: MLflow cannot order by {name}. {_sorted_afterwards(f'.{name}', name)}",
            argument="order_by",
        )
    return f"{_held(text, name, reader, experiments)} {way}"


def _held(text: str, name: str, reader: PagedReader, experiments: tuple[str, ...]) -> str:
    """The metric, parameter or tag with a name, tried in this order if the name has no prefix."""
    prefixed = _KIND.fullmatch(name)
    kinds: tuple[str, ...] = KINDS
    key = _bare(name)
    if prefixed is not None:
        kinds, key = (f"{prefixed['kind'].replace('parameter', 'param')}s",), _bare(prefixed["key"])
    for kind in kinds:
        if kind == "tags" and is_call_value(key) and reader.has_key(kind, CALL_TAG, experiments):
            raise QueryError(
                f"order_by: MLflow cannot order by one field of the tag {CALL_TAG!r}; sort the frame instead, or in a "
                "shell what `trackdsl ls --json` prints.",
                argument="order_by",
            )
        if reader.has_key(kind, key, experiments):
            if is_nameable(key):
                return f"{kind}.{quoted_key(key)}"
            raise QueryError(
                f"order_by: MLflow has no way to name {key!r}. "
                + _sorted_afterwards(f".{kind}[{json.dumps(key, ensure_ascii=False)}]", f"{kind}.{key}"),
                argument="order_by",
            )
    _check_way(text)
    keys = reader.keys(experiments)
    if not any(keys.values()):  # There are no runs, so the order does not matter.
        return IN_MLFLOW["start"]
    known = [one for kind in kinds for one in sorted(keys[kind])]
    raise _unknown(text, key, known, "" if len(kinds) > 1 else f"{kinds[0]}.", reader)


def _sorted_afterwards(field: str, column: str) -> str:
    """What to do instead: in a shell, where `jq` finds the field, and in Python, where the frame has the column."""
    program = shlex.quote(f".runs | sort_by({field})")
    return (
        f"Sort what is found: `trackdsl ls --max 0 --json | jq {program}`; in Python, runs(…).sort_values({column!r})."
    )


def _unknown(text: str, key: str, known: Sequence[str], prefix: str, reader: PagedReader) -> QueryError:
    nearest = suggestion_for(key, known)
    named = ", ".join(map(_shown.printable, known[:20]))
    there = f"There are: {named}{' …' if len(known) > 20 else ''}." if known else "There is nothing of that kind."
    missing = f"order_by={text!r}: no run has {key!r}{nearest.text} {there}"
    return QueryError(
        reader.absent(f"order_by={text!r}: {key!r}", missing, nearest.text),
        argument="order_by",
        suggestion=None if nearest.name is None else f"{prefix}{nearest.name}",
    )


def _check_way(text: str) -> None:
    """Refuse a wrong direction, which would become a part of the name.

    Raises:
        QueryError: the last word is not ASC or DESC but similar, or the name begins with a minus.
    """
    name, _, last = text.strip().rpartition(" ")
    way = _WAYS.get(last.upper()) or suggestion_for(last.upper(), ("ASC", "DESC")).name
    if name and way is not None and way != last.upper():
        right = f"{name.strip()} {way}"
        message = f"order_by={text!r}: {last!r} is not an order; did you mean {right!r}? There are ASC and DESC."
    elif text.split()[0].upper() in ("ASC", "DESC"):
        right = f"{text.split(maxsplit=1)[-1]} {text.split()[0].upper()}"
        message = f"order_by={text!r}: the order comes after the name, as in 'accuracy DESC'."
    elif text.strip().startswith("-"):
        right = f"{text.strip().lstrip('-').strip()} DESC"
        message = f"order_by={text!r}: a minus is not an order; write {right!r}."
    elif "," in text:
        right = str([part.strip() for part in text.split(",")])
        message = f"order_by={text!r}: give several names as a list: order_by={right}."
    else:
        return
    raise QueryError(message, argument="order_by", suggestion=right)


def _bare(key: str) -> str:
    for quote in ("`", '"', "'"):
        if len(key) >= 2 and key.startswith(quote) and key.endswith(quote):
            return key[1:-1]
    return key

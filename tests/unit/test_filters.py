"""Filters that are read without MLflow mean what MLflow means by them."""

from __future__ import annotations

from typing import Any

import pytest
import sqlparse.keywords
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from mlflow.utils.search_utils import SearchUtils

from tests.conftest import examples
from trackdsl.query._filters import Comparison, Order, read_filter, read_order

_KINDS = {"metric": "metrics", "parameter": "params", "tag": "tags", "attribute": "attributes"}
#: What MLflow's parser takes for words of a language: names of metrics may be such words.
_WORDS = sorted(
    word for words in vars(sqlparse.keywords).values() if isinstance(words, dict) for word in words if "\\" not in word
)


def read_by_mlflow(where: str) -> tuple[Comparison, ...]:
    """What MLflow makes of a filter; it raises an exception where it understands none."""
    found = []
    for part in SearchUtils.parse_search_filter(where):
        kind, key, sign = part["type"], SearchUtils.translate_key_alias(part["key"]), part["comparator"].upper()
        asks = (SearchUtils.is_metric, SearchUtils.is_param, SearchUtils.is_tag)
        assert any(ask(kind, sign) for ask in asks) or SearchUtils.is_attribute(kind, key, sign)
        value = float(part["value"]) if kind == "metric" else part["value"]
        found.append(Comparison(_KINDS[kind], key, sign, value))
    return tuple(found)


_WORD = st.text("abcXYZ_09é", min_size=1, max_size=4) | st.sampled_from(_WORDS) | st.sampled_from(_WORDS).map(str.lower)
_KEY = st.lists(_WORD, min_size=1, max_size=3).map(".".join) | st.text("ab1/-: .éAND`", min_size=1, max_size=6).map(
    lambda text: f"`{text}`"
)
_NUMBER = st.floats().map(repr) | st.integers().map(str)
_TEXT = (st.text("ab%_-;#/*() =<>.,0'\\\"ANDé", max_size=12) | st.text(max_size=6)).map(lambda text: f"'{text}'")
_SIGN = st.sampled_from(["=", " = ", "!=", " != ", ">", " >= ", "<", " <=", " LIKE ", " ilike ", "LIKE", " IN "])
_METRIC = st.builds(lambda key, sign, value: f"metrics.{key}{sign}{value}", _KEY, _SIGN, _NUMBER)
_NAMED = st.builds(
    lambda kind, key, sign, value: f"{kind}.{key}{sign}{value}",
    st.sampled_from(["params", "param", "parameter", "parameters", "tag", "tags", "metric", "run", "datasets"]),
    _KEY, _SIGN, _TEXT | _NUMBER,
)  # fmt: skip
_ATTRIBUTE = st.builds(
    lambda kind, key, sign, value: f"{kind}{key}{sign}{value}",
    st.sampled_from(["", "attributes.", "attribute.", "attr.", "run."]),
    st.sampled_from(["status", "run_id", "run_name", "start_time", "end_time", "user_id", "artifact_uri", "created"]),
    _SIGN, _TEXT | _NUMBER,
)  # fmt: skip
_FILTER = st.builds(
    lambda parts, between: between.join(parts),
    st.lists(_METRIC | _NAMED | _ATTRIBUTE, min_size=1, max_size=3),
    st.sampled_from([" AND ", "  and ", " OR ", "AND", " AND\n"]),
)


# Most of what is drawn is read by MLflow alone.
@settings(max_examples=examples(500), suppress_health_check=[HealthCheck.filter_too_much])
@given(where=_FILTER)
def test_a_filter_is_read_as_mlflow_reads_it_or_not_at_all(where: str) -> None:
    """Whatever is read without MLflow, MLflow accepts too, and reads the same."""
    found = read_filter(where)
    assume(found is not None)
    expected = read_by_mlflow(where)
    assert found == expected
    assert [type(one.value) for one in found] == [type(one.value) for one in expected]


def test_words_of_sql_as_names() -> None:
    """A metric, parameter or tag whose name is a word of SQL is read as MLflow reads it; a few are left to it."""
    left = 0
    for word in _WORDS:
        for where in (f"metrics.{word} > 1", f"params.a.{word} = 'x'", f"tags.{word.lower()}.b = '{word}'"):
            found = read_filter(where)
            if found is None:
                left += 1
            else:
                assert found == read_by_mlflow(where), where
    assert left < len(_WORDS) / 10


@pytest.mark.parametrize(
    "where",
    [
        "",
        "metrics.accuracy > 0.9",
        "metrics.`val/loss` <= -1.5e-3 AND params.model = 'rf'",
        "tags.`mlflow.runName` LIKE 'fit%' and status = 'FINISHED'",
        "attributes.start_time >= 1700000000000",
        "tags.trackdsl.call.function ILIKE 'SHOP.%'",
    ],
)
def test_usual_filters_need_no_mlflow(where: str) -> None:
    """The forms of filters that most people write are read without MLflow."""
    assert read_filter(where) == read_by_mlflow(where)


@pytest.mark.parametrize(
    "where",
    [
        "params.a IS NULL",
        "attributes.run_id IN ('a', 'b')",
        "datasets.name = 'd'",
        "params.a = 'it''s'",
        'params.a = "x"',
        "metrics.a = 'x'",
        "params.a = 1",
        "metrics.a > 1 OR metrics.b > 1",
        "metrics.a > 1 AND ",
        "nothing",
    ],
)
def test_other_filters_are_left_to_mlflow(where: str) -> None:
    """Other forms, and what MLflow refuses, are not read."""
    assert read_filter(where) is None


def test_orders() -> None:
    """An order is read by the kind and the name of each of its values; others are left to MLflow."""
    read = read_order(("metrics.`val/loss` DESC", "attributes.start_time ASC"))
    assert read == (Order("metrics", "val/loss", False), Order("attributes", "start_time", True))
    others: tuple[Any, ...] = ("attributes.nothing ASC", "metrics.a ASC", "a", "tags.`a` ascending")
    assert [read_order((other,)) for other in others] == [None] * 4

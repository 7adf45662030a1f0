"""MLflow's filter language: which names and values it can express, and help for a filter that it rejects."""

from __future__ import annotations

import re
from typing import Any

from trackdsl._core.late_pattern import late_pattern
from trackdsl._core.redaction import mask_prose
from trackdsl.errors import QueryError
from trackdsl.query._filters import read_filter

#: Texts that can be quoted in a filter. MLflow's language cannot express others.
_QUOTABLE = re.compile(r"[\w .,:/@+=()-]*")
#: Names that can be quoted in a filter. MLflow accepts no others, except for tags that are passed to `create_run`.
_KEY = re.compile(r"[\w.\-/: ]+")
_NUMBER = re.compile(r"-?\d+(\.\d+)?([eE]-?\d+)?")
_OUTSIDE_QUOTES = re.compile(r"'[^']*'|\"[^\"]*\"|`[^`]*`")
#: A value without quotes at the end of a filter.
_UNQUOTED = late_pattern(r"(?:=|LIKE)\s*(?P<value>[A-Za-z_][\w.-]*)\s*$", re.IGNORECASE)
_PREFIXES = late_pattern(r"(metric|param|parameter|tag|attribute|dataset)s?|attr|run")


def is_quotable(text: str) -> bool:
    """Whether a filter can contain this text."""
    return _QUOTABLE.fullmatch(text) is not None


def is_nameable(key: str) -> bool:
    """Whether a filter can name this metric, parameter or tag."""
    return _KEY.fullmatch(key) is not None


def quoted_key(key: str) -> str:
    """A name, quoted for a filter.

    >>> quoted_key("val/loss")
    '`val/loss`'
    """
    return f"`{key}`"


def number_text(value: float) -> str | None:
    """A number for a filter; None if the language cannot express it.

    >>> number_text(0.9), number_text(float("inf")), number_text(1e300)
    ('0.9', None, None)
    """
    text = repr(float(value))
    return text if _NUMBER.fullmatch(text) else None


def check_filter(where: object) -> None:
    """Check that MLflow understands a filter.

    Raises:
        QueryError: it does not; the message says what to write instead.
    """
    if not isinstance(where, str):
        raise QueryError(
            f'where takes a string in MLflow\'s filter language, such as "metrics.accuracy > 0.9", not {where!r}.',
            argument="where",
        )
    if read_filter(where) is not None:
        return
    from mlflow.exceptions import MlflowException

    language = language_of_mlflow()
    try:
        for part in language.parse_search_filter(where):
            kind, key, comparator = part["type"], part["key"], part["comparator"].upper()
            if not any(
                (
                    language.is_metric(kind, comparator),
                    language.is_param(kind, comparator),
                    language.is_tag(kind, comparator),
                    language.is_dataset(kind, comparator),
                    language.is_attribute(kind, language.translate_key_alias(key), comparator),
                )
            ):
                raise QueryError(f"where: MLflow has no filter on {kind} {key!r}.", argument="where")
    except MlflowException as error:
        raise _bad_filter(where, str(error)) from None
    except (ValueError, TypeError, AttributeError, IndexError, StopIteration, RuntimeError) as error:
        # MLflow's parser fails on some texts with other exceptions.
        raise _bad_filter(where, f"{type(error).__name__}: {error}") from None


def language_of_mlflow() -> Any:
    """MLflow's own parser of filters."""
    from mlflow.utils.search_utils import SearchUtils

    return SearchUtils


def _bad_filter(where: str, reason: str) -> QueryError:
    hint, suggestion = _hint(_OUTSIDE_QUOTES.sub("''", where), where)
    text = (
        f"where={mask_prose(where)!r} is not a filter that MLflow understands: "
        f"{mask_prose(reason).rstrip('. ')}. {hint}"
    )
    return QueryError(text, argument="where", suggestion=suggestion)


def _hint(bare: str, where: str) -> tuple[str, str | None]:
    if re.search(r"\bor\b", bare, re.IGNORECASE):
        return "MLflow has no OR: ask for each part, or filter the frame with pandas.", None
    if "==" in bare:
        return "Write `=` instead of `==`.", where.replace("==", "=")
    unquoted = _UNQUOTED().search(bare)
    if unquoted is not None:
        value = unquoted["value"]
        return f"Put text in quotes: '{value}'.", re.sub(
            rf"(?<![\w.'\"]){re.escape(value)}$", f"'{value}'", where.rstrip()
        )
    name = re.match(r"\s*([A-Za-z_]\w*)\s*(?:=|!=|<|>|LIKE|ILIKE)", bare, re.IGNORECASE)
    if name is not None:
        return f"Say what {name[1]} is: metrics.{name[1]}, params.{name[1]} or tags.{name[1]}.", f"metrics.{name[1]}"
    prefix = re.match(r"\s*(\w+)\.", bare)
    if prefix is not None and _PREFIXES().fullmatch(prefix[1]) is None:
        from trackdsl._core.suggest import suggestion_for

        nearest = suggestion_for(prefix[1], ("metrics", "params", "tags", "attributes", "datasets"))
        return f"{prefix[1]!r} is not a kind of value{nearest.text}", nearest.name
    return (
        "Such as \"metrics.accuracy > 0.9 AND params.model = 'rf'\": values of params and tags in quotes, numbers of "
        "metrics without."
    ), None

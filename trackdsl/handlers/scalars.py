"""Values with a short text: enumeration members, dates, decimals, sets; and types that hide a secret."""

from __future__ import annotations

import re
from itertools import islice
from typing import Any
from zlib import adler32

from trackdsl._core.redaction import MASK, mask_prose, mask_text, remember
from trackdsl.handlers._handler import Scalar
from trackdsl.handlers._line import MAX_ITEMS, MAX_LINE, flat_line, line_of
from trackdsl.handlers._pickled import Pickled
from trackdsl.handlers._plain import MAX_LIST
from trackdsl.handlers._scalar_text import summary_of_member
from trackdsl.handlers._types import class_name
from trackdsl.handlers._value_digest import digest_of

_NUMBERS = frozenset([int, float])
#: For a larger set, only the number of items is recorded. Sets of up to `_MAX_SORTED` texts are sorted.
_MAX_DIGESTED = 10_000
_MAX_SORTED = 500
#: Two weights for each letter: texts with different letters almost always have a different weighted sum.
_TABLES = (bytes(range(256)), bytes(byte * byte % 251 for byte in range(256)))


class _Shown(Pickled):
    is_text = True

    def content(self, value: Any) -> Any:
        return self.summary(value)

    def summary(self, value: Any) -> Scalar:
        return mask_text(str(value))


class _Span(_Shown):
    """A range: a list if it is short, else its text."""

    def content(self, value: Any) -> Any:
        return list(value) if len(value) <= MAX_LIST else str(value)


class _Duration(_Shown):
    def content(self, value: Any) -> Any:
        return (
            None if value != value else duration_text(value)
        )  # A missing duration of pandas (`NaT`) does not equal itself.


class _Missing(_Shown):
    def content(self, value: Any) -> Any:
        return None


class _Failure(Pickled):
    """Exceptions: their class and message."""

    named = True

    def content(self, value: Any) -> Any:
        return self.summary(value)

    def summary(self, value: Any) -> Scalar:
        return mask_prose(f"{type(value).__qualname__}: {value}" if str(value) else type(value).__qualname__)


class _Member(Pickled):
    is_text = True

    def content(self, value: Any) -> Any:
        return summary_of_member(value)

    def summary(self, value: Any) -> Scalar:
        return summary_of_member(value)


class _Moment(Pickled):
    is_text = True

    def content(self, value: Any) -> Any:
        return None if value != value else self.summary(value)

    def summary(self, value: Any) -> Scalar:
        return str(value.isoformat())


class _Secret(Pickled):
    """Types that hide a value, such as pydantic's `SecretStr`. The value is never written."""

    def accepts(self, value: Any) -> bool:
        reveal = getattr(value, "get_secret_value", None)
        if reveal is not None:
            remember(reveal())
        return True

    def summary(self, value: Any) -> Scalar:
        self.accepts(value)
        return MASK

    def content(self, value: Any) -> Any:
        return self.summary(value)

    def write(self, value: Any, path: Any) -> None:
        raise TypeError(f"{class_name(value)} hides a secret")


class _Group(Pickled):
    """Sets as lists, in an order that is the same in every process."""

    def content(self, value: Any) -> Any:
        """The items in their own order, or in that of their texts if they cannot be compared."""
        try:
            return sorted(value)
        except Exception:
            return sorted(value, key=str)

    def summary(self, value: Any) -> Scalar:
        if len(value) > MAX_ITEMS:
            digest = _digest_of_set(value)
            return f"{type(value).__name__} of {len(value)}{digest and f', digest {digest}'}"
        kinds = set(map(type, value))
        if (kinds <= _NUMBERS and all(item == item for item in value)) or kinds == {str}:
            return flat_line(sorted(value))
        texts = sorted(line_of(item)[0] for item in value)
        line = f"[{', '.join(texts)}]"
        return line if len(line) <= MAX_LINE else f"{type(value).__name__} of {len(value)}, digest {digest_of(texts)}"


def _digest_of_set(value: Any) -> str:
    """The digest of a set with more than `MAX_ITEMS` items; empty if computing it would take long.

    For numbers it is based on Python's hash of the set, which is the same in every process. The hash of a text is not,
    so up to `_MAX_SORTED` texts are sorted. If there are more texts, the digest only covers how often each letter
    occurs.
    """
    kinds = set(map(type, islice(value, MAX_ITEMS)))
    if len(value) > _MAX_DIGESTED:
        return ""
    try:
        if kinds <= _NUMBERS | {type(None)}:
            numbers = value - {None} if None in value else value
            total = sum(numbers)  # It raises an error for other items, and is NaN if an item is.
            if total != total:
                numbers = {item for item in numbers if item == item}
            # In Python, -1 and -2 have the same hash.
            return digest_of([hash(frozenset(numbers)), -1 in numbers, None in value, len(numbers)])
        if kinds == {str}:
            if len(value) <= _MAX_SORTED:
                return digest_of(sorted(value))
            letters = "".join(value).encode("utf-8", "surrogatepass")
            # The lower half of this checksum is the sum of the bytes, which does not depend on their order.
            return digest_of([len(letters), *(adler32(letters.translate(table)) & 0xFFFF for table in _TABLES)])
    except TypeError:  # The items have several types.
        pass
    return digest_of(sorted(line_of(item)[0] for item in value)) if len(value) <= _MAX_SORTED else ""


class _Pattern(Pickled):
    is_text = True

    def summary(self, value: Any) -> Scalar:
        pattern = value.pattern if isinstance(value.pattern, str) else value.pattern.decode("latin-1")
        flags = value.flags & ~re.UNICODE
        return mask_text(f"re.compile({pattern!r}{f', {int(flags)}' if flags else ''})")


def duration_text(value: Any) -> str:
    """A `timedelta` in ISO 8601 format.

    >>> import datetime
    >>> duration_text(datetime.timedelta(days=1, hours=2, seconds=3.5)), duration_text(-datetime.timedelta(minutes=1))
    ('P1DT2H0M3.5S', '-P0DT0H1M0S')
    """
    sign, value = ("-", -value) if value.days < 0 else ("", value)
    minutes, seconds = divmod(value.seconds, 60)
    nanoseconds = value.microseconds * 1000 + getattr(value, "nanoseconds", 0)
    fraction = f".{nanoseconds:09d}".rstrip("0") if nanoseconds else ""
    return f"{sign}P{value.days}DT{minutes // 60}H{minutes % 60}M{seconds}{fraction}S"


shown = _Shown()
span = _Span()
duration = _Duration()
missing = _Missing()
failure = _Failure()
member = _Member()
moment = _Moment()
secret = _Secret()
group = _Group()
pattern = _Pattern()

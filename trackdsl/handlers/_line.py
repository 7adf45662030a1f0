"""Values in one line: as JSON as far as that goes, so that values that differ read differently.

What JSON has not is shown by the summary of its handler, and what is too long for a line by its length and a digest.

A digest takes some microseconds however long a value is, because it is made in the decorated call. So it covers up to
`MAX_DIGESTED` plain items, or `_MAX_BYTES` of text, whole; of more it takes the beginning, the end and items at even
steps between them, some thousand in all. Two longer values that differ only elsewhere read the same; the digest of a
parameter that is marked `Dataset` covers everything.
"""

from __future__ import annotations

import datetime
import decimal
import enum
import json
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from trackdsl._core.redaction import MASK, is_secret, mask_entry, mask_items, mask_name, mask_text, remember
from trackdsl.handlers._registry import Handler, Scalar, class_name, handler_for

#: The longest value of a parameter that MLflow takes, see `MAX_PARAM_VAL_LENGTH` in mlflow/utils/validation.py.
MAX_LINE = 6000
#: A list of more items than this is shown by its length and digest.
MAX_ITEMS = 100
#: So many items of a list go into its digest, and so many bytes of them; of more a sample, which is this part of it.
MAX_DIGESTED = 4096
_OF_LONGER = 4
_MAX_BYTES = 1 << 17
#: Of values that are not plain, so many go into it: each takes microseconds.
_MAX_OPENED = 16
#: So many items of a long list are looked at to tell what is in it, and so many rows, where it holds lists.
_LOOKED_AT = 32
_ROWS = 8
#: So many texts go into the digest of a list of long ones, each by so much of its beginning and its end.
_MAX_TEXTS = 64
_MAX_TEXT_END = 256
#: The bytes of a number, about.
_NUMBER = 9
_MAX_DEPTH = 20
_ADDRESS = " at 0x"
_SCALARS = frozenset([bool, int, float, str, type(None)])
_LISTS = frozenset([list, tuple])
#: What the encoder writes at once, quicker than anything can look at it.
_PACKED = _SCALARS | {bytes, datetime.date, datetime.datetime, datetime.timedelta, decimal.Decimal, uuid.UUID}
#: Sets, which other places may hold than those that were looked at, are the same in every process too.
_encode = msgspec.msgpack.Encoder(order="deterministic").encode
_quoted = json.encoder.encode_basestring
_WORDS = {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}


def _integer(value: int) -> str:
    try:
        return repr(value)
    except ValueError:  # It has more digits than Python shows.
        return f"<an integer of {value.bit_length()} bits>"


def _float(value: float) -> str:
    text = repr(value)
    return _WORDS.get(text, text)


#: How JSON writes what it has.
_TEXTS: dict[type, Callable[[Any], str]] = {
    bool: lambda value: "true" if value else "false",
    int: _integer,
    float: _float,
    str: lambda value: _quoted(mask_text(value)),
    type(None): lambda _: "null",
}


def flat_line(items: Sequence[Any]) -> str:
    """A list of plain values as JSON.

    >>> flat_line([1, "1", None]), flat_line([]), flat_line([""])
    ('[1, "1", null]', '[]', '[""]')
    """
    return f"[{', '.join([_TEXTS[type(item)](item) for item in items])}]"


def line_of(value: Any, most: int = MAX_LINE) -> tuple[str, bool]:
    """A value in one line of at most so many characters, and whether that is all of it.

    >>> line_of(["a, b", ("c", 0.5)])
    ('["a, b", ["c", 0.5]]', True)
    """
    line = _Line(most)
    line.add(value, ())
    text = "".join(line.parts)
    if line.left >= 0:
        return text, line.complete
    size = f" [{type(value).__name__} of {len(value)}]" if isinstance(value, (list, tuple, dict)) else ""
    end = f"…, digest {digest_of(value)}…{size}"
    return text[: most - len(end)] + end, False


def long_list(value: Any) -> str:
    """What is shown of a list that is too long for a line.

    >>> long_list(list(range(1000))) == long_list([*range(999), 0])
    False
    """
    return f"{type(value).__name__} of {len(value)}, digest {digest_of(value)}"


def name_of_key(key: Any) -> str:
    """A key of the user's as text, whatever it is; its class name where it has none."""
    if type(key) in _SCALARS:
        return str(key)
    try:
        if isinstance(key, enum.Enum):
            return str(summary_of_member(key))
        handler = handler_for(type(key))
        text = str(handler.summary(key) if handler.named else key)
        return class_name(key) if _ADDRESS in text else text  # Where it lies in memory is no name.
    except Exception:
        return class_name(key)


def summary_of_member(member: enum.Enum) -> bool | int | float | str:
    """A member of an enumeration: what it stands for where it is text or a number itself, else its name.

    >>> summary_of_member(enum.IntEnum("Level", "LOW HIGH").HIGH), summary_of_member(enum.Enum("Color", "RED").RED)
    (2, 'Color.RED')
    """
    value = member._value_
    if isinstance(member, str):
        return mask_text(str.__str__(member))
    if isinstance(member, (int, float)) and type(value) in _SCALARS:
        return value  # type: ignore[no-any-return]
    name: str | None = member._name_
    # A flag of several members, or of none, has no name before Python 3.11.
    return f"{type(member).__name__}({value})" if name is None else f"{type(member).__name__}.{name}"


def digest_of(value: Any) -> str:
    """Eight digits that are the same in every process for the same value; of a sample where it is long, see above."""
    import xxhash  # What most programs need not wait for.

    if type(value) is str:  # All of one text takes no longer than copying it.
        return xxhash.xxh3_64_hexdigest(value.encode("utf-8", "surrogatepass"))[:8]
    digest = xxhash.xxh3_64()
    _feed(digest.update, value, MAX_DIGESTED, _MAX_OPENED)
    return digest.hexdigest()[:8]


class _Line:
    """Writes one line, until it is full.

    Attributes:
        parts: what was written.
        left: how many characters still may be; less than 0 where something was left out.
        complete: whether nothing was shown by its length alone.
    """

    __slots__ = ("complete", "left", "parts")

    def __init__(self, most: int) -> None:
        self.parts: list[str] = []
        self.left = most
        self.complete = True

    def put(self, text: str) -> None:
        self.parts.append(text)
        self.left -= len(text)

    def add(self, value: Any, around: tuple[int, ...]) -> None:
        kind = type(value)
        if kind is str:  # Masked before it is cut: of half a secret nobody would know that it is one.
            self.put(_quoted(mask_text(value if len(value) <= MAX_LINE else value[: 4 * MAX_LINE])))
        elif kind in _SCALARS:
            self.put(_TEXTS[kind](value))
        elif len(around) > _MAX_DEPTH or id(value) in around:
            self.put(
                f"{kind.__name__} of {len(value)}" if isinstance(value, (list, tuple, dict)) else class_name(value)
            )
        else:
            self._add_other(value, (*around, id(value)))

    def _add_other(self, value: Any, inside: tuple[int, ...]) -> None:
        try:
            handler = handler_for(type(value))
            if _is_sequence(handler):
                self._add_items(value, inside)
                return
            parts = handler.children(value)
            told = handler.summary(value) if parts is None else None
        except Exception:  # A property or mapping of the user's that raises.
            self.put(class_name(value))
            return
        if parts is not None:
            self._add_parts(value, parts, inside)
        elif not isinstance(told, str):
            self.put(_TEXTS.get(type(told), class_name)(told))
        else:
            self.put(_quoted(told) if handler.is_text or told == MASK else str.__str__(told))

    def _add_items(self, value: Any, inside: tuple[int, ...]) -> None:
        if len(value) > MAX_ITEMS:
            self.put(long_list(value))
            self.complete = False
            return
        opening = "["
        for item in mask_items(value):
            self.put(opening)
            opening = ", "
            self.add(item, inside)
            if self.left < 0:
                return
        self.put("]" if len(value) else "[]")

    def _add_parts(self, value: Any, parts: Mapping[Any, Any], inside: tuple[int, ...]) -> None:
        opening = "{" if isinstance(value, Mapping) else f"{type(value).__name__} {{"
        for key, part in mask_entry(parts).items():
            name = mask_name(name_of_key(key))
            self.put(f"{opening}{_quoted(name) if isinstance(key, str) else name}: ")
            opening = ", "
            self.add(remember(part) if is_secret(name, part) else part, inside)
            if self.left < 0:
                return
        self.put("}" if parts else f"{opening}}}")


def _is_sequence(handler: Handler) -> bool:
    """Whether a handler is that of lists and tuples."""
    return handler is handler_for(list)


def _feed(put: Callable[[bytes], None], value: Any, most: int, opened: int, depth: int = 0) -> None:
    """Feed a value, or so many items of it, to a digest; so many of the lists and structures in it are looked into."""
    kind = type(value)
    if kind in _SCALARS:
        put(_bytes_of([_cut(value)]))
        return
    parts: Sequence[Any] | None = value if kind is list or kind is tuple else None
    if parts is None:
        try:
            parts, told = _opened(value)
        except Exception:
            told = class_name(value)
        put(_bytes_of([str.__str__(told) if isinstance(told, str) else told]))
    if parts is None or depth > _MAX_DEPTH:
        return
    put(b"%d" % len(parts))
    chosen = parts if len(parts) <= most else sample(parts, max(1, most // _OF_LONGER))
    packed = _packed(chosen)
    if packed is not None:
        put(packed)
        return
    chosen = sample(chosen, opened)
    for part in chosen:
        _feed(put, part, max(1, most // len(chosen)), max(1, opened // len(chosen)), depth + 1)


def _packed(items: Sequence[Any]) -> bytes | None:
    """Plain items, and lists of those, as bytes; None where some that were looked at are no such."""
    look = sample(items, _LOOKED_AT)
    kinds, inside, depth = set(map(type, look)), 1.0, 0
    while look and kinds <= _LISTS and depth < _ROWS:
        rows = sample(look, _ROWS)
        inside *= max(1.0, sum(map(len, rows)) / len(rows))
        look = [item for row in rows for item in sample(row, _LOOKED_AT)]
        kinds, depth = set(map(type, look)), depth + 1
    if not kinds <= _PACKED:
        return None
    lengths = [len(item) for item in look if type(item) is str or type(item) is bytes]
    most = int(_MAX_BYTES / inside / (_NUMBER + sum(lengths) / max(1, len(look))))
    if len(items) > most:
        if kinds == {str} and type(items[0]) is str:
            return _packed_texts(items)
        if most < _ROWS:
            return None
        items = sample(items, most)
    try:
        return _encode(items if kinds <= _SCALARS else [sorted(kind.__name__ for kind in kinds), items])
    except Exception:  # There was something else in a place that was not looked at.
        return _bytes_of(items) if _SCALARS.issuperset(map(type, items)) else None


def _packed_texts(items: Sequence[Any]) -> bytes | None:
    """Long texts: the lengths of all, and of some of them how they begin and end."""
    some = sample(items, _MAX_TEXTS)
    try:
        return _bytes_of([*map(len, items), *map(_cut, some)])
    except TypeError:  # Not all of them are texts.
        return None


def _opened(value: Any) -> tuple[Sequence[Any] | None, Scalar]:
    """The parts of a structure or a list, and what is told of any other value."""
    handler = handler_for(type(value))
    if _is_sequence(handler):
        return value, None
    parts = handler.children(value)
    if parts is None:
        return None, handler.summary(value)
    named = ((name_of_key(key), part) for key, part in mask_entry(parts).items())
    return [[name, MASK if is_secret(name, part) else part] for name, part in named], None


def _cut(value: Any) -> Any:
    """A plain value; of a long text its length, its beginning and its end."""
    if type(value) is not str or len(value) <= 4 * _MAX_TEXT_END:
        return value
    return f"{len(value)} {value[:_MAX_TEXT_END]}{value[-_MAX_TEXT_END:]}"


def sample(items: Sequence[Any], most: int) -> Sequence[Any]:
    """At most so many items: the beginning of a list, its end, and at even steps between; all of a shorter list.

    >>> sample(range(100), 8)
    [0, 1, 2, 27, 52, 77, 98, 99]
    """
    count, end = len(items), most // 4
    if count <= most:
        return items
    # An odd step, as what repeats itself mostly does so after an even number of items.
    step = -(-(count - 2 * end) // (most - 2 * end)) | 1
    return [*items[:end], *items[end : count - end : step], *items[count - end :]]


def _bytes_of(items: Sequence[Any]) -> bytes:
    """Plain values as bytes; what is no integer of 64 bits, and no text of Unicode, by its text."""
    try:
        return _encode(items)
    except (OverflowError, UnicodeEncodeError):
        texts = [_TEXTS[type(item)](item) if type(item) in _SCALARS else str(_bytes_of(item)) for item in items]
        return "\0".join(texts).encode("utf-8", "backslashreplace")

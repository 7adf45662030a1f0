"""Values in one line: as JSON as far as that goes, so that values that differ read differently.

What JSON has not is shown by the summary of its handler, and what is too long for a line by its length and a digest.
"""

from __future__ import annotations

import enum
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import chain
from typing import Any

import msgspec

from trackdsl._secrets import MASK, is_secret, mask_entry, mask_items, mask_name, mask_text, remember
from trackdsl.handlers._registry import Handler, Scalar, class_name, handler_for

#: The longest value of a parameter that MLflow takes, see `MAX_PARAM_VAL_LENGTH` in mlflow/utils/validation.py.
MAX_LINE = 6000
#: A list of more items than this is shown by its length and digest.
MAX_ITEMS = 100
#: So many items of a value go into its digest, those of the lists in it included; of more a sample does.
MAX_DIGESTED = 10_000
#: Of the lists and structures in a value, so many are looked into.
_MAX_OPENED = 300
#: Rows of plain items are taken whole up to so many.
_MAX_IN_ROWS = 50_000
#: So much of its texts goes into a digest.
_MAX_TEXT = 100_000
_MAX_DEPTH = 20
_SCALARS = frozenset([bool, int, float, str, type(None)])
_LISTS = frozenset([list, tuple])
_encode = msgspec.msgpack.Encoder().encode
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
    try:
        return str(summary_of_member(key)) if isinstance(key, enum.Enum) else str(key)
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
    """Eight digits that are the same in every process for the same value; in bounded time, so of a sample of much."""
    import xxhash  # What most programs need not wait for.

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
        put(_bytes_of(_cut([value])))
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
    chosen = _sample(parts, most)
    kinds = set(map(type, chosen))
    if kinds <= _SCALARS:
        put(_bytes_of(_cut(chosen) if str in kinds else chosen))
    elif kinds <= _LISTS and sum(map(len, chosen)) <= _MAX_IN_ROWS and _are_plain(chain.from_iterable(chosen)):
        put(_bytes_of(chosen))
    else:
        chosen = _sample(chosen, opened)
        for part in chosen:
            _feed(put, part, max(1, most // len(chosen)), max(1, opened // len(chosen)), depth + 1)


def _are_plain(items: Iterable[Any]) -> bool:
    return _SCALARS.issuperset(map(type, items))


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


def _cut(items: Sequence[Any]) -> Sequence[Any]:
    """Plain items, with their length and beginning where they are long texts."""
    if sum([len(item) for item in items if type(item) is str]) <= _MAX_TEXT:
        return items
    most = _MAX_TEXT // len(items)
    return [f"{len(item)} {item[:most]}" if type(item) is str and len(item) > most else item for item in items]


def _sample(items: Sequence[Any], most: int) -> Sequence[Any]:
    """At most so many items, from all over a list."""
    count = len(items)
    return items if count <= most else [items[index * count // most] for index in range(most - 1)] + [items[count - 1]]


def _bytes_of(items: Sequence[Any]) -> bytes:
    """Plain values as bytes; what is no integer of 64 bits, and no text of Unicode, by its text."""
    try:
        return _encode(items)
    except (OverflowError, UnicodeEncodeError):
        texts = [_TEXTS[type(item)](item) if type(item) in _SCALARS else str(_bytes_of(item)) for item in items]
        return "\0".join(texts).encode("utf-8", "backslashreplace")

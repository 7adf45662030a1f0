"""Short digests of values, which make values that differ distinguishable in a parameter.

A digest is computed inside the decorated call, so it takes only microseconds, however long the value is. Up to
`MAX_DIGESTED` plain items, or `_MAX_BYTES` of text, are covered completely. A longer value is sampled: its beginning,
its end, and items at regular steps between them. Two long values that differ only in other items have the same digest.
The digest of a parameter marked `Dataset` covers everything; see `_digest`.
"""

from __future__ import annotations

import datetime
import decimal
import uuid
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from trackdsl._core.redaction import MASK, is_secret, mask_entry
from trackdsl.handlers._handler import Handler, Scalar
from trackdsl.handlers._registry import handler_for
from trackdsl.handlers._scalar_text import JSON_TEXT, SCALARS, name_of_key
from trackdsl.handlers._types import class_name

#: A list of more items, or of more bytes, is sampled. The sample has `1 / _SAMPLE_PART` of `MAX_DIGESTED` items.
MAX_DIGESTED = 4096
_SAMPLE_PART = 4
_MAX_BYTES = 1 << 17
#: This many values that are not plain are covered: each takes microseconds.
_MAX_OPENED = 16
#: This many items of a list are inspected to find out their types, and this many rows of a list of lists.
_INSPECTED_ITEMS = 32
_INSPECTED_ROWS = 8
#: This many long texts of a list are covered, each by this many characters of its beginning and of its end.
_MAX_TEXTS = 64
_MAX_TEXT_END = 256
#: The size of an encoded number, in bytes, approximately.
_NUMBER_SIZE = 9
_MAX_DEPTH = 20
_LISTS = frozenset([list, tuple])
#: Types that msgspec encodes directly, which is faster than any code of ours.
_ENCODABLE = SCALARS | {bytes, datetime.date, datetime.datetime, datetime.timedelta, decimal.Decimal, uuid.UUID}
#: `deterministic`: an item that was not inspected may contain a set, whose order differs between processes.
_encode = msgspec.msgpack.Encoder(order="deterministic").encode


def digest_of(value: Any) -> str:
    """Eight hexadecimal digits that are the same for equal values in every process; see the module for long values."""
    import xxhash  # Most programs record no long values and never need it.

    if type(value) is str:  # Hashing a whole text takes no longer than copying it.
        return xxhash.xxh3_64_hexdigest(value.encode("utf-8", "surrogatepass"))[:8]
    digest = xxhash.xxh3_64()
    _feed(digest.update, value, MAX_DIGESTED, _MAX_OPENED)
    return digest.hexdigest()[:8]


def is_sequence(handler: Handler) -> bool:
    """Whether a handler is the one for lists and tuples."""
    return handler is handler_for(list)


def _feed(update: Callable[[bytes], None], value: Any, most: int, opened: int, depth: int = 0) -> None:
    """Feed a value to a digest.

    Args:
        update: adds bytes to the digest.
        value: any value.
        most: how many items of a list are covered.
        opened: how many lists and structures inside the value are covered.
        depth: how many lists and structures are around the value.
    """
    kind = type(value)
    if kind in SCALARS:
        update(_bytes_of([_shortened(value)]))
        return
    parts: Sequence[Any] | None = value if kind is list or kind is tuple else None
    if parts is None:
        try:
            parts, summary = _parts_or_summary(value)
        except Exception:
            summary = class_name(value)
        update(_bytes_of([str.__str__(summary) if isinstance(summary, str) else summary]))
    if parts is None or depth > _MAX_DEPTH:
        return
    update(b"%d" % len(parts))
    chosen = parts if len(parts) <= most else sample(parts, max(1, most // _SAMPLE_PART))
    encoded = _encoded(chosen)
    if encoded is not None:
        update(encoded)
        return
    chosen = sample(chosen, opened)
    for part in chosen:
        _feed(update, part, max(1, most // len(chosen)), max(1, opened // len(chosen)), depth + 1)


def _encoded(items: Sequence[Any]) -> bytes | None:
    """Plain items, and lists of plain items, as bytes; None if one of the inspected items is something else."""
    inspected = sample(items, _INSPECTED_ITEMS)
    kinds, per_item, depth = set(map(type, inspected)), 1.0, 0
    while inspected and kinds <= _LISTS and depth < _INSPECTED_ROWS:
        rows = sample(inspected, _INSPECTED_ROWS)
        per_item *= max(1.0, sum(map(len, rows)) / len(rows))
        inspected = [item for row in rows for item in sample(row, _INSPECTED_ITEMS)]
        kinds, depth = set(map(type, inspected)), depth + 1
    if not kinds <= _ENCODABLE:
        return None
    lengths = [len(item) for item in inspected if type(item) is str or type(item) is bytes]
    most = int(_MAX_BYTES / per_item / (_NUMBER_SIZE + sum(lengths) / max(1, len(inspected))))
    if len(items) > most:
        if kinds == {str} and type(items[0]) is str:
            return _encoded_texts(items)
        if most < _INSPECTED_ROWS:
            return None
        items = sample(items, most)
    try:
        return _encode(items if kinds <= SCALARS else [sorted(kind.__name__ for kind in kinds), items])
    except Exception:  # An item that was not inspected has another type.
        return _bytes_of(items) if SCALARS.issuperset(map(type, items)) else None


def _encoded_texts(items: Sequence[Any]) -> bytes | None:
    """Encode long texts for a digest: the lengths of all of them, and the beginning and the end of some."""
    some = sample(items, _MAX_TEXTS)
    try:
        return _bytes_of([*map(len, items), *map(_shortened, some)])
    except TypeError:  # Not all items are texts.
        return None


def _parts_or_summary(value: Any) -> tuple[Sequence[Any] | None, Scalar]:
    """The parts of a list or structure and None, or None and the summary of any other value."""
    handler = handler_for(type(value))
    if is_sequence(handler):
        return value, None
    parts = handler.children(value)
    if parts is None:
        return None, handler.summary(value)
    named = ((name_of_key(key), part) for key, part in mask_entry(parts).items())
    return [[name, MASK if is_secret(name, part) else part] for name, part in named], None


def _shortened(value: Any) -> Any:
    """A plain value; a long text by its length, its beginning and its end."""
    if type(value) is not str or len(value) <= 4 * _MAX_TEXT_END:
        return value
    return f"{len(value)} {value[:_MAX_TEXT_END]}{value[-_MAX_TEXT_END:]}"


def sample(items: Sequence[Any], most: int) -> Sequence[Any]:
    """At most `most` items of a list: from its beginning, its end, and at regular steps between them.

    >>> sample(range(100), 8)
    [0, 1, 2, 27, 52, 77, 98, 99]
    """
    count, end = len(items), most // 4
    if count <= most:
        return items
    # The step is odd, because patterns in data mostly repeat after an even number of items.
    step = -(-(count - 2 * end) // (most - 2 * end)) | 1
    return [*items[:end], *items[end : count - end : step], *items[count - end :]]


def _bytes_of(items: Sequence[Any]) -> bytes:
    """Plain values as bytes. Integers of more than 64 bits and invalid Unicode are written as text."""
    try:
        return _encode(items)
    except (OverflowError, UnicodeEncodeError):
        texts = [JSON_TEXT[type(item)](item) if type(item) in SCALARS else str(_bytes_of(item)) for item in items]
        return "\0".join(texts).encode("utf-8", "backslashreplace")

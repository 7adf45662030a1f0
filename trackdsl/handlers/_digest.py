"""Complete digests of data. Equal content gives equal digests, whatever its layout in memory; any change gives another.

A digest consists of streams, such as the bytes of a column, the lengths of its texts, or the positions of its gaps.
A stream may be fed in pieces of any size. Numbers are hashed by their bits: 0.0 and -0.0 differ, and so do NaNs with
different bits in an array. NaNs that are Python objects are all equal.
"""

from __future__ import annotations

import copyreg
import struct
import types
from array import array
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import xxhash

#: Python objects are hashed in groups of this many. A group that contains only texts is hashed at once.
GROUP = 65536
_NONE, _NAN = -1, -2
_TEXTS = frozenset([str, type(None), float])


class Digest:
    """A hash over facts and streams.

    Args:
        kind: the kind of data.

    Attributes:
        passed: how many items of each stream have been fed, for callers that hash positions.

    Example:
        >>> one, other = Digest("x"), Digest("x")
        >>> one.feed("a", b"12"), other.feed("a", b"1"), other.feed("a", b"2")
        (None, None, None)
        >>> one.hexdigest() == other.hexdigest()
        True
    """

    def __init__(self, kind: str) -> None:
        import xxhash

        self._new = xxhash.xxh3_128
        self._streams: dict[str, xxhash.xxh3_128] = {}
        self._facts = [kind]
        self.passed: dict[str, int] = {}

    def add_facts(self, *facts: Any) -> None:
        """Add facts that are not part of a stream: names, types, shapes. Their order matters."""
        self._facts.extend(facts)

    def stream(self, name: str) -> xxhash.xxh3_128:
        """The hash of one stream, for callers that feed it many times."""
        state = self._streams.get(name)
        if state is None:
            state = self._streams[name] = self._new()
        return state

    def feed(self, name: str, piece: Any) -> None:
        """Add bytes, or an object with a contiguous buffer, to the end of a stream."""
        self.stream(name).update(piece)

    def hexdigest(self) -> str:
        """The digest as 32 hexadecimal digits."""
        whole = self._new(encode(self._facts))
        for name in sorted(self._streams):
            whole.update(encode(name))
            whole.update(self._streams[name].digest())
        return whole.hexdigest()


def feed_objects(digest: Digest, stream: str, items: Sequence[Any]) -> set[type]:
    """Feed Python objects. Every call for a stream except the last one must pass a multiple of `GROUP` objects.

    Returns:
        the types of the objects; a NaN among texts does not count.
    """
    all_kinds: set[type] = set()
    for start in range(0, len(items), GROUP):
        group = items[start : start + GROUP]
        kinds = set(map(type, group))
        if kinds <= _TEXTS and (float not in kinds or all(v != v for v in group if type(v) is float)):
            _feed_texts(digest, stream, group, kinds)
            kinds.discard(float)
        else:
            digest.feed(f"{stream}.objects", b"".join(map(encode, group)))
            digest.feed(f"{stream}.groups", b"o")
        all_kinds |= kinds
    return all_kinds


def _feed_texts(digest: Digest, stream: str, group: Sequence[Any], kinds: set[type]) -> None:
    if kinds == {str}:
        lengths, text = array("q", map(len, group)), "".join(group)
    else:
        lengths = array("q", [len(v) if type(v) is str else _NONE if v is None else _NAN for v in group])
        text = "".join([v for v in group if type(v) is str])
    digest.feed(f"{stream}.text", text.encode("utf-8", "surrogatepass"))
    digest.feed(f"{stream}.lengths", memoryview(lengths).cast("B"))
    digest.feed(f"{stream}.groups", b"t")


def encode(value: Any) -> bytes:
    """A Python object as bytes. Equal objects give equal bytes.

    Pickle does not guarantee this: it records which objects are identical, and writes sets in any order.

    Raises:
        TypeError: it contains an object that cannot be pickled, such as an open file.

    Example:
        >>> encode({"a": 1, "b": {2, 3}}) == encode({"b": {3, 2}, "a": 1})
        True
        >>> encode(1) == encode(True), encode("1") == encode(b"1")
        (False, False)
    """
    parts: list[bytes] = []
    _encode(value, parts.append, ())
    return b"".join(parts)


def _encode(value: Any, put: Callable[[bytes], None], around: tuple[int, ...]) -> None:
    kind = type(value)
    plain = _PLAIN.get(kind)
    if plain is not None:
        put(plain(value))
    elif id(value) in around:
        put(_sized(b"^", str(around[::-1].index(id(value))).encode()))
    elif kind is list or kind is tuple:
        put(b"%s%d:" % (b"[" if kind is list else b"(", len(value)))
        _encode_each(value, put, (*around, id(value)))
    elif kind is dict:
        _encode_sorted(b"{", value.items(), put, (*around, id(value)))
    elif kind is set or kind is frozenset:
        _encode_sorted(b"<" if kind is set else b">", value, put, (*around, id(value)))
    elif isinstance(value, (type, types.FunctionType, types.BuiltinFunctionType)):
        if "<" in value.__qualname__:
            raise TypeError(f"{value.__qualname__} cannot be imported by its name")
        put(_sized(b"g", f"{value.__module__}.{value.__qualname__}".encode()))
    elif kind.__module__ == "numpy" and hasattr(value, "dtype") and not value.dtype.hasobject:
        put(_sized(b"n", encode([str(value.dtype.descr), list(value.shape)]) + value.tobytes()))
    else:
        _encode_reduced(value, put, (*around, id(value)))


def _encode_each(values: Iterable[Any], put: Callable[[bytes], None], around: tuple[int, ...]) -> None:
    for value in values:
        _encode(value, put, around)


def _encode_sorted(tag: bytes, values: Iterable[Any], put: Callable[[bytes], None], around: tuple[int, ...]) -> None:
    encoded = []
    for value in values:
        parts: list[bytes] = []
        # A dict creates its pairs each time, so a pair cannot contain itself.
        if tag == b"{":
            _encode_each(value, parts.append, around)
        else:
            _encode(value, parts.append, around)
        encoded.append(b"".join(parts))
    put(b"%s%d:" % (tag, len(encoded)))
    for part in sorted(encoded):
        put(part)


def _encode_reduced(value: Any, put: Callable[[bytes], None], around: tuple[int, ...]) -> None:
    """Any other object, by the parts from which pickle would restore it (see `object.__reduce_ex__`)."""
    reducer = copyreg.dispatch_table.get(type(value))
    reduced = reducer(value) if reducer is not None else value.__reduce_ex__(4)
    if isinstance(reduced, str):
        put(_sized(b"g", f"{type(value).__module__}.{reduced}".encode()))
        return
    made_by, arguments, state, items, pairs = (*reduced, None, None, None)[:5]
    put(b"R")
    _encode(made_by, put, around)
    _encode(arguments, put, around)
    _encode(state, put, around)
    for listed in (items, pairs):
        parts: list[Any] = [] if listed is None else list(listed)
        put(b"%d:" % len(parts))
        _encode_each(parts, put, around)


def _sized(tag: bytes, content: bytes) -> bytes:
    return b"%s%d:%s" % (tag, len(content), content)


def _float(value: float) -> bytes:
    return b"f" + struct.pack("<d", value) if value == value else b"?"


_PLAIN: dict[type, Callable[[Any], bytes]] = {
    type(None): lambda _: b"N",
    bool: lambda value: b"T" if value else b"F",
    int: lambda value: _sized(b"i", b"%x" % value),
    float: _float,
    str: lambda value: _sized(b"s", value.encode("utf-8", "surrogatepass")),
    bytes: lambda value: _sized(b"b", value),
    type(Ellipsis): lambda _: b"E",
    type(NotImplemented): lambda _: b"I",
}

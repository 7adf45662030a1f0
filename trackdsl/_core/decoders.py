"""msgspec's decoders, built when they are first needed, where no signal handler can break in.

msgspec reads the annotations of a type by Python code. Where a signal handler raises in the middle of that, as Ctrl-C
does, msgspec crashes the interpreter; where one raises while msgspec is imported, that is forgotten. So this module is
the first one of the package to be imported.
"""

from __future__ import annotations

import functools
import importlib
from typing import TypeVar

from trackdsl._core.signals import away_from_signals

away_from_signals(lambda: importlib.import_module("msgspec"))

import msgspec  # noqa: E402 - after the above

T = TypeVar("T")


@functools.cache
def json_decoder(kind: type[T]) -> msgspec.json.Decoder[T]:
    """The decoder of a type's JSON.

    Example:
        >>> json_decoder(list[int]).decode(b"[3]")
        [3]
    """
    return away_from_signals(lambda: msgspec.json.Decoder(kind))


@functools.cache
def msgpack_decoder(kind: type[T]) -> msgspec.msgpack.Decoder[T]:
    """The decoder of a type's MessagePack."""
    return away_from_signals(lambda: msgspec.msgpack.Decoder(kind))

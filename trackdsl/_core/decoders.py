"""Decoders of msgspec, made at their first use, where no signal handler can interrupt.

To make a decoder, msgspec reads annotations in Python code. If a signal handler raises there, as Ctrl-C does, msgspec
crashes the interpreter. If a handler raises while msgspec is being imported, the exception is lost. So the package
imports this module first.
"""

from __future__ import annotations

import functools
import importlib
from typing import TypeVar

from trackdsl._core.signals import without_signals

without_signals(lambda: importlib.import_module("msgspec"))

import msgspec  # noqa: E402 - after the import in the other thread

T = TypeVar("T")


@functools.cache
def json_decoder(kind: type[T]) -> msgspec.json.Decoder[T]:
    """A decoder from JSON to a type.

    Example:
        >>> json_decoder(list[int]).decode(b"[3]")
        [3]
    """
    return without_signals(lambda: msgspec.json.Decoder(kind))


@functools.cache
def msgpack_decoder(kind: type[T]) -> msgspec.msgpack.Decoder[T]:
    """A decoder from MessagePack to a type."""
    return without_signals(lambda: msgspec.msgpack.Decoder(kind))

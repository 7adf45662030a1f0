"""What recording cannot be cheaper than: the call alone, binding its signature, one write to a file."""

from __future__ import annotations

import inspect
import os
from collections.abc import Mapping

from answering import Body, answer
from the_call import train

_signature = inspect.signature(train)
_LINE = b"x" * 60


def calls(count: int) -> None:
    """Calls the undecorated function."""
    for _ in range(count):
        train("data/train.csv", 0.05, 20, seed=42)


def binds(count: int) -> None:
    """Binds the arguments with `inspect.Signature.bind`."""
    for _ in range(count):
        _signature.bind("data/train.csv", 0.05, 20, seed=42).apply_defaults()


def prepare() -> Mapping[str, Body]:
    """Open a file and warm up."""
    descriptor = os.open("written", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def writes(count: int) -> None:
        for _ in range(count):
            os.write(descriptor, _LINE)

    def shorten(_: int) -> None:
        os.ftruncate(descriptor, 0)

    for body in (calls, binds, writes):
        body(1000)
    return {"call": calls, "bind": binds, "write": writes, "after-write": shorten}


answer(prepare)

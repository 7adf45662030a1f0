"""Ids of runs: ten random bytes, drawn once per process, and a count of six. A uuid4 would cost more than an event."""

from __future__ import annotations

import itertools
import os

from trackdsl._core import runtime
from trackdsl._core.runtime import Phase

_PREFIX_LENGTH = 10
_prefix = os.urandom(_PREFIX_LENGTH)
_count = itertools.count(1)


def new_id() -> bytes:
    """A new id of 16 bytes, unique among all runs anywhere."""
    return _prefix + next(_count).to_bytes(6, "big")


def prefix() -> bytes:
    """What all ids of this process begin with."""
    return _prefix


def prefix_of(id_: bytes) -> bytes:
    """What all ids of the process begin with that drew an id."""
    return id_[:_PREFIX_LENGTH]


def begins_with(id_: bytes, start: bytes) -> bool:
    """Whether an id was drawn by the process whose ids begin with `start`."""
    return id_[:_PREFIX_LENGTH] == start


def _after_fork() -> None:
    global _prefix, _count
    _prefix, _count = os.urandom(_PREFIX_LENGTH), itertools.count(1)


runtime.register("the ids of runs", Phase.IDENTITY, after_fork=_after_fork)

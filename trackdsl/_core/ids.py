"""Ids of runs: ten random bytes, drawn once per process, and a count of six bytes.

A `uuid4` for each run would take longer than writing its event.
"""

from __future__ import annotations

import itertools
import os
import re

from trackdsl._core import runtime
from trackdsl._core.runtime import Phase

PREFIX_LENGTH = 10
_prefix = os.urandom(PREFIX_LENGTH)
_count = itertools.count(1)
#: Our ids end in a count of 48 bits, which stays small; MLflow's ids are random to the end.
_OURS = re.compile(r"[0-9a-f]{20}0000[0-9a-f]{8}")


def new_id() -> bytes:
    """A new id of 16 bytes, unique among all runs anywhere."""
    return _prefix + next(_count).to_bytes(6, "big")


def prefix() -> bytes:
    """The bytes that all ids of this process begin with."""
    return _prefix


def prefix_of(id_: bytes) -> bytes:
    """The prefix of the process that created an id."""
    return id_[:PREFIX_LENGTH]


def begins_with(id_: bytes, start: bytes) -> bool:
    """Whether the process with the prefix `start` created an id."""
    return id_[:PREFIX_LENGTH] == start


def is_ours(id_: str) -> bool:
    """Whether a run's id looks like one of ours, and not like MLflow's.

    >>> is_ours("8f14e45fceea167a5a36" + "000000000001"), is_ours("8f14e45fceea467a8a36dedd4bea2543")
    (True, False)
    """
    return _OURS.fullmatch(id_) is not None


def _after_fork() -> None:
    global _prefix, _count
    _prefix, _count = os.urandom(PREFIX_LENGTH), itertools.count(1)


runtime.register("the ids of runs", Phase.IDENTITY, after_fork=_after_fork)

"""Sizes and pauses of journals: every limit that a test changes is a field of `Limits`."""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Limits:
    """The limits of the journals that this process makes from now on.

    Attributes:
        first_segment: the size of the first segment in bytes; each further one is twice as large.
        largest_segment: the largest size of a segment in bytes, unless a single event needs more.
        reserve: the space in bytes that is kept for the ends of runs, in case the disk is full.
        full_disk_retry: the pause before a new segment is tried again, in nanoseconds.
        no_journal_retry: the pause before a new journal is tried again, in nanoseconds.
    """

    first_segment: int = 256 * 1024
    largest_segment: int = 8 * 1024 * 1024
    reserve: int = 128 * 1024
    full_disk_retry: int = 10_000_000
    no_journal_retry: int = 1_000_000_000


class _Process:
    """The limits of this process."""

    limits = Limits()


def limits() -> Limits:
    """The limits of this process."""
    return _Process.limits


def set_limits(new: Limits) -> None:
    """Replace the limits of this process, which only tests do."""
    _Process.limits = new


def change_limits(**changed: int) -> None:
    """Replace some limits of this process.

    Raises:
        TypeError: there is no such limit.
    """
    set_limits(replace(limits(), **changed))

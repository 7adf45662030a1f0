"""Journals that were deleted while their programs wrote to them, and those that go on in their place.

A program that notices begins a new journal, with the beginnings of the runs that are open. These runs are ended with
that journal. What else the deleted one has left open nobody tells the end of any more.
"""

from __future__ import annotations

import platform
from typing import TYPE_CHECKING

import psutil

from trackdsl.journal._origin import Origin

if TYPE_CHECKING:
    from trackdsl.delivery._open_journal import OpenJournal


def is_deleted(stream: OpenJournal) -> bool:
    """Whether a journal's folder or lock is gone, so that nobody can see whether its program lives."""
    return not (stream.directory / "lock").exists()


def may_go_on(origin: Origin) -> bool:
    """Whether the program that wrote a journal still runs, as far as this machine can tell."""
    if origin.host != platform.node():
        return False
    try:
        process = psutil.Process(origin.pid)
        # One second: the clock of the machine may have been corrected since the process began.
        return bool(process.status() != psutil.STATUS_ZOMBIE and process.create_time() <= origin.time / 1e9 + 1)
    except psutil.Error:
        return False

"""Journals that were deleted while their programs wrote to them, and the journals that succeed them.

A program that notices the deletion begins a new journal with the opening events of all open runs. These runs end with
the new journal. The end of any other open run of the deleted journal is unknown.
"""

from __future__ import annotations

import platform
from typing import TYPE_CHECKING

import psutil

from trackdsl.journal._origin import Origin

if TYPE_CHECKING:
    from trackdsl.delivery._open_journal import OpenJournal


def is_deleted(stream: OpenJournal) -> bool:
    """Whether the folder or the lock of a journal is gone, so that it is unknown whether its program runs."""
    return not (stream.directory / "lock").exists()


def may_still_run(origin: Origin) -> bool:
    """Whether the program that wrote a journal may still run, as far as this machine can tell."""
    if origin.host != platform.node():
        return False
    try:
        process = psutil.Process(origin.pid)
        # One second of tolerance: the clock may have been corrected since the process began.
        return bool(process.status() != psutil.STATUS_ZOMBIE and process.create_time() <= origin.time / 1e9 + 1)
    except psutil.Error:
        return False

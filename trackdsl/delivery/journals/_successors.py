"""Journals that were deleted while their programs wrote to them, and the journals that succeed them.

A program that notices the deletion begins a new journal with the opening events of all open runs. These runs end with
the new journal. The end of any other open run of the deleted journal is unknown.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from trackdsl.delivery.state._open_journal import OpenJournal


def is_deleted(stream: OpenJournal) -> bool:
    """Whether the folder or the lock of a journal is gone, so that it is unknown whether its program runs."""
    return not (stream.directory / "lock").exists()

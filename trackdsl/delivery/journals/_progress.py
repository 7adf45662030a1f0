"""Noting how far a journal is delivered, what may have been sent of it, and why delivery fails."""

from __future__ import annotations

import time
from pathlib import Path

import msgspec

from trackdsl.delivery.batches._timestamp_dedup import TimestampDedup
from trackdsl.delivery.runs._deferral import Waiting
from trackdsl.journal._segments import Position, segments
from trackdsl.store_format.progress import Progress, ProgressFile

#: Behind everything that a journal will ever have.
END = Position(1 << 62, 0)
_LONGEST_ERROR = 1000
#: The fields that count what is lost.
_LOSSES = ("damaged", "unknown", "missing", "refused")


class JournalProgress:
    """The progress of one journal, and the file that it is written down in.

    Args:
        directory: the journal's folder.

    Attributes:
        latest: the progress that the next `save` writes.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._file = ProgressFile(directory, write=True)
        self.latest = self._file.read()

    def save(self) -> None:
        """Write the progress; it survives the death of this process."""
        self._file.write(self.latest)

    def begin_again(self) -> None:
        """Write that everything is to be read again, and that all of it may have been sent."""
        before, numbers = self.latest, segments(self._directory)
        first = numbers[0] if numbers else before.segment
        lost = int(first > 1)  # The journal does not have all of it any more.
        self.latest = Progress(
            count=before.count,
            segment=first,
            intent_segment=END.segment,
            damaged=before.damaged + lost,
            unknown=before.unknown,
            missing=before.missing,
            refused=before.refused,
        )
        self.save()

    def losses(self) -> Progress:
        """A copy of the progress, for `restore_losses`."""
        return msgspec.structs.replace(self.latest, missing=[*self.latest.missing])

    def restore_losses(self, before: Progress) -> None:
        """Count what is lost as before: the events that it was counted for are read again."""
        for name in _LOSSES:
            setattr(self.latest, name, getattr(before, name))

    def write_intent(self, up_to: Position) -> None:
        """Write that everything before a position may have been sent."""
        self.latest.intent_segment, self.latest.intent_offset = up_to
        self.save()

    def write_blocked(self, error: str) -> None:
        """Write why delivery fails, for programs and commands."""
        if not self.latest.blocked_since:
            self.latest.blocked_since = time.time_ns()
        self.latest.error = error[:_LONGEST_ERROR]
        self.count_failure()

    def count_failure(self) -> None:
        """Count an attempt of delivery that failed: a waiting program must know."""
        self.latest.failures += 1
        self.save()

    def set_deferred(self, waiting: Waiting, reason: str) -> None:
        """Set how much is deferred, and why runs are blocked, for the next `save`."""
        before = self.latest.blocked
        self.latest.deferred, self.latest.held, self.latest.blocked = waiting
        if waiting.blocked:
            self.latest.error = reason[:_LONGEST_ERROR]
        elif before:
            self.latest.error = ""

    def set_delivered(self, position: Position, intent: Position, count: int, timestamps: TimestampDedup) -> None:
        """Set that everything before a position is delivered, for the next `save`.

        Args:
            position: the position.
            intent: everything before may have been sent.
            count: how many events were delivered since the last time.
            timestamps: the timestamps that later points must avoid.
        """
        self.latest.segment, self.latest.offset = position
        self.latest.intent_segment, self.latest.intent_offset = intent
        self.latest.events += count
        self.latest.blocked_since = 0
        self.latest.points = timestamps.remembered()
        self.latest.clock = timestamps.now

    def to_disk(self) -> None:
        """Flush what was written down to the disk, before segments are removed that it marks as delivered."""
        self._file.to_disk()

    def close(self) -> None:
        """Close the file until it is used again."""
        self._file.close()

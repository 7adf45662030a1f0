"""The delivery of one journal: it reads a stretch of events, writes it to the store, and then writes its own progress.

Before anything of a stretch is sent, its end is written down as the intent; afterwards, the stretch as done. After a
crash, everything up to the intent may have been sent: runs are then looked up by their tag before they are created, and
everything else may be written twice.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

from trackdsl._core.events import File
from trackdsl.delivery.batches._timestamp_dedup import TimestampDedup
from trackdsl.delivery.journals._interpreter import Interpreter
from trackdsl.delivery.journals._losses import JournalLosses
from trackdsl.delivery.journals._progress import END, JournalProgress
from trackdsl.delivery.journals._stretch_size import StretchSize
from trackdsl.delivery.journals._successors import is_deleted
from trackdsl.delivery.runs._ending import DELETED, DIED
from trackdsl.delivery.runs._shared import Shared
from trackdsl.delivery.state._last_seen import LastSeen
from trackdsl.delivery.state._ledger import journal_ledger
from trackdsl.delivery.state._open_events import OpenEvents
from trackdsl.delivery.state._run_map import RunMap
from trackdsl.delivery.store._errors import NotYet, RefusedTogether, Unavailable, explained
from trackdsl.delivery.store._sink import Sink
from trackdsl.journal._origin import Origin, may_still_run
from trackdsl.journal._reader import Entry, Reader
from trackdsl.journal._segments import Position, segment_path, segments
from trackdsl.journal._spool import remove_journal
from trackdsl.store_format.progress import Progress


class Stream:
    """The delivery of one journal.

    Args:
        directory: the journal's folder.
        origin: the program that wrote it, and its store.
        shared: what the journals of a store share.

    Attributes:
        prefix: the first bytes of its runs' ids; empty if an old version wrote it.
        finished: whether all of it is delivered and it was removed.
        expects_more: whether its program runs and everything so far was read, so that more events may come soon.
        last_seen: looks whether the program runs.
    """

    def __init__(self, directory: Path, origin: Origin, shared: Shared) -> None:
        self.directory = directory
        self.origin = origin
        self.prefix = bytes.fromhex(origin.prefix)
        self.ledger = journal_ledger(directory)
        self.runs = RunMap(self.ledger)
        self._open_events = OpenEvents(directory, self.ledger)
        self.finished = False
        self.expects_more = False
        self._shared = shared
        self._in_hand = False
        self.last_seen = LastSeen(directory)
        #: Whether a program asked for another attempt: it must know that there was one.
        self._asked = False
        self._losses = JournalLosses(self)
        self._progress_file = JournalProgress(directory)
        if self.ledger.damaged:
            # What it has lost may have been only there. What was sent before is not sent as something new, because all
            # of it may have been sent.
            self._progress_file.begin_again()
            self.ledger.repair()
        # If the note of the intent is lost, everything may have been sent, and segments may have been removed.
        unknown = not self.progress.count and bool(self.runs)
        kept = segments(directory) if unknown else []
        self._reader = Reader(directory, Position(kept[0], 0) if kept else self.progress.position)
        self._doubt_until = END if unknown else self.progress.intent
        self._size = StretchSize()
        self._interpreter = Interpreter(self, shared, self._losses.refuse, self._losses.skip_unknown)
        self._forget()

    @property
    def progress(self) -> Progress:
        """The progress of its delivery."""
        return self._progress_file.latest

    def step(self, sink: Sink) -> bool:
        """Deliver the next stretch.

        Returns:
            whether there was anything to do.

        Raises:
            Unavailable: the store cannot be reached; nothing is written down as delivered.
        """
        # Checked before reading: once the lock of a dead writer is free, all of its events are there.
        alive = self.last_seen.is_alive()
        start = self._reader.position
        with explained("the journal cannot be read"):
            entries = self._reader.read_stretch(self._size.limit(), writer_alive=alive)
            self.expects_more = alive and self._reader.at_end()
        if not entries:
            if self._reader.newer_schema is not None:
                raise Unavailable(f"the journal was written by a newer trackdsl (schema {self._reader.newer_schema})")
            self._interpreter.git.write(sink)
            self._send_samples(sink)
            return self._retry_alone(sink) if alive else self._finish(sink)
        self._in_hand = True
        self._progress_file.write_intent(max(self._reader.position, self._doubt_until))
        before = self._progress_file.losses()
        try:
            # Inside the `try`: if anything fails from here on, these entries are read again.
            with self._collecting(sink, start):
                self._interpreter.git.write(sink)
                entries = self._apply(sink, entries, together=self._writes_together(sink, start))
                self._interpreter.flush(sink)
        except BaseException as error:
            self._progress_file.restore_losses(before)
            self._read_again(start, entries, error)
            if isinstance(error, RefusedTogether):
                return True
            raise
        finally:
            self._in_hand = self._interpreter.is_batching = False
        self._size.lengthen()
        self._write_done(len(entries))
        if self._reader.position >= self._doubt_until:
            # Else an older file, which is stored again, would replace a newer one that was deferred.
            self._retry(sink)
        return True

    def _read_again(self, start: Position, entries: list[Entry], error: BaseException) -> None:
        """Go back to the beginning of a stretch that failed, which is then delivered in smaller parts."""
        self._reader.position = start
        self._forget()
        if not isinstance(error, NotYet):
            # Runs of this stretch may have been created: the next attempt looks them up.
            self._doubt_until = max(self._doubt_until, entries[-1].end)
            # It stood at a later event if it waited for a run, and others may wait for what is read again.
            self._shared.remote_runs.waits_no_more(self)
        if isinstance(error, RefusedTogether):
            self._size.take_apart(entries)
        elif isinstance(error, Unavailable) and not isinstance(error, NotYet):
            self._size.shorten(len(entries))

    @contextlib.contextmanager
    def _collecting(self, sink: Sink, start: Position) -> Iterator[None]:
        """Write a stretch together, unless the store has refused it as a whole."""
        if not self._writes_together(sink, start):
            yield
            return
        # A run that has another id at the store must be written down at once: it cannot be created again.
        notes = self.runs.collecting() if sink.own_ids else contextlib.nullcontext()
        with notes, sink.collecting():
            yield

    def _writes_together(self, sink: Sink, start: Position) -> bool:
        return sink.collects and self._size.is_together(start)

    def record_refusal(self, what: str, error: Exception) -> None:
        """Record something that the store refused, if it is kept in another way or the program did not record it."""
        self._losses.record_refusal(what, error)

    def write_blocked(self, error: str) -> None:
        """Write why delivery fails, for programs and commands."""
        self._progress_file.write_blocked(error)

    def retry_now(self) -> None:
        """Try everything again at once that waits for its next attempt."""
        self._asked = True
        self._interpreter.retry_now()

    def block_reason(self, id_: bytes) -> str | None:
        """Why a run that this journal opens was blocked before it was created; None if it was not."""
        return self._interpreter.deferral.block_reason(id_)

    def is_dropped(self, id_: bytes) -> bool:
        """Whether a run of this journal was dropped."""
        return id_ in self._interpreter.deferral.dropped

    def is_due(self) -> bool:
        """Whether there is anything to do now."""
        if self.finished:
            return False
        if self.behind() or not self.last_seen.is_alive() or self.sampled():
            return True
        if not self.progress.deferred:
            return False
        # Another journal may have tried a table that both have rows of, with success or not.
        return self._asked or self._progress_is_outdated() or self._interpreter.retry_is_due()

    def _progress_is_outdated(self) -> bool:
        return self._interpreter.count_waiting() != self.progress.deferred

    def sampled(self) -> bool:
        """Whether there are system metrics to send."""
        return not self.finished and self._interpreter.sampling.due()

    def behind(self) -> bool:
        """Whether events are left to read, or being delivered."""
        return self._in_hand or not self._reader.at_end()

    def reached(self) -> int:
        """The time up to which everything was read, in milliseconds since 1970."""
        return (self._interpreter.last_time if self.behind() else time.time_ns()) // 1_000_000

    def close(self) -> None:
        """Close the files until they are used again: there may be more journals than files can be open."""
        self._reader.close()
        self._progress_file.close()

    def _send_samples(self, sink: Sink) -> None:
        if self.sampled():
            try:
                self._interpreter.flush(sink, all_read=True)
            except BaseException:
                self._forget()
                raise
            self._interpreter.samples_delivered()

    def _apply(self, sink: Sink, entries: list[Entry], *, together: bool) -> list[Entry]:
        """Apply events up to the first one that has to wait; returns the applied ones.

        Args:
            sink: the store.
            entries: the events.
            together: whether writes are collected.

        Raises:
            NotYet: the first one has to wait.
        """
        self._interpreter.is_batching = together
        number, early = -1, 0
        while (number := number + 1) < len(entries):
            if together:
                number = self._interpreter.collect_points(entries, number)
                if number == len(entries):
                    break
                if number >= early:
                    early = self._interpreter.early_requests.create_runs(sink, entries, number, self._doubt_until)
            entry = entries[number]
            if entry.event is None:
                self._interpreter.tag_damage(self._losses.skip_damage(entry.missing))
                continue
            if together and isinstance(entry.event, File):
                self._interpreter.early_requests.begin_files(sink, entries, number)
            try:
                self._interpreter.apply(sink, entry.event, entry.end, in_doubt=entry.end <= self._doubt_until)
            except NotYet:
                if not number:
                    raise
                self._reader.position = entries[number - 1].end
                return entries[:number]
        return entries

    def _forget(self) -> None:
        """Forget what was collected; it will be read again."""
        self._interpreter.forget(TimestampDedup(self.progress.points, self.progress.clock))

    def _retry(self, sink: Sink) -> bool:
        """Try deferred items again."""
        if not self.progress.deferred:
            return False
        trying = self._interpreter.blocked.due()
        try:
            delivered = self._interpreter.retry(sink)
        except BaseException:
            self._forget()
            raise
        if delivered or trying or self._asked or self._progress_is_outdated():
            self._set_deferred()
            self._losses.save()
            if self._asked and self.progress.deferred:
                self.progress.failures += 1
            self._asked = False
            self._progress_file.save()
        return delivered

    def _retry_alone(self, sink: Sink) -> bool:
        """Try deferred items again when there is nothing else to do, and count a failed attempt."""
        trying = self._interpreter.blocked.due()
        delivered = self._retry(sink)
        if trying and not delivered:
            self._progress_file.count_failure()
        return delivered

    def _finish(self, sink: Sink) -> bool:
        """End the runs that a dead writer left open, and remove the journal."""
        if self._interpreter.git.waits(self.origin.time):
            return False
        successors = self._shared.remote_runs.successors(self)
        deleted = is_deleted(self)
        unread = any(successor.behind() and not successor.progress.events for successor in successors)
        if unread or (deleted and not successors and may_still_run(self.origin)):
            return False
        self._interpreter.ending.leave_to(successors)
        self._interpreter.creation.remove_late_duplicates(sink, self.runs)
        last_time = self.last_seen.time(self._interpreter.last_time)
        why = DELETED if deleted or successors else DIED
        self._interpreter.ending.end_left_open(sink, last_time, self._reader.lost(), why)
        self._set_deferred()
        delivered = self._retry(sink)
        if self.progress.deferred and not delivered:
            blocked = self._interpreter.blocked
            raise NotYet(self._interpreter.reason(), pause=blocked.next_try() if blocked else None, blocks=True)
        if self.progress.deferred or self.runs.still_open():
            return True  # Runs that were delivered just now may have to be ended.
        self._losses.save(self._reader.lost())
        self._remove()
        return True

    def abandon(self) -> None:
        """Remove the journal before it is delivered: its program has ended, and its store is gone."""
        self.progress.missing.append("all that was not delivered when its store was removed")
        self._losses.save(self._reader.lost())
        self._remove()

    def _remove(self) -> None:
        self.finished = True
        self.close()
        remove_journal(self.directory)
        self._shared.points.remove_finished()

    def _set_deferred(self) -> None:
        self.progress.refused += self._shared.tables.take_left_out(self.directory)
        waiting = self._interpreter.waiting()
        self._progress_file.set_deferred(waiting, self._interpreter.reason() if waiting.blocked else "")
        self._interpreter.blocked.save()

    def _write_done(self, count: int) -> None:
        position = self._reader.position
        # What lies behind may have been sent already, when a longer stretch failed.
        intent = max(position, self._doubt_until)
        self._progress_file.set_delivered(position, intent, count, self._interpreter.timestamps)
        self._set_deferred()
        # First: a program that waits for this progress then asks what was lost.
        self._losses.save()
        self.ledger.settle()
        self._shared.what_changed.save()
        self._progress_file.save()
        self._interpreter.delivered(position)
        self.runs.shrink()
        self.ledger.tidy()
        delivered = [number for number in segments(self.directory) if number < position.segment]
        if delivered:
            self._progress_file.to_disk()
            self._open_events.keep(delivered, self.runs.still_open())
        for number in delivered:
            segment_path(self.directory, number).unlink(missing_ok=True)

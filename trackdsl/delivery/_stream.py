"""The delivery of one journal: it reads a stretch of events, writes it to the store, and notes its progress.

Before anything of a stretch is sent, its end is noted as the intent; afterwards, the stretch is noted as done. After a
crash, everything up to the intent may have been sent: runs are then looked up by their tag before they are created, and
everything else may be written twice.
"""

from __future__ import annotations

import time
from pathlib import Path

import msgspec

from trackdsl._core.redaction import mask_prose, mask_text
from trackdsl.delivery._interpreter import DELETED, DIED, Interpreter, Shared
from trackdsl.delivery._run_map import RunMap
from trackdsl.delivery._sink import NotYet, Sink, Unavailable
from trackdsl.delivery._successors import is_deleted, may_still_run
from trackdsl.delivery._timestamp_dedup import TimestampDedup
from trackdsl.errors import logger
from trackdsl.journal._lock import is_held
from trackdsl.journal._origin import Origin
from trackdsl.journal._reader import Entry, Position, Reader, segments
from trackdsl.journal._spool import remove_journal
from trackdsl.store_format import losses as _losses
from trackdsl.store_format.losses import Losses
from trackdsl.store_format.progress import ProgressFile

_STRETCH = 2000
#: At most this many missing parts are named; with more, the journal is lost anyway.
_MOST_MISSING = 100


class Stream:
    """The delivery of one journal.

    Args:
        directory: the journal's folder.
        origin: the program that wrote it, and its store.
        shared: what the journals of a store share.

    Attributes:
        prefix: the first bytes of its runs' ids; empty if an old version wrote it.
        finished: whether all of it is delivered and it was removed.
        expects_more: whether its program runs and the last stretch was not full, so that more events may come soon.
    """

    def __init__(self, directory: Path, origin: Origin, shared: Shared) -> None:
        self.directory = directory
        self.origin = origin
        self.prefix = bytes.fromhex(origin.prefix)
        self.runs = RunMap(directory)
        self.finished = False
        self.expects_more = False
        self._shared = shared
        self._in_hand = False
        self._noted_losses: tuple[object, ...] = ()
        self._file = ProgressFile(directory, write=True)
        self.progress = self._file.read()
        # If the note of the intent is lost, everything may have been sent, and segments may have been removed.
        unknown = not self.progress.count and bool(self.runs)
        found = segments(directory) if unknown else []
        self._reader = Reader(directory, Position(found[0], 0) if found else self.progress.position)
        self._doubt_until = Position(1 << 62, 0) if unknown else self.progress.intent
        self._interpreter = Interpreter(self, shared, self._refuse, self._skip_unknown)
        self._forget()

    def step(self, sink: Sink) -> bool:
        """Deliver the next stretch.

        Returns:
            whether there was anything to do.

        Raises:
            Unavailable: the store cannot be reached; nothing is noted as delivered.
        """
        # Checked before reading: once the lock of a dead writer is free, all of its events are there.
        alive = is_held(self.directory / "lock")
        start = self._reader.position
        entries = list(self._reader.read(_STRETCH, writer_alive=alive))
        self.expects_more = alive and len(entries) < _STRETCH
        if not entries:
            if self._reader.newer_schema is not None:
                raise Unavailable(f"the journal was written by a newer trackdsl (schema {self._reader.newer_schema})")
            self._interpreter.git.write(sink)
            self._send_samples(sink)
            return self._retry_alone(sink) if alive else self._finish(sink)
        self._in_hand = True
        self._note_intent()
        before = msgspec.structs.replace(self.progress, missing=[*self.progress.missing])
        try:
            # Inside the `try`: if anything fails from here on, these entries are read again.
            self._interpreter.git.write(sink)
            entries = self._apply(sink, entries)
            self._interpreter.flush(sink)
        except BaseException as error:
            self._reader.position = start
            self._forget()
            for name in ("damaged", "unknown", "missing", "refused"):
                setattr(self.progress, name, getattr(before, name))
            if not isinstance(error, NotYet):
                # Runs of this stretch may have been created: the next attempt looks them up.
                self._doubt_until = max(self._doubt_until, entries[-1].end)
            raise
        finally:
            self._in_hand = False
        self._note_done(len(entries))
        self._retry(sink)
        return True

    def note_blocked(self, error: str) -> None:
        """Note why delivery fails, for programs and commands."""
        if not self.progress.blocked_since:
            self.progress.blocked_since = time.time_ns()
        self.progress.failures += 1
        self.progress.error = error[:1000]
        self._file.write(self.progress)

    def retry_now(self) -> None:
        """Try everything again at once that waits for its next attempt."""
        self._interpreter.retry_now()

    def why_set_aside(self, id_: bytes) -> str | None:
        """Why a run that this journal opens was set aside before it was created; None if it was not."""
        return self._interpreter.why_set_aside(id_)

    def is_dropped(self, id_: bytes) -> bool:
        """Whether a run of this journal was dropped."""
        return self._interpreter.is_dropped(id_)

    def is_due(self) -> bool:
        """Whether there is anything to do now."""
        if self.finished:
            return False
        if self.behind() or not is_held(self.directory / "lock") or self.sampled():
            return True
        return bool(self.progress.deferred) and self._interpreter.retry_is_due()

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
        self._file.close()

    def _send_samples(self, sink: Sink) -> None:
        if self.sampled():
            try:
                self._interpreter.flush(sink)
            except BaseException:
                self._forget()
                raise
            self._interpreter.samples_delivered()

    def _apply(self, sink: Sink, entries: list[Entry]) -> list[Entry]:
        """Apply events up to the first one that has to wait; returns the applied ones.

        Raises:
            NotYet: the first one has to wait.
        """
        for number, entry in enumerate(entries):
            if entry.event is None:
                self._skip_damage(entry.missing)
                continue
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

    def _refuse(self, what: str, error: Exception) -> None:
        self.progress.refused += 1
        self.note_refusal(what, error)

    def note_refusal(self, what: str, error: Exception) -> None:
        """Note something that the store refused, if it is kept in another way or the program did not record it."""
        self.progress.error = mask_text(f"MLflow refused {what}: {error}")[:1000]
        logger.warning("trackdsl: %s", self.progress.error)

    def _skip_unknown(self, id_: bytes) -> None:
        if not self.progress.unknown:
            logger.warning("trackdsl: events of the unknown run %s in %s are left out", id_.hex(), self.directory)
        self.progress.unknown += 1

    def _skip_damage(self, missing: str) -> None:
        if missing:
            logger.warning("trackdsl: %s of %s is missing: its events are lost", missing, self.directory)
            if len(self.progress.missing) < _MOST_MISSING:
                self.progress.missing.append(missing)
            self._interpreter.note_damage({"trackdsl.missing_segments": ", ".join(self.progress.missing)})
            return
        self.progress.damaged += 1
        logger.warning("trackdsl: a damaged record in %s was skipped", self.directory)
        self._interpreter.note_damage({"trackdsl.damaged_records": str(self.progress.damaged)})

    def _note_losses(self, unrecorded: int = 0) -> None:
        """Note what is lost for `trackdsl sync`, also after this journal is gone."""
        known = self.progress
        losses = (tuple(known.missing), known.damaged, known.unknown, known.refused, unrecorded)
        if any(losses) and losses != self._noted_losses:
            self._noted_losses = losses
            program = f"{mask_prose(self.origin.source)} (pid {self.origin.pid})"
            prefixes = (self.origin.prefix, *self.origin.ancestors)
            _losses.note(self.directory.parent.parent, Losses(self.directory.name, program, *losses, prefixes))

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
        if delivered or trying:
            self._note_losses()
            self._note_deferred()
            self._file.write(self.progress)
        return delivered

    def _retry_alone(self, sink: Sink) -> bool:
        """The same if there is nothing else to do."""
        trying = self._interpreter.blocked.due()
        delivered = self._retry(sink)
        if trying and not delivered:
            # A waiting program must know that delivery tried again and failed.
            self.progress.failures += 1
            self._file.write(self.progress)
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
        self._interpreter.leave_to(successors)
        self._interpreter.creation.remove_late_duplicates(sink, self.runs)
        last_time = self._interpreter.last_time or self._newest_time()
        why = DELETED if deleted or successors else DIED
        self._interpreter.end_left_open(sink, last_time, self._reader.lost(), why)
        self._note_deferred()
        delivered = self._retry(sink)
        if self.progress.deferred and not delivered:
            blocked = self._interpreter.blocked
            raise NotYet(self._interpreter.reason(), pause=blocked.next_try() if blocked else None, blocks=True)
        if self.progress.deferred or self.runs.still_open():
            return True  # Runs that were delivered just now may have to be ended.
        self._note_losses(self._reader.lost())
        self._remove()
        return True

    def abandon(self) -> None:
        """Remove the journal before it is delivered: its program has ended, and its store is gone."""
        self.progress.missing.append("all that was not delivered when its store was removed")
        self._note_losses(self._reader.lost())
        self._remove()

    def _remove(self) -> None:
        self.finished = True
        self.close()
        remove_journal(self.directory)
        self._shared.points.remove_finished()

    def _newest_time(self) -> int:
        # An earlier process delivered the last event. The file was last changed when that event was written.
        found = segments(self.directory)
        path = self.directory / f"{found[-1]:06d}.seg" if found else self.directory
        try:
            return path.stat().st_mtime_ns
        except OSError:  # It was deleted.
            return time.time_ns()

    def _note_intent(self) -> None:
        position = self._reader.position
        self.progress.intent_segment, self.progress.intent_offset = position
        self._file.write(self.progress)

    def _note_deferred(self) -> None:
        waiting = self._interpreter.waiting()
        before = self.progress.set_aside
        self.progress.deferred, self.progress.held, self.progress.set_aside = waiting
        if waiting.blocked:
            self.progress.error = self._interpreter.reason()[:1000]
        elif before:
            self.progress.error = ""
        self._interpreter.blocked.save()

    def _note_done(self, count: int) -> None:
        position = self._reader.position
        self.progress.segment, self.progress.offset = position
        self.progress.intent_segment, self.progress.intent_offset = position
        self.progress.events += count
        self.progress.blocked_since = 0
        self._note_deferred()
        self.progress.points = self._interpreter.timestamps.remembered()
        self.progress.clock = self._interpreter.timestamps.now
        # First: a program that waits for this progress then asks what was lost.
        self._note_losses()
        self._file.write(self.progress)
        self._interpreter.delivered()
        delivered = [number for number in segments(self.directory) if number < position.segment]
        if delivered:
            self._file.to_disk()
        for number in delivered:
            (self.directory / f"{number:06d}.seg").unlink(missing_ok=True)

"""The delivery of one journal: reads a stretch of it, tells the store, notes how far it has come.

A stretch is noted as an intent before anything is sent and as done afterwards. Whatever lies between after a crash may
have been sent: runs are looked up by their tag before they are created, and everything else may be written twice.
"""

from __future__ import annotations

import time
from pathlib import Path

import msgspec

from trackdsl._core.redaction import mask_prose, mask_text
from trackdsl.delivery._heirs import is_deleted, may_go_on
from trackdsl.delivery._interpreter import DELETED, DIED, Interpreter, Shared
from trackdsl.delivery._run_map import RunMap
from trackdsl.delivery._sink import NotYet, Sink, Unavailable
from trackdsl.delivery._timestamp_dedup import Spacing
from trackdsl.errors import logger
from trackdsl.journal._lock import is_held
from trackdsl.journal._origin import Origin
from trackdsl.journal._reader import Entry, Position, Reader, segments
from trackdsl.journal._spool import remove_journal
from trackdsl.store_format import losses as _losses
from trackdsl.store_format.losses import Losses
from trackdsl.store_format.progress import ProgressFile

_STRETCH = 2000
#: So many are named; a journal of which more is gone is lost anyway.
_MOST_MISSING = 100


class Stream:
    """One journal on its way to MLflow.

    Args:
        directory: the journal's folder.
        origin: who wrote it, and where it goes.
        shared: what it has in common with others.

    Attributes:
        prefix: what the ids of its runs begin with; empty where an old version wrote it.
        finished: the journal is delivered to its end, and gone.
        gathering: its program lives, and the last stretch was not full: more is worth waiting for.
    """

    def __init__(self, directory: Path, origin: Origin, shared: Shared) -> None:
        self.directory = directory
        self.origin = origin
        self.prefix = bytes.fromhex(origin.prefix)
        self.runs = RunMap(directory)
        self.finished = False
        self.gathering = False
        self._shared = shared
        self._in_hand = False
        self._told: tuple[object, ...] = ()
        self._file = ProgressFile(directory, write=True)
        self.progress = self._file.read()
        # Where the note of the intent is lost, everything may have been sent, and segments have been removed.
        unknown = not self.progress.count and bool(self.runs)
        found = segments(directory) if unknown else []
        self._reader = Reader(directory, Position(found[0], 0) if found else self.progress.position)
        self._doubt_until = Position(1 << 62, 0) if unknown else self.progress.intent
        self._interpreter = Interpreter(self, shared, self._refuse, self._skip_orphan)
        self._forget()

    def step(self, sink: Sink) -> bool:
        """Deliver the next stretch.

        Returns:
            whether there was anything to do.

        Raises:
            Unavailable: the store is away; nothing is noted as delivered.
        """
        # Asked first: what a dead writer left is all there before its lock is seen free.
        alive = is_held(self.directory / "lock")
        start = self._reader.position
        entries = list(self._reader.read(_STRETCH, writer_alive=alive))
        self.gathering = alive and len(entries) < _STRETCH
        if not entries:
            if self._reader.newer_schema is not None:
                raise Unavailable(f"the journal was written by a newer trackdsl (schema {self._reader.newer_schema})")
            self._interpreter.git.tell(sink)
            self._send_samples(sink)
            return self._retry_alone(sink) if alive else self._finish(sink)
        self._in_hand = True
        self._note_intent()
        before = msgspec.structs.replace(self.progress, missing=[*self.progress.missing])
        try:
            # Inside: whatever fails from here on, these entries are read again.
            self._interpreter.git.tell(sink)
            entries = self._apply(sink, entries)
            self._interpreter.flush(sink)
        except BaseException as error:
            self._reader.position = start
            self._forget()
            for name in ("damaged", "orphans", "missing", "refused"):
                setattr(self.progress, name, getattr(before, name))
            if not isinstance(error, NotYet):
                # Whatever was sent of this stretch is looked up the next time.
                self._doubt_until = max(self._doubt_until, entries[-1].end)
            raise
        finally:
            self._in_hand = False
        self._note_done(len(entries))
        self._retry(sink)
        return True

    def note_blocked(self, error: str) -> None:
        """Note what stands in the way, for whoever asks."""
        if not self.progress.blocked_since:
            self.progress.blocked_since = time.time_ns()
        self.progress.failures += 1
        self.progress.error = error[:1000]
        self._file.write(self.progress)

    def hurry(self) -> None:
        """Somebody asks to go on at once: nothing waits for its time to be tried again."""
        self._interpreter.hurry()

    def why_set_aside(self, id_: bytes) -> str | None:
        """Why a run that this journal opens is not made yet, before something is mended; None where that is not so."""
        return self._interpreter.why_set_aside(id_)

    def is_dropped(self, id_: bytes) -> bool:
        """Whether a run of this journal was dropped."""
        return self._interpreter.is_dropped(id_)

    def is_due(self) -> bool:
        """Whether there is anything to do right now."""
        if self.finished:
            return False
        if self.behind() or not is_held(self.directory / "lock") or self.sampled():
            return True
        return bool(self.progress.deferred) and self._interpreter.retry_is_due()

    def sampled(self) -> bool:
        """Whether there are system metrics to send."""
        return not self.finished and self._interpreter.sampling.due()

    def behind(self) -> bool:
        """Whether something is left to read, or in hand."""
        return self._in_hand or not self._reader.at_end()

    def reached(self) -> int:
        """Up to when everything has been read, in milliseconds since 1970."""
        return (self._interpreter.last_time if self.behind() else time.time_ns()) // 1_000_000

    def close(self) -> None:
        """Let go of the files, until they are used again: there may be more journals than files can be open."""
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
        """Apply events up to one that has to wait; returns those that were applied.

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
        """What was gathered will be read again."""
        self._interpreter.forget(Spacing(self.progress.points, self.progress.clock))

    def _refuse(self, what: str, error: Exception) -> None:
        self.progress.refused += 1
        self.note_refusal(what, error)

    def note_refusal(self, what: str, error: Exception) -> None:
        """Note something that the store refused, and that is kept in another way or was not recorded by the program."""
        self.progress.error = mask_text(f"MLflow refused {what}: {error}")[:1000]
        logger.warning("trackdsl: %s", self.progress.error)

    def _skip_orphan(self, id_: bytes) -> None:
        if not self.progress.orphans:
            logger.warning(
                "trackdsl: nothing is known of run %s, of which %s tells; it is left out", id_.hex(), self.directory
            )
        self.progress.orphans += 1

    def _skip_damage(self, missing: str) -> None:
        if missing:
            logger.warning("trackdsl: %s of %s is missing: what it held is lost", missing, self.directory)
            if len(self.progress.missing) < _MOST_MISSING:
                self.progress.missing.append(missing)
            self._interpreter.note_damage({"trackdsl.missing_segments": ", ".join(self.progress.missing)})
            return
        self.progress.damaged += 1
        logger.warning("trackdsl: a damaged record in %s was skipped", self.directory)
        self._interpreter.note_damage({"trackdsl.damaged_records": str(self.progress.damaged)})

    def _note_losses(self, unrecorded: int = 0) -> None:
        """Let `trackdsl sync` know what is lost, also once this journal is gone."""
        known = self.progress
        told = (tuple(known.missing), known.damaged, known.orphans, known.refused, unrecorded)
        if any(told) and told != self._told:
            self._told = told
            program = f"{mask_prose(self.origin.source)} (pid {self.origin.pid})"
            prefixes = (self.origin.prefix, *self.origin.within)
            _losses.note(self.directory.parent.parent, Losses(self.directory.name, program, *told, prefixes))

    def _retry(self, sink: Sink) -> bool:
        """Try again what was kept for later."""
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
        """The same where nothing else is to be done."""
        trying = self._interpreter.blocked.due()
        delivered = self._retry(sink)
        if trying and not delivered:
            # Whoever waits for delivery is to know that it was tried again, in vain.
            self.progress.failures += 1
            self._file.write(self.progress)
        return delivered

    def _finish(self, sink: Sink) -> bool:
        """End what a dead writer left open, and remove the journal."""
        if self._interpreter.git.waits(self.origin.time):
            return False
        heirs = self._shared.foreign.heirs(self)
        deleted = is_deleted(self)
        unread = any(heir.behind() and not heir.progress.events for heir in heirs)
        if unread or (deleted and not heirs and may_go_on(self.origin)):
            return False
        self._interpreter.leave_to(heirs)
        self._interpreter.creation.settle(sink, self.runs)
        last_time = self._interpreter.last_time or self._newest_time()
        why = DELETED if deleted or heirs else DIED
        self._interpreter.end_left_open(sink, last_time, self._reader.lost(), why)
        self._note_deferred()
        delivered = self._retry(sink)
        if self.progress.deferred and not delivered:
            blocked = self._interpreter.blocked
            raise NotYet(self._interpreter.reason(), pause=blocked.next_try() if blocked else None, blocks=True)
        if self.progress.deferred or self.runs.still_open():
            return True  # What was delivered just now may have to be ended.
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
        # The last event was delivered by an earlier process: the file was last touched when it was written.
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
        self.progress.deferred, self.progress.aside, self.progress.set_aside = waiting
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
        self.progress.points = self._interpreter.spacing.remembered()
        self.progress.clock = self._interpreter.spacing.now
        # First: a program that waits for the delivery asks afterwards what was lost.
        self._note_losses()
        self._file.write(self.progress)
        self._interpreter.delivered()
        delivered = [number for number in segments(self.directory) if number < position.segment]
        if delivered:
            self._file.to_disk()
        for number in delivered:
            (self.directory / f"{number:06d}.seg").unlink(missing_ok=True)

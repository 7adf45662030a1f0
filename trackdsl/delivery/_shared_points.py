"""Milliseconds for the metric points of runs that several journals write to; `TimestampDedup` does it for one journal.

A journal that writes to a run of another process gets the millisecond of every point from here: the first free one,
beginning with the recorded one. Not free are milliseconds that were assigned here before, those that the store has, and
those that the run's own journal has used since. An assignment is written down before the point is sent, once for each
point: a point that is sent again gets the same millisecond. A run's log is

        {"run_id": ...}                                             the run
        {"journal": ...}                                            a journal that writes to the run
        [journal, held, segment, offset, key, step, value, time]    the millisecond of a point, and where it was read
        [key, step, value, time]                                    a millisecond that is not free

in the file `<spool>/points/<run>.jsonl`. It is removed with the last of these journals.

The run's own journal, which may have millions of points, writes nothing here. It avoids the milliseconds that were
assigned here, and otherwise derives its milliseconds from the journal alone. After a crash these may differ from those
that were sent before, if others were assigned here in between. No point is lost or doubled: equal points cannot be
distinguished, and together they occupy the same milliseconds, in whichever order they are assigned.

A spool does not know the points that another machine is delivering, and the run's own journal does not ask the store.
If two equal points get the same millisecond there and here, MLflow keeps one of them.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from trackdsl.delivery._sink import Refused, Sink, Unavailable
from trackdsl.errors import logger
from trackdsl.journal._files import open_regular, replace, sync
from trackdsl.journal._reader import Position
from trackdsl.journal._spool import JOURNALS, is_journal_name
from trackdsl.store_format import limits as _limits

_FOLDER = "points"
#: How much earlier than a point the look-up of the store's points begins, in milliseconds, for later points.
_MARGIN = 60_000
#: How many of the store's points of one metric are remembered, unless there are more in that time.
_MOST_SEEN = 200_000
#: If more milliseconds of one run are assigned, those that no later point can need are forgotten.
_MOST_TAKEN = 100_000
#: How long after its journals were read past them, in milliseconds.
_FORGET_AFTER = 600_000
_INT64 = 1 << 63

#: Step and value, as MLflow stores them.
Identity = tuple[int, Any]


class Source(NamedTuple):
    """Where a point was read: the position behind its event, and whether the event was held; see `HeldEvents`."""

    journal: str
    end: Position
    held: bool = False


@dataclass
class _Seen:
    """The points of one metric that were not assigned here, since a time."""

    since: int
    times: dict[Identity, set[int]] = field(default_factory=dict)
    count: int = 0
    most: int = _MOST_SEEN

    def add(self, identity: Identity, time: int) -> None:
        self.times.setdefault(identity, set()).add(time)
        self.count += 1


class SharedPoints:
    """Assigns milliseconds to points of remote runs.

    Args:
        folder: contains the folder of the logs.
        spool: the spool's folder; no other process delivers from it to the same server meanwhile.
        reached: returns the time up to which some journals were read, in milliseconds since 1970.
    """

    def __init__(self, folder: Path, spool: Path, reached: Callable[[set[str]], int]) -> None:
        self._reached = reached
        self._folder = folder / _FOLDER
        self._journals = spool / JOURNALS
        self._runs: dict[str, SharedRun] = {}
        self._unwritten: dict[str, SharedRun] = {}
        for part in self._folder.glob("*.part"):
            part.unlink(missing_ok=True)
        for path in sorted(self._folder.glob("*.jsonl")):
            try:
                run = SharedRun.read(path)
            except (OSError, TypeError) as error:
                logger.warning("trackdsl cannot use the assignments in %s: %s", path, error)
                continue
            if run is None:  # Not even its first line was written completely.
                path.unlink(missing_ok=True)
            else:
                self._runs[run.run_id] = run
        self.remove_finished()

    def of(self, run_id: str, journal: str) -> SharedRun | None:
        """The assigned milliseconds of a run, if any, for a journal that assigns freely."""
        run = self._runs.get(run_id)
        if run is not None and journal not in run.journals:
            run.join(journal)
            self._unwritten[run_id] = run
        return run

    def assign(
        self, sink: Sink, run_id: str, source: Source, owners: Iterable[str], point: tuple[str, int, float, int]
    ) -> int:
        """The millisecond for a point; call `write_assignments` before it is sent.

        Args:
            sink: the store.
            run_id: MLflow's id of the run.
            source: where the point was read.
            owners: the run's own journals, which assign freely.
            point: key, step, value, and the time of recording in milliseconds since 1970.
        """
        run = self._runs.get(run_id)
        if run is None:
            name = "".join(c if c.isalnum() else "_" for c in run_id)[:64]
            digest = hashlib.sha256(run_id.encode()).hexdigest()[:16]
            run = self._runs[run_id] = SharedRun(self._folder / f"{name}-{digest}.jsonl", run_id)
        run.join(source.journal, *owners)
        time = run.assign(sink, source, point)
        if run.unwritten:
            self._unwritten[run_id] = run
        return time

    def write_assignments(self) -> None:
        """Write the assignments to the disk.

        Raises:
            Unavailable: there is no space.
        """
        if not self._unwritten:
            return
        try:
            if not self._folder.exists():
                self._folder.mkdir(mode=0o700)
                sync(self._folder.parent)
            for run in self._unwritten.values():
                run.write()
            sync(self._folder)
        except OSError as error:
            raise Unavailable(f"cannot note points in {self._folder}: {error}") from None
        self._unwritten.clear()

    def given(self, run_id: str, source: Source, key: str) -> int | None:
        """The millisecond that was assigned to a point before, if it may be asked for again, or None."""
        run = self._runs.get(run_id)
        return None if run is None else run.given_before(source, _limits.fit_key(key))

    def delivered(self, journal: str, *, held: bool = False, run_id: str | None = None) -> None:
        """Note that what was assigned to points of a journal, on all runs or on one, will not be asked for again.

        Raises:
            Unavailable: there is no space for the note.
        """
        for run in self._runs.values():
            if run_id not in (None, run.run_id):
                continue
            run.given.pop((journal, held), None)
            if run.count > run.most:
                try:
                    run.forget(self._reached(run.journals) - _FORGET_AFTER)
                except OSError as error:
                    raise Unavailable(f"cannot note points in {self._folder}: {error}") from None

    def remove_finished(self) -> None:
        """Remove the logs of runs that no journal writes to any more."""
        for run_id, run in list(self._runs.items()):
            if not any((self._journals / name).is_dir() for name in run.journals):
                run.path.unlink(missing_ok=True)
                del self._runs[run_id]
                self._unwritten.pop(run_id, None)


class SharedRun:
    """The points of one run with assigned milliseconds.

    Attributes:
        journals: those that write to the run, as far as known.
        given: by journal, the assignments of points that may not be delivered yet; separate for held events.
        count: how many milliseconds are not free.
        most: the count from which some are forgotten.
        unwritten: lines of the log that are not written yet.
    """

    def __init__(self, path: Path, run_id: str) -> None:
        self.path = path
        self.run_id = run_id
        self.journals: set[str] = set()
        self.given: dict[tuple[str, bool], dict[tuple[Position, str], tuple[Identity, int]]] = {}
        self.count = 0
        self.most = _MOST_TAKEN
        self.unwritten: list[Any] = [{"run_id": run_id}]
        self._taken: dict[str, dict[Identity, set[int]]] = {}
        self._seen: dict[str, _Seen] = {}

    @classmethod
    def read(cls, path: Path) -> SharedRun | None:
        """Read a log; a torn line was not noted as written, and is cut off."""
        run = None
        with open(open_regular(path, os.O_RDWR), "rb+") as file:
            good = 0
            for line in file:
                entry = _line_of(line, run is None)
                if entry is None:
                    file.truncate(good)
                    break
                good += len(line)
                if isinstance(entry, list):
                    assert run is not None
                    run._note(entry)
                elif run is None:
                    run = cls(path, entry["run_id"])
                else:
                    run.journals.add(entry["journal"])
        if run is not None:
            run.unwritten.clear()
        return run

    def join(self, *journals: str) -> None:
        """Note journals that write to the run."""
        for name in journals:
            if name not in self.journals:
                self.journals.add(name)
                self.unwritten.append({"journal": name})

    def assign(self, sink: Sink, source: Source, point: tuple[str, int, float, int]) -> int:
        """See `SharedPoints.assign`."""
        key, identity, time = _identity(*point)
        before = self.given_before(source, key)
        if before is not None:
            return before
        taken = self._taken.get(key, {}).get(identity, ())
        seen = self._seen_since(sink, key, time).times.get(identity, ())
        while time in taken or time in seen:
            time += 1
        line = [source.journal, source.held, *source.end, key, *identity, time]
        self._note(line)
        self.unwritten.append(line)
        return time

    def given_before(self, source: Source, key: str) -> int | None:
        """See `SharedPoints.given`; `key` as MLflow has it."""
        before = self.given.get((source.journal, source.held), {}).get((source.end, key))
        return None if before is None else before[1]

    def taken(self, key: str, step: int, value: float) -> set[int]:
        """The milliseconds that an equal point must avoid."""
        fitted, identity, _ = _identity(key, step, value, 0)
        return self._taken.get(fitted, {}).get(identity, set())

    def note_point(self, key: str, step: int, value: float, time: int) -> None:
        """Note a point with a freely assigned millisecond."""
        fitted, identity, time = _identity(key, step, value, time)
        seen = self._seen.get(fitted)
        if seen is not None:
            seen.add(identity, time)

    def write(self) -> None:
        """Write the lines that are not written yet, all or none."""
        content = _lines(self.unwritten)
        with open(open_regular(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT), "ab", buffering=0) as file:
            size = file.tell()
            if file.write(content) != len(content):
                file.truncate(size)
                raise OSError(errno.ENOSPC, "no space left", str(self.path))
            os.fsync(file.fileno())
        self.unwritten.clear()

    def forget(self, before: int) -> None:
        """Forget milliseconds that no later point can need."""
        sourced = [
            [*journal, *end, key, *identity, time]
            for journal, points in self.given.items()
            for (end, key), (identity, time) in points.items()
        ]
        kept = [
            [key, *identity, time]
            for key, identities in self._taken.items()
            for identity, times in identities.items()
            for time in times
            if time >= before
        ]
        lines = [{"run_id": self.run_id}, *({"journal": name} for name in sorted(self.journals)), *sourced, *kept]
        replace(self.path, _lines(lines), to_disk=True)
        self.count = 0
        self._taken.clear()
        self._seen.clear()
        self.unwritten.clear()
        for line in [*sourced, *kept]:
            self._note(line)
        self.most = max(_MOST_TAKEN, 2 * self.count)

    def _seen_since(self, sink: Sink, key: str, time: int) -> _Seen:
        seen = self._seen.get(key)
        if seen is None or time < seen.since or seen.count > seen.most:
            seen = _Seen(time - _MARGIN)
            try:
                history = sink.metric_history(self.run_id, key)
            except Refused:  # The run is deleted; MLflow refuses what is written to it, which is reported.
                history = []
            for step, value, at in history:
                if at >= seen.since:
                    seen.add(_identity(key, step, value, at)[1], at)
            seen.most = max(_MOST_SEEN, 2 * seen.count)
            self._seen[key] = seen
        return seen

    def _note(self, line: list[Any]) -> None:
        *source, key, step, value, time = line
        self._taken.setdefault(key, {}).setdefault((step, value), set()).add(time)
        self.count += 1
        if source:
            journal, held, segment, offset = source
            given = self.given.setdefault((journal, held), {})
            given[Position(segment, offset), key] = (step, value), time


def _line_of(line: bytes, first: bool) -> dict[str, str] | list[Any] | None:
    """A line of a log; None if it is torn, or if delivery cannot have written it."""
    try:
        entry = json.loads(line) if line.endswith(b"\n") else None
    except (ValueError, RecursionError):
        return None
    if first:
        return entry if isinstance(entry, dict) and isinstance(entry.get("run_id"), str) else None
    if isinstance(entry, dict):
        journal = entry.get("journal")
        return entry if isinstance(journal, str) and is_journal_name(journal) else None
    return entry if isinstance(entry, list) and len(entry) in (4, 8) else None


def _lines(entry: list[Any]) -> bytes:
    return b"".join(json.dumps(line).encode() + b"\n" for line in entry)


def _identity(key: str, step: int, value: float, time: int) -> tuple[str, Identity, int]:
    """A point as MLflow stores it: nan equals nan, and infinity is the largest number."""
    largest = sys.float_info.max
    same: Any = "nan" if value != value else max(-largest, min(largest, float(value)))
    return _limits.fit_key(key), (min(max(step, -_INT64), _INT64 - 1), same), time

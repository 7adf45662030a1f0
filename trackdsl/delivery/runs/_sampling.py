"""Samples system metrics while runs are open, and keeps the samples until they are at the store.

Programs write in their journals' folders which runs to sample. Sampling begins before MLflow is imported, and continues
while a store does not answer. A line `o <id> <seconds>` starts it, `c <id>` ends it.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from trackdsl.errors import format_error, logger, reraise_from_signal
from trackdsl.journal._files import open_regular
from trackdsl.journal._lock import is_held
from trackdsl.journal._origin import Origin

if TYPE_CHECKING:
    from trackdsl._core.readings import Readings

_NAME = "sampled"
#: How often to look for new notes, in seconds.
_INTERVAL = 0.25
#: The first sample comes this soon, in seconds: many runs do not last for a whole interval.
_SOON = 1.0
#: The most points of one run that are kept while they cannot be sent.
_MOST = 100_000


class Sample(NamedTuple):
    """One metric point: its name and value, its time in milliseconds since 1970, the number of the sample."""

    key: str
    value: float
    time: int
    step: int


@dataclass
class _Sampled:
    """A run that is sampled.

    Attributes:
        readings: reads the metrics of its machine and program.
        interval: between samples, in seconds.
        due: the time of the next sample, on the monotonic clock.
        open: whether more samples follow.
        points: those that are not at the store yet.
        count: the number of samples so far.
    """

    readings: Readings
    interval: float
    due: float
    open: bool = True
    points: list[Sample] = field(default_factory=list)
    count: int = 0

    def sample(self) -> None:
        """Take a sample."""
        self.due = time.monotonic() + self.interval
        if len(self.points) >= _MOST:
            return
        now = time.time_ns() // 1_000_000
        self.points += [Sample(key, value, now, self.count) for key, value in self.readings.read().items()]
        self.count += 1


class Sampling:
    """The samples of the runs of one journal.

    Args:
        directory: the journal's folder.
        origin: the program that writes it.
        lock: protects all changes.
    """

    def __init__(self, directory: Path, origin: Origin, lock: threading.Lock) -> None:
        self._directory = directory
        self._origin = origin
        self._lock = lock
        self._read = 0
        self._runs: dict[bytes, _Sampled] = {}
        #: How many points of each run are being sent.
        self._sent: dict[bytes, int] = {}
        #: Whether there was a file of notes at the first check in this stretch; by then it names all of its runs.
        self._has_file: bool | None = None

    def sample_due(self) -> bool:
        """Read new notes, and take the samples that are due; returns whether more may come."""
        alive = is_held(self._directory / "lock")
        self._read_notes(alive)
        now = time.monotonic()
        for sampled in self._runs.values():
            if sampled.open and (sampled.due <= now or not alive):
                sampled.sample()
                sampled.open = alive
        return alive

    def due(self) -> bool:
        """Whether there is anything to send."""
        return any(len(sampled.points) > self._sent.get(run, 0) for run, sampled in self._runs.items())

    def unsent(self, wanted: Callable[[bytes], bool]) -> Iterator[tuple[bytes, Sample]]:
        """The points of the wanted runs that were not sent yet; they count as being sent."""
        if not self._runs:
            if self._has_file is None:
                self._has_file = os.path.exists(self._directory / _NAME)
            if not self._has_file:
                return
        with self._lock:
            self._sample_ended()
            for run in filter(wanted, list(self._runs)):
                points = self._runs[run].points
                yield from ((run, point) for point in points[self._sent.get(run, 0) :])
                self._sent[run] = len(points)

    def forget(self) -> None:
        """Forget which points were sent: those that were being sent may not have arrived."""
        self._has_file = None
        self._sent.clear()

    def delivered(self) -> None:
        """Forget which points were sent: those that were being sent have arrived."""
        self._has_file = None
        if not self._sent:
            return
        with self._lock:
            for run, count in self._sent.items():
                del self._runs[run].points[:count]
                if not self._runs[run].open and not self._runs[run].points:
                    del self._runs[run]
            self._sent.clear()

    def _sample_ended(self) -> None:
        """Take the last sample of runs that have ended since the last look: their ends are about to be delivered."""
        try:
            self._read_notes(alive=True)
        except Exception as error:
            reraise_from_signal(error)
            logger.warning("trackdsl: no system metrics: %s", format_error(error))

    def _read_notes(self, alive: bool) -> None:
        lines = [line.split(" ") for line in self._new_lines()]
        # A run that ended before it was seen is not sampled: nothing is known of it.
        ended = {fields[1] for fields in lines if fields[0] == "c" and len(fields) > 1}
        for fields in lines:
            if fields[0] == "c" or (alive and fields[1:2] != [] and fields[1] not in ended):
                self._apply_note(fields)

    def _new_lines(self) -> list[str]:
        try:
            with open(open_regular(self._directory / _NAME), "rb") as file:
                file.seek(self._read)
                text = file.read()
        except OSError:
            return []
        whole = text[: text.rfind(b"\n") + 1]
        self._read += len(whole)
        return whole.decode("ascii", "replace").splitlines()

    def _apply_note(self, fields: list[str]) -> None:
        from trackdsl._core.readings import Readings  # Late, because it imports psutil.

        try:
            run = bytes.fromhex(fields[1])
            if fields[0] == "o" and run not in self._runs and self._origin.host == os.uname().nodename:
                interval = float(fields[2])
                due = time.monotonic() + min(_SOON, interval)
                self._runs[run] = _Sampled(Readings(self._origin.pid), interval, due)
            elif fields[0] == "c" and run in self._runs:
                self._runs[run].sample()
                self._runs[run].open = False
        except (ValueError, IndexError):  # The line was torn on a full disk.
            return


class Sampler:
    """Takes the samples of all journals of a spool, in a thread."""

    def __init__(self) -> None:
        self._samplings: list[Sampling] = []
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None

    def sampling(self, directory: Path, origin: Origin) -> Sampling:
        """The samples of a journal; sampling begins now."""
        added = Sampling(directory, origin, self._lock)
        with self._lock:
            self._samplings.append(added)
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="trackdsl-sampler", daemon=True)
                self._thread.start()
        return added

    def stop(self) -> None:
        """End the sampling."""
        self._stopped.set()

    def _work(self) -> None:
        while not self._stopped.is_set():
            with self._lock:
                self._samplings[:] = [sampling for sampling in self._samplings if self._sample_due(sampling)]
            self._stopped.wait(_INTERVAL)

    @staticmethod
    def _sample_due(sampling: Sampling) -> bool:
        try:
            return sampling.sample_due()
        except FileNotFoundError:  # The journal is finished and removed.
            return False
        except Exception as error:  # Delivery must continue, even if the machine cannot be sampled.
            reraise_from_signal(error)
            logger.warning("trackdsl: stopped sampling system metrics: %s", format_error(error))
            return False

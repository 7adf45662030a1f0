"""What the machine and the programs on it use, read so rarely that reading takes little itself."""

from __future__ import annotations

import time
from collections.abc import Iterable

from trackdsl._core.readings import MachineReadings, ProgramReadings
from trackdsl.cli.watching._journal import WatchedJournal

#: Between two readings of the same, in seconds.
_PAUSE = 2.0
#: Between two readings, as a multiple of the time that one takes: looking through all processes takes a while.
_SHARE = 20


class Usage:
    """Readings of the machine and of programs.

    Attributes:
        machine: the last reading of the machine, by name.
        programs: the last readings of programs, by the name of the journal.
    """

    def __init__(self) -> None:
        self.machine: dict[str, float] = {}
        self.programs: dict[str, dict[str, float]] = {}
        self._machine = MachineReadings()
        self._machine_at = 0.0
        self._readings: dict[str, ProgramReadings] = {}
        #: When each program was read, the longest ago first.
        self._read_at: dict[str, float] = {}
        self._next = 0.0

    def read(self, shown: Iterable[WatchedJournal]) -> None:
        """Read the machine, and the program whose reading is the oldest, if it is time.

        Args:
            shown: the journals of the programs that are shown.
        """
        now = time.monotonic()
        if now >= self._machine_at + _PAUSE:
            self._machine_at = now
            self.machine = self._machine.read()
        names = {journal.name: journal for journal in shown if journal.is_local and journal.alive}
        for name in self._read_at.keys() - names.keys():
            for known in (self._read_at, self._readings, self.programs):
                known.pop(name, None)
        if now < self._next:
            return
        oldest = min(names, key=lambda name: self._read_at.get(name, 0.0), default=None)
        if oldest is None or now < self._read_at.get(oldest, 0.0) + _PAUSE:
            return
        self._read_program(names[oldest])
        self._next = now + _SHARE * (time.monotonic() - now)

    def _read_program(self, journal: WatchedJournal) -> None:
        self._read_at[journal.name] = time.monotonic()
        readings = self._readings.get(journal.name)
        if readings is None:
            self._readings[journal.name] = ProgramReadings(journal.origin.pid)
        else:
            self.programs[journal.name] = readings.read()

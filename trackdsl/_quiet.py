"""When decorated calls pass unrecorded: trackdsl is switched off, or it is itself what makes them.

To record a value trackdsl may have to ask it: for its items, its text, its pickle. Where the methods that answer are
decorated, they would show up as runs that the program never began, and look at their own arguments in turn, for ever.
"""

from __future__ import annotations

from threading import get_ident


class Quiet:
    """Process-wide switches, kept as plain attributes because every call asks.

    Attributes:
        on: what `here` answers may be true; it never is where this is false.
    """

    __slots__ = ("_off", "_reading", "on")

    def __init__(self) -> None:
        self.on = False
        self._off = False
        # Threads by their number, once for each level.
        self._reading: list[int] = []

    @property
    def off(self) -> bool:
        """Nothing at all is to be recorded."""
        return self._off

    @off.setter
    def off(self, off: bool) -> None:
        self._off = off
        self.on = off or bool(self._reading)

    def here(self) -> bool:
        """Whether a decorated call in this thread is to pass unrecorded."""
        return self._off or get_ident() in self._reading

    def begin(self) -> None:
        """This thread begins to read values."""
        self._reading.append(get_ident())
        self.on = True

    def end(self) -> None:
        """It has ended what it began last."""
        self._reading.remove(get_ident())
        self.on = self._off or bool(self._reading)

    def start_anew(self) -> None:
        """In a forked child, where the other threads are gone."""
        self._reading[:] = [number for number in self._reading if number == get_ident()]

    def __reduce__(self) -> str:
        # Wrappers that travel by cloudpickle refer to that of the process they arrive in.
        return "quiet"


quiet = Quiet()

"""When decorated calls pass unrecorded: trackdsl is switched off, or it is itself what makes them.

To record a value trackdsl may have to ask it: for its items, its text, its pickle. Where the methods that answer are
decorated, they would show up as runs that the program never began, and look at their own arguments in turn, for ever.
"""

from __future__ import annotations

from threading import get_ident

from trackdsl._core import runtime
from trackdsl._core.runtime import Phase


class Quiet:
    """Process-wide switches, kept as plain attributes because every call asks.

    Attributes:
        on: what `here` answers may be true; it never is where this is false.
    """

    __slots__ = ("_off", "_reading", "on")

    def __init__(self) -> None:
        self.on = False
        self._off = False
        #: Threads by their number → how many levels deep they read.
        self._reading: dict[int, int] = {}

    @property
    def off(self) -> bool:
        """Nothing at all is to be recorded."""
        return self._off

    def switch_off(self, off: bool = True) -> None:
        """Record nothing at all from now on, or record again."""
        self._off = off
        self.on = off or bool(self._reading)

    def here(self) -> bool:
        """Whether a decorated call in this thread is to pass unrecorded."""
        return self._off or get_ident() in self._reading

    def begin(self) -> int:
        """This thread begins to read values.

        Returns:
            what `end` is to be told.
        """
        thread = get_ident()
        self._reading[thread] = self._reading.get(thread, 0) + 1
        self.on = True
        return thread

    def end(self, thread: int) -> None:
        """It has ended what it began last."""
        # Nothing is called here: where the stack is full that would fail, and the thread would be quiet for ever.
        if thread not in self._reading:
            return
        levels = self._reading[thread] - 1
        if levels:
            self._reading[thread] = levels
            return
        del self._reading[thread]
        if not self._reading:
            self.on = self._off

    def recover(self) -> None:
        """This thread reads no more: for whoever records, and so was not quiet, and ends by an exception.

        An interrupt may have come just before `end`.
        """
        self._reading.pop(get_ident(), None)
        if not self._reading:
            self.on = self._off

    def keep_this_thread(self) -> None:
        """Forget the other threads: a forked child has none of them, and may give their numbers to new ones."""
        thread = get_ident()
        levels = self._reading.get(thread, 0)
        self._reading = {thread: levels} if levels else {}
        self.on = self._off or bool(levels)

    def forget_readers(self) -> None:
        """Forget all threads."""
        self._reading = {}
        self.on = self._off

    def __reduce__(self) -> str:
        # Wrappers that travel by cloudpickle refer to that of the process they arrive in.
        return "quiet"


quiet = Quiet()
runtime.register(
    "threads that read values", Phase.MEMORY, after_fork=quiet.keep_this_thread, reset=quiet.forget_readers
)

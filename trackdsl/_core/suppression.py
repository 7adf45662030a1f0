"""Decorated calls are not recorded while trackdsl is disabled, and while trackdsl itself makes them.

To record a value trackdsl may call its methods: for its items, its text, its pickle. If these methods are decorated,
they must not record: they would appear as runs that the program never began, and recording their own arguments would
call them again without end.
"""

from __future__ import annotations

from threading import get_ident

from trackdsl._core import runtime
from trackdsl._core.runtime import Phase


class Suppression:
    """The switches of the process, which every decorated call reads. Pickled functions refer to `on`, `off` and `here`.

    Attributes:
        on: whether `here` may return True; False in the usual case, which makes the check cheap.
        off: whether trackdsl is disabled. Only `switch_off` changes it.
    """

    __slots__ = ("_reading", "off", "on")

    def __init__(self) -> None:
        self.on = False
        self.off = False
        #: Thread id → how many levels of `begin` are open in it.
        self._reading: dict[int, int] = {}

    def switch_off(self, off: bool = True) -> None:
        """Record nothing at all from now on, or record again."""
        self.off = off
        self.on = off or bool(self._reading)

    def here(self) -> bool:
        """Whether a decorated call in this thread is not recorded."""
        return self.off or get_ident() in self._reading

    def begin(self) -> int:
        """Suppress recording in this thread, because trackdsl begins to read a value.

        Returns:
            the argument for `end`.
        """
        thread = get_ident()
        self._reading[thread] = self._reading.get(thread, 0) + 1
        self.on = True
        return thread

    def end(self, thread: int) -> None:
        """End what the last `begin` began."""
        # No function is called here: on a full stack the call would fail, and the thread would never record again.
        if thread not in self._reading:
            return
        levels = self._reading[thread] - 1
        if levels:
            self._reading[thread] = levels
            return
        del self._reading[thread]
        if not self._reading:
            self.on = self.off

    def recover(self) -> None:
        """End the suppression of this thread, whatever its level.

        Code that records, and so was not suppressed, calls it after an exception: a Ctrl-C may have come just before
        `end`.
        """
        self._reading.pop(get_ident(), None)
        if not self._reading:
            self.on = self.off

    def keep_this_thread(self) -> None:
        """Forget the other threads: a forked child has none of them, and may give their numbers to new ones."""
        thread = get_ident()
        levels = self._reading.get(thread, 0)
        self._reading = {thread: levels} if levels else {}
        self.on = self.off or bool(levels)

    def forget_readers(self) -> None:
        """Forget all threads that suppress recording."""
        self._reading = {}
        self.on = self.off

    def __reduce__(self) -> str:
        # A wrapper that cloudpickle loads uses the object of its new process.
        return "suppression"


suppression = Suppression()
#: Its name in pickles of earlier versions.
quiet = suppression
runtime.register(
    "threads that read values", Phase.MEMORY, after_fork=suppression.keep_this_thread, reset=suppression.forget_readers
)

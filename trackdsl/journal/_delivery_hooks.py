"""What recording needs of delivery: how it is started, and how the end of the program waits for it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from trackdsl._core import runtime
from trackdsl._core.runtime import Phase

TYPE_CHECKING = False  # Not imported: `typing` takes time at the start of each program.
if TYPE_CHECKING:
    from trackdsl.journal._writer import Writer


@dataclass
class Delivery:
    """The functions that start delivery and wait for it. Until `deliver_with` is called, nothing is delivered.

    Attributes:
        start: starts the delivery process of a spool, unless one runs.
        wait: waits at the end of the program, until what these writers have appended is delivered.
        waits_at_exit: whether this process waits at its end. A worker on the machine of the program that it serves
            does not: that program waits, and ends its workers after a short time.
        afterwards: called at the end of the program, after the wait.
    """

    start: Callable[[Path], None] | None = None
    wait: Callable[[list[Writer]], None] | None = None
    waits_at_exit: bool = True
    afterwards: list[Callable[[], None]] = field(default_factory=list)


_delivery = Delivery()


def deliver_with(start: Callable[[Path], None], wait: Callable[[list[Writer]], None]) -> None:
    """Register what starts delivery and what waits for it; see `Delivery`."""
    _delivery.start, _delivery.wait = start, wait


def waits_at_exit() -> bool:
    """Whether this process waits for delivery at its end."""
    return _delivery.waits_at_exit


def leave_delivery_to_parent() -> None:
    """Don't wait for delivery at the end of this process: the program that it works for does."""
    _delivery.waits_at_exit = False


def call_after_delivery(call: Callable[[], None]) -> None:
    """Have a function called at the end of the program, after the wait for delivery."""
    _delivery.afterwards.append(call)


def start(spool: Path) -> None:
    """Start the delivery process of a spool, unless one runs."""
    if _delivery.start is not None:
        _delivery.start(spool)


def wait_for(writers: list[Writer]) -> None:
    """Wait until what these writers have appended is delivered."""
    if _delivery.wait is not None:
        _delivery.wait(writers)


def call_afterwards() -> None:
    """Call the functions that `call_after_delivery` has registered."""
    for call in _delivery.afterwards:
        call()


def _after_fork() -> None:
    _delivery.afterwards.clear()


def _reset() -> None:
    _delivery.waits_at_exit = True
    _delivery.afterwards.clear()


runtime.register("what delivery registered", Phase.MEMORY, after_fork=_after_fork, reset=_reset)

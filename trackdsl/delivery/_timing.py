"""How long delivery waits: every duration that a test shortens is a field of `Timing`."""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Timing:
    """Durations in seconds. The process that delivers and the program that waits for it have one object each.

    Attributes:
        first_retry: the pause before a request that failed is sent again; the pause doubles with each failure.
        longest_retry: the longest of these pauses.
        longest_search: the longest pause before a run of another process is looked up again.
        file_retry: the pause before a file or table that the store did not accept is sent again.
        late_request: how long a server may still carry out a request that was given up.
        git_answer: how long the end of a journal waits for git's answer.
        other_process: how long a journal waits for a run of another process that makes no progress. This wait happens
            once for each process: after it, other runs of that process are waited for only as long as `missing_run`.
        missing_run: how old an event must be before the run that it refers to counts as missing. A process that creates
            a run later than this after it began looks for children without a parent; see `runs/_parents.py`.
        idle_store: a store that was not used for so long is closed.
        no_sign: how long a program waits without a sign that a process delivers, or is at work on what it waits for.
        no_progress: how long one call of the delivery process may take, and how long a program waits for a single run
            that is not the next thing to be delivered: after that time the process must be hanging.
        failing: how long a program waits for a single run while delivery fails: a server may be starting.
        check: how often a program that waits looks at the delivery process.
        longest_wait: how long a program waits in all if only the time without progress counts.
        read: how long a read of plain MLflow waits for delivery.
    """

    first_retry: float = 0.25
    longest_retry: float = 30.0
    longest_search: float = 15.0
    file_retry: float = 5.0
    late_request: float = 20.0
    git_answer: float = 10.0
    other_process: float = 120.0
    missing_run: float = 10.0
    idle_store: float = 5.0
    no_sign: float = 20.0
    no_progress: float = 300.0
    failing: float = 3.0
    check: float = 0.1
    longest_wait: float = 30.0
    read: float = 10.0


class _Process:
    """The durations that this process uses for its waits."""

    timing = Timing()


def timing() -> Timing:
    """The durations of this process."""
    return _Process.timing


def set_timing(new: Timing) -> None:
    """Replace the durations of this process, which only tests do."""
    _Process.timing = new


def change_timing(**durations: float) -> None:
    """Replace some durations of this process.

    Raises:
        TypeError: there is no such duration.
    """
    set_timing(replace(timing(), **durations))

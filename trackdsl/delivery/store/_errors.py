"""The errors of stores, and what delivery does after each: waits, tries again, blocks a run, or leaves out."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator


class Unavailable(Exception):
    """The store cannot be reached or is not ready; the same call may succeed later.

    Attributes:
        late: whether the store may still carry out the request, at any time from now.
        answered: whether the store was reached and failed only with this request.
        busy: whether the server answered that it gets too many requests.
    """

    def __init__(self, message: str, *, late: bool = False, answered: bool = False, busy: bool = False) -> None:
        super().__init__(message)
        self.late = late
        self.answered = answered
        self.busy = busy


class RefusedTogether(Unavailable):
    """The collected changes were refused as a whole. Written singly, only what the store refuses is left out."""


class Denied(Unavailable):
    """The store, or its file system, does not permit this."""


class RunBlocked(Unavailable):
    """The store works, but one run cannot be created or written now; the cause may be fixed later.

    Attributes:
        experiment: whether the cause is the run's experiment, and so applies to all runs in it.
        waits: whether it waits for a blocked run of another journal.
    """

    def __init__(self, message: str, *, experiment: bool = False, waits: bool = False) -> None:
        super().__init__(message)
        self.experiment = experiment
        self.waits = waits


class NotYet(Unavailable):
    """Something from another journal or machine is not there yet; it may come in a moment.

    Attributes:
        pause: how long to wait before the next attempt, in seconds; None to choose.
        blocks: whether it has been awaited so long that waiting programs should know.
    """

    def __init__(self, message: str, *, pause: float | None = None, blocks: bool = False) -> None:
        super().__init__(message)
        self.pause = pause
        self.blocks = blocks


class Refused(Exception):
    """The store was reached and refused this; another attempt has the same result."""


class RefusedParts(Refused):
    """A part of a folder was refused; the rest of it is stored.

    Attributes:
        reasons: what the store answered, by the paths of the files in the folder.
    """

    def __init__(self, reasons: dict[str, str]) -> None:
        super().__init__("; ".join(reasons.values()))
        self.reasons = reasons


@contextlib.contextmanager
def explained(what: str) -> Iterator[None]:
    """Say what an error of this machine prevents, such as a full disk.

    Args:
        what: what cannot be done.

    Raises:
        Unavailable: there was such an error.
    """
    try:
        yield
    except OSError as error:
        raise Unavailable(f"{what}: {error}") from None


def deleted_experiment(experiment: str, experiment_id: str) -> str:
    """The reason for a run whose experiment is deleted.

    Args:
        experiment: its name or id, as the program gave it.
        experiment_id: MLflow's id of it.
    """
    return (
        f"the MLflow experiment {experiment} is deleted: restore it with `mlflow experiments restore --experiment-id "
        f"{experiment_id}`, and its runs will be delivered"
    )

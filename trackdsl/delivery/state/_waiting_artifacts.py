"""The artifacts of a journal that their store has not taken yet, in the journal's ledger."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from trackdsl._core import events
from trackdsl.delivery.state._ledger import Ledger
from trackdsl.delivery.store._errors import Unavailable
from trackdsl.store_format.ledger import DEFERRED, DeferredKey, DeferredValue


class WaitingArtifact(msgspec.Struct, frozen=True):
    """An artifact that waits.

    Attributes:
        run_id: MLflow's id of its run.
        experiment_id: MLflow's id of the run's experiment.
        path: among all artifacts of its run; ends with a slash.
        event: the event that describes it, encoded.
        only: the files in its folder that the store has not taken; None for all of the artifact.
    """

    run_id: str
    experiment_id: str
    path: str
    event: bytes
    only: list[str] | None = None


class DeferredArtifacts:
    """The deferred artifacts of one journal, in its ledger.

    Args:
        ledger: the ledger.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._written = ledger.load(DEFERRED, self._values)

    def read(self) -> list[WaitingArtifact]:
        """The deferred artifacts; entries that name no artifact are skipped."""
        artifacts = [
            WaitingArtifact(key[0], value[0], key[1], key[2], value[1]) for key, value in self._written.items()
        ]
        return sorted(filter(_names_artifact, artifacts), key=recorded_order)

    def write(self, waiting: Iterable[WaitingArtifact]) -> None:
        """Write which artifacts wait now.

        Raises:
            Unavailable: there is no space.
        """
        entries = {(each.run_id, each.path, each.event): (each.experiment_id, each.only) for each in waiting}
        gone = [DEFERRED.change(key, None) for key in self._written if key not in entries]
        added = [DEFERRED.change(key, value) for key, value in entries.items() if self._written.get(key) != value]
        try:
            self._ledger.write([*gone, *added], before_progress=True)
        except OSError as error:
            # Without the entries, a crash would lose them: delivery stops here until there is space.
            raise Unavailable(f"cannot write the list of deferred artifacts: {error}") from None
        self._written = entries

    def _values(self) -> Iterable[tuple[DeferredKey, DeferredValue]]:
        return self._written.items()


def _names_artifact(waiting: WaitingArtifact) -> bool:
    try:
        return isinstance(events.decode(waiting.event), (events.File, events.Model))
    except (msgspec.MsgspecError, RecursionError):
        return False


def recorded_order(waiting: WaitingArtifact) -> tuple[int, str]:
    """A key that sorts the artifacts of a journal as they were recorded: the numbers of their snapshots."""
    number = getattr(events.decode(waiting.event), "snapshot", "").partition("/")[0]
    return len(number), number

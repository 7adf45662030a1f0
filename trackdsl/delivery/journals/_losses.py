"""What of one journal is lost: damaged or missing records, events of unknown runs, and what the store refused."""

from __future__ import annotations

from trackdsl._core.redaction import mask_prose, mask_text
from trackdsl.delivery.state._open_journal import OpenJournal
from trackdsl.errors import logger
from trackdsl.store_format import losses as _losses
from trackdsl.store_format.losses import Losses

#: At most this many missing parts are named; with more, the journal is lost anyway.
_MOST_MISSING = 100


class JournalLosses:
    """Counts what is lost in the journal's progress, logs it, and writes it down for `trackdsl sync`.

    Args:
        stream: the journal.
    """

    def __init__(self, stream: OpenJournal) -> None:
        self._stream = stream
        self._saved: tuple[object, ...] = ()

    def refuse(self, what: str, error: Exception) -> None:
        """Record something that the store refused, and that is lost with it."""
        self._stream.progress.refused += 1
        self.record_refusal(what, error)

    def record_refusal(self, what: str, error: Exception) -> None:
        """Record something that the store refused, if it is kept in another way or the program did not record it."""
        self._stream.progress.error = mask_text(f"MLflow refused {what}: {error}")[:1000]
        logger.warning("trackdsl: %s", self._stream.progress.error)

    def skip_unknown(self, id_: bytes) -> None:
        """Count an event of a run that nobody knows."""
        progress = self._stream.progress
        if not progress.unknown:
            logger.warning(
                "trackdsl: events of the unknown run %s in %s are left out", id_.hex(), self._stream.directory
            )
        progress.unknown += 1

    def skip_damage(self, missing: str) -> dict[str, str]:
        """Count damage; returns the tags that its runs get.

        Args:
            missing: what is missing, such as "segment 2"; empty for a damaged record.
        """
        progress, directory = self._stream.progress, self._stream.directory
        if missing:
            logger.warning("trackdsl: %s of %s is missing: its events are lost", missing, directory)
            if len(progress.missing) < _MOST_MISSING:
                progress.missing.append(missing)
            return {"trackdsl.missing_segments": ", ".join(progress.missing)}
        progress.damaged += 1
        logger.warning("trackdsl: a damaged record in %s was skipped", directory)
        return {"trackdsl.damaged_records": str(progress.damaged)}

    def save(self, unrecorded: int = 0) -> None:
        """Write what is lost for `trackdsl sync`, also after this journal is gone.

        Args:
            unrecorded: how many events the program could not record.
        """
        progress, directory, origin = self._stream.progress, self._stream.directory, self._stream.origin
        losses = (tuple(progress.missing), progress.damaged, progress.unknown, progress.refused, unrecorded)
        if any(losses) and losses != self._saved:
            self._saved = losses
            program = f"{mask_prose(origin.source)} (pid {origin.pid})"
            prefixes = (origin.prefix, *origin.ancestors)
            _losses.append(directory.parent.parent, Losses(directory.name, program, *losses, prefixes))

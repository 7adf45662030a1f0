"""What the parts of a journal's delivery need of the journal, and of the other journals that are being delivered."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from trackdsl.delivery.state._ledger import Ledger
from trackdsl.delivery.state._run_map import RunMap
from trackdsl.journal._origin import Origin
from trackdsl.store_format.progress import Progress


class OpenJournal(Protocol):
    """A journal that is being delivered; `Stream` is one.

    Attributes:
        directory: the journal's folder.
        origin: the program that wrote it, and the store that it goes to.
        prefix: the first bytes of its runs' ids; empty if an old version wrote it.
        ledger: what delivery has written of it.
        runs: its runs that exist at MLflow.
    """

    directory: Path
    origin: Origin
    prefix: bytes
    ledger: Ledger
    runs: RunMap

    @property
    def progress(self) -> Progress:
        """The progress of its delivery."""

    def behind(self) -> bool:
        """Whether events are left to read."""

    def reached(self) -> int:
        """The time up to which all events were read, in milliseconds since 1970."""

    def block_reason(self, id_: bytes) -> str | None:
        """Why a run that this journal opens was blocked before it was created; None if it was not."""

    def is_dropped(self, id_: bytes) -> bool:
        """Whether a run of this journal was dropped."""

    def record_refusal(self, what: str, error: Exception) -> None:
        """Record something that the store refused, and that is kept in another way."""

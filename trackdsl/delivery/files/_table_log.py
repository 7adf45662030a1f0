"""The rows of one table that are not delivered yet, in a ledger; `trackdsl.delivery.files._tables` describes it."""

from __future__ import annotations

import json
from pathlib import Path

from trackdsl._core.artifact_paths import checked_path
from trackdsl.delivery.files._table_format import Table, as_table
from trackdsl.delivery.state._ledger import Ledger
from trackdsl.journal._files import read_regular
from trackdsl.journal._spool import is_journal_name
from trackdsl.store_format.ledger import ANY_BASE, ANY_ROWS, BASE, ROWS, TABLE, changes_in, latest
from trackdsl.store_format.state_before_ledgers import StateBefore


class TableLog:
    """The rows of one table that are not delivered yet.

    Attributes:
        sources: journal and snapshot of every event whose rows it contains.
        unsynced: those of them that may not be on the disk yet, or whose snapshots may still exist.
        journals: the journals of these events.
        experiment_id: MLflow's id of the experiment of the run; empty in logs of old versions.
        has_base: whether the earlier content of MLflow's file is written down.
        next_try: the time of the next attempt, on the monotonic clock; 0 before the first one.
    """

    def __init__(self, path: Path, ledger: Ledger, run_id: str, table_path: str, experiment_id: str) -> None:
        self.path = path
        self.run_id = run_id
        self.table_path = table_path
        self.experiment_id = experiment_id
        self.sources: set[tuple[str, str]] = set()
        self.unsynced: list[tuple[str, str]] = []
        self.journals: set[str] = set()
        self.has_base = False
        self.next_try = 0.0
        self._ledger = ledger

    @classmethod
    def begin(cls, path: Path, run_id: str, table_path: str, experiment_id: str) -> TableLog:
        """Begin the log of a table.

        Raises:
            OSError: it cannot be written.
        """
        ledger = Ledger(path)
        ledger.write([TABLE.change(None, (run_id, table_path, experiment_id))])
        return cls(path, ledger, run_id, table_path, experiment_id)

    @classmethod
    def read(cls, path: Path, before: StateBefore | None = None) -> TableLog | None:
        """Read a log.

        Args:
            path: its file.
            before: what an earlier version wrote of the table.

        Returns:
            the log; None if it does not say of which table.
        """
        ledger = Ledger(path, before)
        described = ledger.load(TABLE, list).get(None)
        if described is None or not _is_inside(described[1]):
            return None
        log = cls(path, ledger, *described)
        log.has_base = bool(ledger.load(ANY_BASE, list))
        for source in ledger.load(ANY_ROWS, list):
            if is_journal_name(source[0]):
                log._add_source(source)
        return log

    def add_rows(self, source: tuple[str, str], rows: Table) -> None:
        """Add the rows of an event.

        Raises:
            OSError: nothing was written.
        """
        self._ledger.write([ROWS.change(source, _text(rows))])
        self._add_source(source)

    def set_base(self, base: Table) -> None:
        """Write the earlier content of MLflow's file, on the disk.

        Raises:
            OSError: it cannot be written.
        """
        self._ledger.write([BASE.change(None, _text(base))], to_disk=True)
        self.has_base = True

    def to_disk(self) -> None:
        """Flush the log to the disk.

        Raises:
            OSError: it cannot be flushed.
        """
        self._ledger.to_disk()

    def content(self) -> tuple[Table, list[Table]]:
        """The earlier content of MLflow's file, and the rows to append, in order."""
        changes = list(changes_in(read_regular(self.path)))
        base = latest(changes, BASE).get(None)
        rows = latest(changes, ROWS).values()
        return Table() if base is None else _table(base), [_table(each) for each in rows]

    def _add_source(self, source: tuple[str, str]) -> None:
        self.sources.add(source)
        self.unsynced.append(source)
        self.journals.add(source[0])


def _text(table: Table) -> bytes:
    # Not MessagePack, whose integers have 64 bits.
    return json.dumps({"columns": table.columns, "data": table.rows}).encode()


def _table(text: bytes) -> Table:
    return as_table(json.loads(text))


def _is_inside(table_path: str) -> bool:
    try:
        return bool(checked_path(table_path))
    except ValueError:
        return False

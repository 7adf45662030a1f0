"""The rows of one table that are not delivered yet, in a file; `trackdsl.delivery._tables` describes it."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any

from trackdsl._core.artifact_paths import checked_path
from trackdsl.delivery._table_format import Table, as_table
from trackdsl.journal._files import open_regular
from trackdsl.journal._spool import is_journal_name


class TableLog:
    """The rows of one table that are not delivered yet.

    Attributes:
        sources: journal and snapshot of every event whose rows it contains.
        unsynced: those of them that may not be on the disk yet, or whose snapshots may still exist.
        journals: the journals of these events.
        experiment_id: MLflow's id of the experiment of the run; empty in logs of old versions.
        has_base: whether the earlier content of MLflow's file is noted.
        next_try: the time of the next attempt, on the monotonic clock; 0 before the first one.
    """

    def __init__(self, path: Path, run_id: str, table_path: str, experiment_id: str = "") -> None:
        self.path = path
        self.run_id = run_id
        self.table_path = table_path
        self.experiment_id = experiment_id
        self.sources: set[tuple[str, str]] = set()
        self.unsynced: list[tuple[str, str]] = []
        self.journals: set[str] = set()
        self.has_base = False
        self.next_try = 0.0

    @classmethod
    def read(cls, path: Path) -> TableLog | None:
        """Read a log; what follows a torn line was not noted as done, and is cut off.

        Returns:
            the log; None if its first line is not valid.
        """
        log = None
        with open(open_regular(path, os.O_RDWR), "rb+") as file:
            good = 0
            for line in file:
                entry = _line_of(line, log is None)
                if entry is None:
                    file.truncate(good)
                    break
                good += len(line)
                if log is None:
                    log = cls(path, entry["run_id"], entry["path"], str(entry.get("experiment_id", "")))
                elif "base" in entry:
                    log.has_base = True
                else:
                    log._note((entry["journal"], entry["snapshot"]))
        return log

    def add_rows(self, source: tuple[str, str], rows: Table) -> None:
        """Add the rows of an event."""
        table = {"columns": rows.columns, "data": rows.rows}
        self.add({"journal": source[0], "snapshot": source[1], "table": table})
        self._note(source)

    def add(self, line: dict[str, Any]) -> None:
        """Write a line completely or not at all."""
        with open(open_regular(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT), "ab", buffering=0) as file:
            size = file.tell()
            content = json.dumps(line).encode() + b"\n"
            if file.write(content) != len(content):
                file.truncate(size)
                raise OSError(errno.ENOSPC, "no space left", str(self.path))

    def content(self) -> tuple[Table, list[Table]]:
        """The earlier content of MLflow's file, and the rows to append, in order."""
        base, appended = Table(), []
        with open(open_regular(self.path), "rb") as file:
            for line in file:
                entry = json.loads(line)
                if "base" in entry:
                    base = as_table(entry["base"])
                elif "table" in entry:
                    appended.append(as_table(entry["table"]))
        return base, appended

    def _note(self, source: tuple[str, str]) -> None:
        self.sources.add(source)
        self.unsynced.append(source)
        self.journals.add(source[0])


def _line_of(line: bytes, first: bool) -> dict[str, Any] | None:
    """A line of a log; None if it is torn, or if delivery cannot have written it."""
    try:
        entry = json.loads(line) if line.endswith(b"\n") else None
    except (ValueError, RecursionError):
        return None
    if not isinstance(entry, dict):
        return None
    if first:
        names = (entry.get("run_id"), entry.get("path"))
        sound = all(isinstance(name, str) for name in names) and _is_inside(str(entry["path"]))
    elif "base" in entry:
        sound = isinstance(entry["base"], dict)
    else:
        journal, snapshot = entry.get("journal"), entry.get("snapshot")
        sound = isinstance(journal, str) and isinstance(snapshot, str) and is_journal_name(journal)
    return entry if sound else None


def _is_inside(table_path: str) -> bool:
    try:
        return bool(checked_path(table_path))
    except ValueError:
        return False

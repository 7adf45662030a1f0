"""Tables that grow: the rows of many events, of several journals, in one file at MLflow, each exactly once.

MLflow can replace a file but not append to it, so the result must not depend on how often a file is uploaded. Until
they are delivered, the rows of a table are kept in a ledger of its own, `tables/<run>-<hash of the path>.ledger`: which
table it is, the rows of each event, once, and MLflow's earlier file as the base, noted before the first upload.

An upload contains the base and all rows after it, so a repeated upload is the same file. The log is removed when MLflow
has accepted the file; the next rows begin a new log, whose base contains the earlier rows. A snapshot is removed only
when the log is on the disk, and again when a log is found at the start. So an event that is read again finds its rows
in the log, or its snapshot missing. Rows that another program appends between the base and the upload are lost, as with
`mlflow.log_table`.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import tempfile
import time
from collections import Counter
from pathlib import Path, PurePosixPath

from trackdsl._core import events
from trackdsl.delivery._timing import timing
from trackdsl.delivery.batches._single_writes import tag_omitted
from trackdsl.delivery.files._artifacts import check_path
from trackdsl.delivery.files._table_format import Table, as_table, parse, render
from trackdsl.delivery.files._table_log import TableLog
from trackdsl.delivery.state._blocked import check_experiment
from trackdsl.delivery.state._run_map import DeliveredRun
from trackdsl.delivery.store._errors import Refused, RefusedTogether, Unavailable
from trackdsl.delivery.store._sink import Batch, Sink
from trackdsl.errors import logger
from trackdsl.journal._files import is_regular, remove, sync
from trackdsl.journal._snapshots import UnsafeSnapshot, read_snapshot, remove_snapshot
from trackdsl.journal._spool import JOURNALS
from trackdsl.store_format import limits as _limits
from trackdsl.store_format.state_before_ledgers import of_table

_FOLDER = "tables"
#: The tag by which MLflow's UI and `mlflow.load_table` find tables.
_TAG = "mlflow.loggedArtifacts"
_MAX_TOLD = 10_000


class Tables:
    """Delivers the tables of a spool.

    Args:
        spool: the spool's folder; no other process delivers from it to the same server meanwhile.
        folder: contains the folder of the logs; the spool by default.

    Attributes:
        reason: the last error of the store.
    """

    def __init__(self, spool: Path, folder: Path | None = None) -> None:
        self._folder = (folder or spool) / _FOLDER
        self._journals = spool / JOURNALS
        self._logs: dict[Path, TableLog] = {}
        self._listed: set[tuple[str, str]] = set()
        self._left_out: Counter[str] = Counter()
        self.reason = ""
        self._find_logs()

    def add_rows(self, run: DeliveredRun, event: events.Table, journal: Path, *, in_doubt: bool) -> str | None:
        """Add the rows of an event to a log; call `upload` before the event is written down as done.

        Args:
            run: the run of the event.
            event: describes the rows.
            journal: the folder of the event's journal.
            in_doubt: whether the rows may have been added before.

        Returns:
            why the rows are left out for good; None if they are not.

        Raises:
            Unavailable: there is no space for them.
        """
        log = self._log(run.run_id, event.path)
        source = (journal.name, event.snapshot)
        if log is not None and source in log.sources:
            return None
        try:
            check_path(event.path, event.snapshot)
            if not PurePosixPath(event.path).name:
                return "a table's path must name a file"
            rows = as_table(json.loads(read_snapshot(journal, event.snapshot)))
        except FileNotFoundError:
            return None if in_doubt else "its snapshot is gone"
        except UnsafeSnapshot as error:
            return error.why
        except (OSError, ValueError, RecursionError) as error:
            return f"its snapshot cannot be read: {error}"
        try:
            log = log or self._new_log(run, event.path)
            log.add_rows(source, rows)
        except OSError as error:
            raise Unavailable(f"cannot keep the rows of {event.path!r} in {self._folder}: {error}") from None
        return None

    def upload(self, sink: Sink, journal: Path, run_id: str | None = None) -> bool:
        """Upload the tables with rows of a journal; those that the store does not accept now are deferred.

        Args:
            sink: the store of the journal.
            journal: the journal's folder.
            run_id: the only run whose tables to upload, or None for all.

        Returns:
            whether any was delivered.

        Raises:
            Unavailable: the rows cannot be made durable.
            RefusedTogether: the store refuses what was collected.
        """
        self._flush_logs()
        mine = [log for log in self._logs.values() if journal.name in log.journals and run_id in (None, log.run_id)]
        return sum(self._deliver(sink, log) for log in mine if time.monotonic() >= log.next_try) > 0

    def retry_now(self) -> None:
        """Try again at once what waits."""
        for log in self._logs.values():
            log.next_try = 0.0

    def due(self, journal: Path) -> bool:
        """Whether it is time to try tables with rows of a journal again."""
        now = time.monotonic()
        return any(journal.name in log.journals and now >= log.next_try for log in self._logs.values())

    def drop(self, run_id: str) -> None:
        """Forget the tables of one run."""
        for log in [log for log in self._logs.values() if log.run_id == run_id]:
            remove(log.path)
            del self._logs[log.path]

    def waiting(self, journal: Path) -> int:
        """The number of undelivered tables with rows of a journal, which must not be removed before."""
        return sum(journal.name in log.journals for log in self._logs.values())

    def take_left_out(self, journal: Path) -> int:
        """How many tables with rows of a journal were left out since the last call."""
        return self._left_out.pop(journal.name, 0)

    def _find_logs(self) -> None:
        """Read the logs that an earlier process left."""
        for part in self._folder.glob("upload-*"):
            remove(part)
        before = {path.with_suffix(".ledger"): of_table(path) for path in self._folder.glob("*.jsonl")}
        for path in sorted({*self._folder.glob("*.ledger"), *before}):
            if os.path.lexists(path) and not is_regular(path):
                logger.warning("trackdsl does not deliver the table in %s: it is not a regular file", path)
                continue
            log = TableLog.read(path, before.get(path))
            # A journal is removed after its tables are delivered. So this log was delivered, and a power cut undid its
            # removal.
            if log is None or not any((self._journals / name).is_dir() for name in log.journals):
                remove(path)
            else:
                self._logs[path] = log
        self._flush_logs()

    def _path(self, run_id: str, table_path: str) -> Path:
        name = "".join(c if c.isalnum() else "_" for c in run_id)[:64]
        return self._folder / f"{name}-{hashlib.sha256(table_path.encode()).hexdigest()[:16]}.ledger"

    def _log(self, run_id: str, table_path: str) -> TableLog | None:
        return self._logs.get(self._path(run_id, table_path))

    def _new_log(self, run: DeliveredRun, table_path: str) -> TableLog:
        if not self._folder.exists():
            self._folder.mkdir(mode=0o700)
            sync(self._folder.parent)
        path = self._path(run.run_id, table_path)
        log = self._logs[path] = TableLog.begin(path, run.run_id, table_path, run.experiment_id)
        return log

    def _flush_logs(self) -> None:
        """Write the logs to the disk, and then remove the snapshots of their rows."""
        unsynced = [log for log in self._logs.values() if log.unsynced]
        if not unsynced:
            return
        try:
            for log in unsynced:
                log.to_disk()
            # The folder too: logs were added and removed.
            sync(self._folder)
        except OSError as error:
            raise Unavailable(f"cannot keep tables in {self._folder}: {error}") from None
        for log in unsynced:
            for journal, snapshot in log.unsynced:
                remove_snapshot(self._journals / journal, snapshot)
            log.unsynced.clear()

    def _deliver(self, sink: Sink, log: TableLog) -> bool:
        listed = True
        try:
            try:
                self._store(sink, log)
            except Refused as error:
                listed = False
                if not self._tag_omitted(sink, log, error):
                    return False
            sink.commit()  # Nothing but the log remembers the rows.
        except RefusedTogether:
            raise
        except Exception as error:
            # Also an unexpected error: other tables must not wait for this one.
            self._wait(log, error)
            return False
        if len(self._listed) >= _MAX_TOLD:
            self._listed.clear()
        if listed:
            self._listed.add((log.run_id, log.table_path))
        else:
            self._left_out.update(log.journals)
        remove(log.path)
        del self._logs[log.path]
        return True

    def _store(self, sink: Sink, log: TableLog) -> None:
        table = Table()
        try:
            if not log.has_base:
                content = sink.read_artifact(log.run_id, log.table_path)
                base = Table() if content is None else parse(content, log.table_path)
                log.set_base(base)
            base, appended = log.content()
            table.append(base)
            for rows in appended:
                table.append(rows)
            with tempfile.TemporaryDirectory(prefix="upload-", dir=self._folder) as folder:
                local = Path(folder) / PurePosixPath(log.table_path).name
                local.write_bytes(render(table, log.table_path))
                sink.write_artifact(log.run_id, local, log.table_path, directory=False)
        except (ValueError, TypeError, NotImplementedError, ImportError) as error:
            raise Refused(f"{type(error).__name__}: {error}") from None
        except OSError as error:
            if error.errno == errno.ENAMETOOLONG:
                raise Refused(str(error)) from None
            raise Unavailable(f"cannot write to {self._folder}: {error}") from None
        self._list_table(sink, log)

    def _list_table(self, sink: Sink, log: TableLog) -> None:
        """Add a table to the tag that lists all tables of a run, including those of others."""
        entry = {"path": log.table_path, "type": "table"}
        if (log.run_id, log.table_path) in self._listed:
            return
        try:
            listed = json.loads(sink.tags(log.run_id).get(_TAG, "[]"))
        except ValueError:
            listed = []
        listed = listed if isinstance(listed, list) else []
        if entry not in listed:
            text = json.dumps([*listed, entry])
            if len(text) > _limits.MAX_TAG:
                tag = _limits.fit_key(f"trackdsl.omitted.{_TAG}/{log.table_path}")
                sink.write(log.run_id, Batch(tags={tag: "the tag that lists tables is full"}))
            else:
                sink.write(log.run_id, Batch(tags={_TAG: text}))

    def _tag_omitted(self, sink: Sink, log: TableLog, reason: Refused) -> bool:
        try:
            if log.experiment_id:
                check_experiment(sink, log.experiment_id, reason)
            tag_omitted(sink, log.run_id, log.table_path, f"MLflow refused it: {reason}", log.experiment_id)
        except Unavailable as error:
            self._wait(log, error)
            return False
        logger.warning("trackdsl: rows of the table %r are left out: %s", log.table_path, reason)
        return True

    def _wait(self, log: TableLog, error: Exception) -> None:
        self.reason = f"the table {log.table_path!r} is not accepted: {error}"
        if not log.next_try:
            logger.warning("trackdsl defers rows of the table %r: %s", log.table_path, error)
        log.next_try = time.monotonic() + (
            timing().late_request if getattr(error, "late", False) else timing().file_retry
        )

"""The database of a tracking server, which change sets are written to."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Collection

from trackdsl.delivery.database._changes import ChangeSet
from trackdsl.delivery.database._connection import Connection, chunks, marks
from trackdsl.delivery.database._opening import connect, revision_of, why_unknown
from trackdsl.delivery.database._writer import Writer
from trackdsl.delivery.store._errors import Unavailable

#: How long a request waits for the ones before it, in seconds; clients wait longer.
_PATIENCE = 8.0
#: The variable with which MLflow's server has several workspaces; change sets know of none.
_WORKSPACES = "MLFLOW_ENABLE_WORKSPACES"


class CannotWrite(Exception):
    """An error: this server takes no change sets."""


class Backend:
    """Writes change sets, one at a time: a process of the server then needs one connection, and memory for one.

    Args:
        uri: of the database, as MLflow's server was given it.
    """

    def __init__(self, uri: str) -> None:
        self._uri = uri
        self._turn = threading.Lock()
        self._connection: Connection | None = None
        self._writer: Writer | None = None

    def check(self) -> None:
        """Check that the database is one that change sets can be written to.

        Raises:
            CannotWrite: it is not.
            Unavailable: it is busy.
        """
        self.in_turn(self._open)

    def in_turn(self, work: Callable[[], None]) -> None:
        """Do work while no other request of this process is being worked on.

        Raises:
            Unavailable: the requests before this one take too long.
        """
        if not self._turn.acquire(timeout=_PATIENCE):
            raise Unavailable("the server is busy with other change sets")
        try:
            work()
        finally:
            self._turn.release()

    def experiments_of(self, run_ids: Collection[str]) -> dict[str, int]:
        """The experiments of those of the runs that exist. Call it inside `in_turn`."""
        connection, _ = self._opened()
        experiments: dict[str, int] = {}
        for part in chunks(list(run_ids)):
            query = f"SELECT run_uuid, experiment_id FROM runs WHERE run_uuid IN ({marks(part)})"  # noqa: S608
            experiments.update((run_id, experiment_id) for run_id, experiment_id in connection.rows(query, part))
        return experiments

    def write(self, changes: ChangeSet, within: Collection[int]) -> None:
        """Write a change set, if all of its runs are in these experiments. Call it inside `in_turn`.

        Raises:
            Refused, Unavailable: see `Writer.carry_out`.
        """
        _, writer = self._opened()
        try:
            writer.carry_out(changes, within)
        finally:
            if writer.outdated:
                self._close()

    def _open(self) -> None:
        self._opened()

    def _opened(self) -> tuple[Connection, Writer]:
        if self._connection is not None and self._writer is not None:
            return self._connection, self._writer
        if os.environ.get(_WORKSPACES, "").lower() in ("true", "1"):
            raise CannotWrite(f"the server has workspaces ({_WORKSPACES})")
        connection = connect(self._uri, os.getcwd())
        if connection is None:
            raise CannotWrite("the server keeps its runs in no SQLite, PostgreSQL or MySQL database")
        revision = revision_of(connection)
        why = why_unknown(connection, revision)
        if revision is None or why:
            connection.close()
            raise CannotWrite(f"on the server: {why}")
        self._connection, self._writer = connection, Writer(connection, revision)
        return self._connection, self._writer

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()
        self._connection = self._writer = None

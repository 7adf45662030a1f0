"""What the sink needs of MLflow's tables, whether this process or a server opens them."""

from __future__ import annotations

import time
from typing import Protocol

from trackdsl.delivery.database._changes import ChangeSet
from trackdsl.delivery.database._connection import Connection
from trackdsl.delivery.database._reader import StoreReader
from trackdsl.delivery.database._tree_reads import TreeReads
from trackdsl.delivery.database._writer import Writer
from trackdsl.delivery.store._sink import StoredRun, Times, TreeRun


class Tables(Protocol):
    """MLflow's tables.

    Every method except `answers`, `outdated`, `forget` and `close` raises `Unavailable` or `Refused`.
    """

    def carry_out(self, changes: ChangeSet) -> None:
        """Write a change set, or nothing of it. Writing it twice has the same result as writing it once."""

    def begin(self, changes: ChangeSet) -> None:
        """Begin to write a change set, perhaps in the background; nobody changes the change set meanwhile.

        If it fails later, the other methods raise `Unavailable`, until `forget` is called.
        """

    def settle(self) -> None:
        """Wait until what was begun is written."""

    def forget(self) -> None:
        """Wait until nothing is being written, and forget that it failed: it will be written again."""

    def create_experiment(self, name: str) -> None:
        """Create an experiment, unless there is one of this name by now."""

    def reopen_run(self, run_id: str) -> None:
        """Make a run `RUNNING` again; its end time stays."""

    def delete_tag(self, run_id: str, name: str) -> None:
        """Delete a tag of a run, if it has it."""

    def delete_run(self, run_id: str) -> None:
        """Mark a run as deleted, as MLflow does."""

    def outdated(self) -> bool:
        """Whether the tables are no longer what they were when this was opened, so that nothing more is written."""

    def answers(self) -> bool:
        """Whether they can be read now."""

    def close(self) -> None:
        """Release connections; they are opened again when they are needed."""

    def state(self, run_id: str) -> StoredRun | None:
        """See `Sink`."""

    def status(self, run_id: str) -> str:
        """See `Sink`."""

    def params(self, run_id: str) -> dict[str, str]:
        """See `Sink`."""

    def tags(self, run_id: str) -> dict[str, str]:
        """See `Sink`."""

    def keys(self, run_id: str) -> dict[str, list[str]]:
        """See `Sink`."""

    def may_fold_keys(self) -> bool:
        """Whether they may treat keys as equal that differ in case, which an experiment's name then shows."""

    def metric_history(self, run_id: str, key: str, step: int | None) -> list[tuple[int, float, int]]:
        """See `Sink`."""

    def find_by_id(self, run_id: str) -> str | None:
        """The id of the experiment of a run, if it exists."""

    def find_runs(self, start: str, experiment_id: int | None) -> list[tuple[str, str, str]]:
        """See `Sink`."""

    def find_without_parent(self, prefix: str) -> list[tuple[str, str]]:
        """See `Sink`."""

    def tagged(self, tag: str, value: str, experiment_id: int) -> list[StoredRun]:
        """See `Sink`."""

    def points(self, run_id: str, key: str, most: int) -> list[tuple[int, float, int]]:
        """See `Sink`."""

    def newest(self, experiment_id: int, tag: str, value: str | None, began: Times, most: int) -> list[TreeRun]:
        """See `Sink`."""

    def tree(self, run_id: str, most: int) -> list[TreeRun]:
        """See `Sink`."""

    def experiment_by_name(self, name: str) -> tuple[str, str, str] | None:
        """Id, name and lifecycle stage of an experiment; None if there is none of this name."""

    def experiment(self, experiment_id: int) -> tuple[str, str, str]:
        """Name, lifecycle stage and artifact location of an experiment."""

    def artifact_uri(self, run_id: str) -> str:
        """The URI of the artifacts of a run."""

    def models_of(self, run_id: str) -> list[tuple[str, int]]:
        """See `Sink`."""


class LocalTables(StoreReader):
    """The tables of a database that this process has a connection to; see `Tables`.

    What is begun is written at once.

    Args:
        connection: to the database.
        revision: Alembic's revision of its tables.
        root: the folder or URI of the artifacts of new experiments.
    """

    def __init__(self, connection: Connection, revision: str, root: str) -> None:
        super().__init__(connection)
        self._connection = connection
        self._writer = Writer(connection, revision)
        self._root = root
        trees = TreeReads(connection)
        self.newest, self.tree, self.points = trees.newest, trees.tree, trees.points

    def carry_out(self, changes: ChangeSet) -> None:
        """See `Tables`."""
        self._writer.carry_out(changes)

    begin = carry_out

    def settle(self) -> None:
        """See `Tables`."""

    def forget(self) -> None:
        """See `Tables`."""

    def create_experiment(self, name: str) -> None:
        """See `Tables`."""
        self._writer.create_experiment(name, self._root)

    def reopen_run(self, run_id: str) -> None:
        """See `Tables`."""
        self._writer.reopen(run_id)

    def delete_tag(self, run_id: str, name: str) -> None:
        """See `Tables`."""
        self._execute('DELETE FROM tags WHERE run_uuid = ? AND "key" = ?', run_id, name)

    def delete_run(self, run_id: str) -> None:
        """See `Tables`."""
        self._execute(
            "UPDATE runs SET lifecycle_stage = 'deleted', deleted_time = ? WHERE run_uuid = ?",
            time.time_ns() // 1_000_000,
            run_id,
        )

    def outdated(self) -> bool:
        """See `Tables`."""
        return self._writer.outdated

    def answers(self) -> bool:
        """See `Tables`."""
        try:
            self._connection.rows("SELECT 1 FROM alembic_version")
        except Exception:
            return False
        return True

    def may_fold_keys(self) -> bool:
        """See `Tables`. MLflow creates its tables in the collation of the database; most of MySQL's ignore case."""
        return self._connection.dialect == "mysql"

    def close(self) -> None:
        """See `Tables`."""
        self._connection.close()

    def _execute(self, statement: str, *values: object) -> None:
        self._connection.transact(lambda: self._connection.execute(statement, values))

"""What delivery asks MLflow's database."""

from __future__ import annotations

import math

from trackdsl.delivery.database._connection import Connection
from trackdsl.delivery.store._errors import Refused
from trackdsl.delivery.store._sink import GONE, StoredRun
from trackdsl.store_format.tags import ID_TAG, MISSING_PARENT_TAG


class StoreReader:
    """Queries on MLflow's tables, each in a transaction of its own.

    Args:
        connection: to the database.
    """

    def __init__(self, connection: Connection) -> None:
        self._rows = connection.rows

    def state(self, run_id: str) -> StoredRun | None:
        """A run; None if it does not exist."""
        rows = self._rows(
            "SELECT status, end_time, experiment_id, lifecycle_stage FROM runs WHERE run_uuid = ?", (run_id,)
        )
        if not rows:
            return None
        status, end, experiment_id, stage = rows[0]
        return StoredRun(
            run_id,
            status,
            int(end or 0),
            self._pairs("tags", run_id),
            self._pairs("params", run_id),
            str(experiment_id),
            deleted=stage == "deleted",
        )

    def status(self, run_id: str) -> str:
        """See `Sink`."""
        rows = self._rows("SELECT status, lifecycle_stage FROM runs WHERE run_uuid = ?", (run_id,))
        return GONE if not rows or rows[0][1] == "deleted" else str(rows[0][0])

    def params(self, run_id: str) -> dict[str, str]:
        """The parameters of a run.

        Raises:
            Refused: it does not exist.
        """
        return self._pairs("params", self._existing(run_id))

    def tags(self, run_id: str) -> dict[str, str]:
        """The tags of a run.

        Raises:
            Refused: it does not exist.
        """
        return self._pairs("tags", self._existing(run_id))

    def keys(self, run_id: str) -> dict[str, list[str]]:
        """See `Sink`.

        Raises:
            Refused: the run does not exist.
        """
        self._existing(run_id)
        names = {"params": "params", "tags": "tags", "metrics": "latest_metrics"}
        return {
            kind: [key for (key,) in self._rows(f'SELECT "key" FROM {table} WHERE run_uuid = ?', (run_id,))]  # noqa: S608
            for kind, table in names.items()
        }

    def metric_history(self, run_id: str, key: str, step: int | None) -> list[tuple[int, float, int]]:
        """See `Sink`."""
        at_step = "" if step is None else " AND step = ?"
        rows = self._rows(
            f'SELECT step, value, timestamp, is_nan FROM metrics WHERE run_uuid = ? AND "key" = ?{at_step}',  # noqa: S608
            (run_id, key) if step is None else (run_id, key, step),
        )
        return [(at, math.nan if is_nan else value, time) for at, value, time, is_nan in rows]

    def find_by_id(self, run_id: str) -> str | None:
        """The id of the experiment of a run, if it exists."""
        rows = self._rows("SELECT experiment_id FROM runs WHERE run_uuid = ?", (run_id,))
        return str(rows[0][0]) if rows else None

    def find_runs(self, start: str, experiment_id: int | None) -> list[tuple[str, str, str]]:
        """See `Sink`."""
        return self._with_tag(ID_TAG, f"{start}%", experiment_id)

    def find_without_parent(self, prefix: str) -> list[tuple[str, str]]:
        """See `Sink`."""
        return [(run_id, value) for value, run_id, _ in self._with_tag(MISSING_PARENT_TAG, f"{prefix}%", None)]

    def tagged(self, tag: str, value: str, experiment_id: int) -> list[StoredRun]:
        """See `Sink`."""
        rows = self._rows(
            'SELECT t.run_uuid FROM tags t JOIN runs r ON r.run_uuid = t.run_uuid WHERE t."key" = ? AND t.value = ? '
            "AND r.experiment_id = ? AND r.lifecycle_stage = 'active'",
            (tag, value, experiment_id),
        )
        return [run for (run_id,) in rows if (run := self.state(run_id)) is not None]

    def experiment_by_name(self, name: str) -> tuple[str, str, str] | None:
        """Id, name and lifecycle stage of an experiment; None if there is none of this name."""
        rows = self._rows("SELECT experiment_id, name, lifecycle_stage FROM experiments WHERE name = ?", (name,))
        return (str(rows[0][0]), rows[0][1], rows[0][2]) if rows else None

    def experiment(self, experiment_id: int) -> tuple[str, str, str]:
        """Name, lifecycle stage and artifact location of an experiment.

        Raises:
            Refused: it does not exist.
        """
        rows = self._rows(
            "SELECT name, lifecycle_stage, artifact_location FROM experiments WHERE experiment_id = ?", (experiment_id,)
        )
        if not rows:
            raise Refused(f"No Experiment with id={experiment_id} exists")
        return rows[0][0], rows[0][1], rows[0][2]

    def artifact_uri(self, run_id: str) -> str:
        """The URI of the artifacts of a run.

        Raises:
            Refused: the run is deleted, or does not exist.
        """
        rows = self._rows("SELECT artifact_uri, lifecycle_stage FROM runs WHERE run_uuid = ?", (run_id,))
        if not rows:
            raise Refused(f"Run with id={run_id} not found")
        return str(rows[0][0])

    def models_of(self, run_id: str) -> list[tuple[str, int]]:
        """See `Sink`."""
        rows = self._rows(
            "SELECT destination_id, step FROM inputs WHERE source_type = 'RUN_OUTPUT' AND source_id = ? "
            "AND destination_type = 'MODEL_OUTPUT'",
            (run_id,),
        )
        return [(model_id, step) for model_id, step in rows]

    def _with_tag(self, tag: str, pattern: str, experiment_id: int | None) -> list[tuple[str, str, str]]:
        inside = "" if experiment_id is None else " AND r.experiment_id = ?"
        values = (tag, pattern) if experiment_id is None else (tag, pattern, experiment_id)
        rows = self._rows(
            "SELECT t.value, r.run_uuid, r.experiment_id FROM tags t JOIN runs r ON r.run_uuid = t.run_uuid "  # noqa: S608
            f'WHERE t."key" = ? AND t.value LIKE ?{inside}',
            values,
        )
        return [(value, run_id, str(experiment)) for value, run_id, experiment in rows]

    def _pairs(self, table: str, run_id: str) -> dict[str, str]:
        return dict(self._rows(f'SELECT "key", value FROM {table} WHERE run_uuid = ?', (run_id,)))  # noqa: S608

    def _existing(self, run_id: str) -> str:
        if self.find_by_id(run_id) is None:
            raise Refused(f"Run with id={run_id} not found")
        return run_id

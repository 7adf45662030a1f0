"""Carrying out a change set: what `MlflowClient` would have left, in one transaction."""

from __future__ import annotations

import time
import uuid
from collections.abc import Collection
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from trackdsl._core.events import Input
from trackdsl.delivery.database._changes import ChangeSet, NewRun, RunChange
from trackdsl.delivery.database._connection import Connection, Row, chunks, marks
from trackdsl.delivery.database._upserts import upserts
from trackdsl.delivery.store._errors import Denied, Refused, Unavailable
from trackdsl.delivery.store._fallback_encoding import is_encoding_of
from trackdsl.delivery.store._sink import EXPERIMENT_TAGS
from trackdsl.store_format.tags import RUN_NAME_TAG

#: What MLflow stores for infinite values, see mlflow/store/tracking/sqlalchemy_store.py.
_LARGEST = 1.7976931348623157e308
_RUN_COLUMNS = (
    "runs (run_uuid, name, source_type, source_name, entry_point_name, user_id, status, start_time, end_time, "
    "source_version, lifecycle_stage, artifact_uri, experiment_id)"
)
_POINT_COLUMNS = '("key", value, timestamp, step, is_nan, run_uuid)'


class Writer:
    """Carries out change sets on the tables of a database.

    Args:
        connection: to the database.
        revision: Alembic's revision of its tables.

    Attributes:
        outdated: whether the tables have another revision now, so that nothing more is written.
    """

    def __init__(self, connection: Connection, revision: str) -> None:
        self._connection = connection
        self._revision = revision
        self.outdated = False
        self._upserts = upserts(connection.dialect)

    def carry_out(self, changes: ChangeSet, within: Collection[int] | None = None) -> None:
        """Write everything, or nothing. Writing it twice has the same result as writing it once.

        Args:
            changes: what to write.
            within: the experiments whose runs may be written to; None for all.

        Raises:
            Denied: a run is in another experiment.
            Unavailable: the database cannot be reached or is busy.
            Refused: a run or its experiment is deleted or missing, or the database does not accept the content.
        """
        if changes:
            self._connection.transact(lambda: self._write(changes, within))

    def create_experiment(self, name: str, root: str) -> None:
        """Create an experiment if there is none of its name.

        Args:
            name: its name.
            root: the folder or URI of artifacts; the experiment's own folder in it is named after its id.

        Raises:
            Unavailable: the database cannot be reached or is busy.
            Refused: it does not accept the name.
        """
        self._connection.transact(lambda: self._create_experiment(name, root))

    def reopen(self, run_id: str) -> None:
        """Make a run that has ended `RUNNING` again.

        Raises:
            Unavailable: the database cannot be reached or is busy.
            Refused: the run is deleted or missing.
        """

        def write() -> None:
            self._existing({run_id: RunChange()})
            self._connection.execute("UPDATE runs SET status = 'RUNNING' WHERE run_uuid = ?", (run_id,))

        self._connection.transact(write)

    def _create_experiment(self, name: str, root: str) -> None:
        if self._connection.rows("SELECT experiment_id FROM experiments WHERE name = ?", (name,)):
            return  # Another process has created it since.
        self._check_revision()
        now = time.time_ns() // 1_000_000
        self._connection.insert(
            "experiments (name, artifact_location, lifecycle_stage, creation_time, last_update_time)",
            [name, None, "active", now, now],
        )
        ((experiment_id,),) = self._connection.rows("SELECT experiment_id FROM experiments WHERE name = ?", (name,))
        self._connection.execute(
            "UPDATE experiments SET artifact_location = ? WHERE experiment_id = ?",
            (append_path(root, str(experiment_id)), experiment_id),
        )
        self._connection.insert(
            'experiment_tags ("key", value, experiment_id)',
            [value for each in EXPERIMENT_TAGS.items() for value in (*each, experiment_id)],
        )

    def _write(self, changes: ChangeSet, within: Collection[int] | None) -> None:
        self._check_revision()
        existing = self._existing(changes)
        if within is not None and any(experiment_id not in within for experiment_id in existing.values()):
            raise Denied("a run of this change set has come into an experiment that may not be written to")
        fresh = {run_id: change for run_id, change in changes.items() if change.new and run_id not in existing}
        self._create(fresh)
        self._write_params(changes, fresh)
        self._write_tags(changes)
        self._write_points(changes, fresh)
        for run_id, change in changes.items():
            if change.inputs:
                experiment_id = change.new.experiment_id if change.new is not None else existing[run_id]
                for event in change.inputs:
                    self._write_input(run_id, experiment_id, event)
        for run_id, change in changes.items():
            if change.end is not None and run_id not in fresh:
                status, end = change.end
                self._connection.execute(
                    "UPDATE runs SET status = ?, end_time = ? WHERE run_uuid = ?", (status, end, run_id)
                )

    def _check_revision(self) -> None:
        if self._connection.rows("SELECT version_num FROM alembic_version") != [(self._revision,)]:
            self.outdated = True
            raise Unavailable("MLflow has upgraded the tables of the database, or is upgrading them")

    def _existing(self, changes: ChangeSet) -> dict[str, int]:
        """The runs that exist, with the ids of their experiments.

        Raises:
            Refused: a run is deleted, or is missing and not to be created.
        """
        existing: dict[str, int] = {}
        for part in chunks(list(changes)):
            for run_id, stage, experiment_id in self._connection.rows(
                f"SELECT run_uuid, lifecycle_stage, experiment_id FROM runs WHERE run_uuid IN ({marks(part)})",  # noqa: S608
                part,
            ):
                if stage != "active":
                    raise Refused(f"The run {run_id} must be in the 'active' state. Current state is {stage}.")
                existing[run_id] = experiment_id
        for run_id, change in changes.items():
            if change.new is None and run_id not in existing:
                raise Refused(f"Run with id={run_id} not found")
        return existing

    def _create(self, fresh: ChangeSet) -> None:
        if not fresh:
            return
        wanted = sorted({change.new.experiment_id for change in fresh.values() if change.new})
        locations: dict[int, str] = {}
        for part in chunks(wanted):
            for experiment_id, stage, location in self._connection.rows(
                "SELECT experiment_id, lifecycle_stage, artifact_location FROM experiments "  # noqa: S608
                f"WHERE experiment_id IN ({marks(part)})",
                part,
            ):
                if stage != "active":
                    raise Refused(
                        f"The experiment {experiment_id} must be in the 'active' state. Current state is {stage}."
                    )
                locations[experiment_id] = location
        missing = next((each for each in wanted if each not in locations), None)
        if missing is not None:
            raise Refused(f"No Experiment with id={missing} exists")
        values: list[Any] = []
        for run_id, change in fresh.items():
            if change.new:
                values += _run_row(run_id, change, change.new, locations)
        self._connection.insert(_RUN_COLUMNS, values)

    def _write_params(self, changes: ChangeSet, fresh: ChangeSet) -> None:
        existing = [run_id for run_id, change in changes.items() if run_id not in fresh and _any(change, "params")]
        held: dict[str, dict[str, str]] = {}
        for part in chunks(existing):
            for run_id, key, value in self._connection.rows(
                f'SELECT run_uuid, "key", value FROM params WHERE run_uuid IN ({marks(part)})',  # noqa: S608
                part,
            ):
                held.setdefault(run_id, {})[key] = value
        values: list[Any] = []
        for run_id, change in changes.items():
            known = held.get(run_id)
            batches = [batch for batch in change.batches if batch.params]
            if known is None and len(batches) == 1:
                for key, value in batches[0].params.items():
                    values += (key, value, run_id)
                continue
            known = known or {}
            for batch in batches:
                for key, value in batch.params.items():
                    before = known.get(key)
                    if before is None:
                        known[key] = value
                        values += (key, value, run_id)
                    elif not is_encoding_of(before, value):
                        raise Refused(
                            f"Changing param values is not allowed. Param {key!r} of run {run_id} was already logged "
                            f"with value {before!r}; attempted value {value!r}."
                        )
        self._connection.insert('params ("key", value, run_uuid)', values)

    def _write_tags(self, changes: ChangeSet) -> None:
        values: list[Any] = []
        for run_id, change in changes.items():
            tags: dict[str, str] = {}
            name = change.new.name if change.new is not None else None
            for batch in change.batches:
                tags.update(batch.tags)
                # The tag is the name of the run; MLflow ignores an empty one.
                name = batch.tags.get(RUN_NAME_TAG) or name
            if name is not None:
                if RUN_NAME_TAG in tags:
                    tags[RUN_NAME_TAG] = name
                if change.new is None or name != change.new.name:
                    self._connection.execute("UPDATE runs SET name = ? WHERE run_uuid = ?", (name, run_id))
            else:
                tags.pop(RUN_NAME_TAG, None)
            for key, value in tags.items():
                values += (key, value, run_id)
        self._connection.insert('tags ("key", value, run_uuid)', values, self._upserts.set_tag)

    def _write_points(self, changes: ChangeSet, fresh: ChangeSet) -> None:
        values: list[Any] = []
        first: list[Any] = []
        latest: dict[tuple[str, str], Row] = {}
        false = self._connection.booleans[0]
        for run_id, change in changes.items():
            newest: dict[str, Row] = {}
            for batch in change.batches:
                for key, value, at, step in batch.metrics:
                    row = (key, value, at, step, false, run_id)
                    if not -_LARGEST <= value <= _LARGEST:
                        row = self._unusual(row)
                    values += row
                    held = newest.get(key)
                    if held is None or step > held[3] or (step == held[3] and (at, row[1]) > (held[2], held[1])):
                        newest[key] = row
            if run_id in fresh:
                for row in newest.values():
                    first += row
                continue
            for key, row in newest.items():
                latest[run_id, key] = row
        self._connection.insert(f"metrics {_POINT_COLUMNS}", values, self._upserts.keep)
        # A run that is new has no latest points.
        self._connection.insert(f"latest_metrics {_POINT_COLUMNS}", first, self._upserts.keep)
        # All writers lock rows in the same order, so that no two wait for each other.
        self._connection.insert(
            f"latest_metrics {_POINT_COLUMNS}",
            [value for each in sorted(latest) for value in latest[each]],
            self._upserts.newer_metric,
        )

    def _unusual(self, row: Row) -> Row:
        """The row of a point whose value no database can hold: not a number, or infinite."""
        key, value, at, step, _, run_id = row
        false, true = self._connection.booleans
        if value != value:
            return (key, 0.0, at, step, true, run_id)
        return (key, _LARGEST if value > 0 else -_LARGEST, at, step, false, run_id)

    def _write_input(self, run_id: str, experiment_id: int, event: Input) -> None:
        connection = self._connection
        which = (experiment_id, event.name, event.digest)
        find = "SELECT dataset_uuid FROM datasets WHERE experiment_id = ? AND name = ? AND digest = ?"
        rows = connection.rows(find, which)
        dataset = rows[0][0] if rows else uuid.uuid4().hex
        if not rows:
            connection.insert(
                "datasets (dataset_uuid, experiment_id, name, digest, dataset_source_type, dataset_source, "
                "dataset_schema, dataset_profile)",
                [dataset, *which, event.source_type, event.source, event.schema or None, event.profile or None],
            )
        edge = ("DATASET", dataset, "RUN", run_id)
        if connection.rows(
            "SELECT input_uuid FROM inputs "
            "WHERE source_type = ? AND source_id = ? AND destination_type = ? AND destination_id = ?",
            edge,
        ):
            return
        input_id = uuid.uuid4().hex
        connection.insert(
            "inputs (input_uuid, source_type, source_id, destination_type, destination_id)", [input_id, *edge]
        )
        if event.context is not None:
            connection.insert("input_tags (input_uuid, name, value)", [input_id, "mlflow.data.context", event.context])


def _run_row(run_id: str, change: RunChange, new: NewRun, locations: dict[int, str]) -> Row:
    status, end = change.end or ("RUNNING", None)
    artifacts = append_path(locations[new.experiment_id], f"{run_id}/artifacts")
    return (
        run_id,
        new.name,
        "UNKNOWN",
        "",
        "",
        new.user,
        status,
        new.start,
        end,
        "",
        "active",
        artifacts,
        new.experiment_id,
    )


def _any(change: RunChange, kind: str) -> bool:
    return any(getattr(batch, kind) for batch in change.batches)


def append_path(uri: str, path: str) -> str:
    """A URI or folder with a relative path behind it, as MLflow's `append_to_uri_path` joins them.

    >>> append_path("s3://bucket/base?x=1", "0"), append_path("/data/mlruns", "0")
    ('s3://bucket/base/0?x=1', '/data/mlruns/0')
    """
    parts = urlsplit(uri)
    if not parts.scheme:
        return _joined(uri, path)
    if not parts.path.startswith("/"):
        # `urlunsplit` would make a relative path absolute.
        return f"{parts.scheme}:" + urlunsplit(
            ("", parts.netloc, _joined(parts.path, path), parts.query, parts.fragment)
        )
    return urlunsplit(parts._replace(path=_joined(parts.path, path)))


def _joined(first: str, second: str) -> str:
    if not first:
        return second
    return first + second if first.endswith("/") else f"{first}/{second}"

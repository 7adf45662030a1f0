"""The sink that writes to MLflow's database: what is collected within `collecting` is one transaction.

It collects changes in `_collector.py`, and leaves models and remote artifacts to another sink.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

from trackdsl._core.events import Input
from trackdsl._core.ids import prefix_of
from trackdsl.delivery.database._changes import NewRun
from trackdsl.delivery.database._collector import ChangeCollector, experiment_number
from trackdsl.delivery.database._inputs import check_input
from trackdsl.delivery.database._run_folders import RunFolders
from trackdsl.delivery.database._tables import Tables
from trackdsl.delivery.store._experiments import Experiments
from trackdsl.delivery.store._partial_sink import PartialSink
from trackdsl.delivery.store._sink import Batch, ClientSink, StoredRun, Times, TreeRun
from trackdsl.store_format.sqlite import identity
from trackdsl.store_format.tags import ID_TAG, RUN_NAME_TAG


class DatabaseSink(PartialSink):
    """Writes runs to MLflow's tables.

    Args:
        uri: the tracking URI.
        tables: its tables.
        open_other: see `PartialSink`.
    """

    own_ids = True
    collects = True

    def __init__(self, uri: str, tables: Tables, open_other: Callable[[], ClientSink]) -> None:
        super().__init__(open_other)
        self._uri = uri
        self._tables = tables
        self._file = identity(uri)
        self._collector = ChangeCollector(tables)
        self._folders = RunFolders(tables, self._collector)
        self._experiments = Experiments(tables)
        #: By the prefix of a process: its runs that have other ids in the store, because another sink created them.
        self._others: dict[bytes, dict[str, tuple[str, str]]] = {}

    def stale(self) -> bool:
        """See `Sink`."""
        return self._tables.outdated() or (self._file is not None and identity(self._uri) != self._file)

    def close(self) -> None:
        """See `Sink`."""
        self._tables.close()
        super().close()

    def answers(self) -> bool:
        """See `Sink`."""
        return self._tables.answers()

    @contextlib.contextmanager
    def collecting(self) -> Iterator[None]:
        """See `Sink`."""
        try:
            with self._collector.collecting():
                yield
        finally:
            self._others.clear()

    def commit(self) -> None:
        """See `Sink`."""
        self._collector.flush()

    # What is asked.

    def experiment(self, name: str) -> str:
        """See `Sink`."""
        return self._experiments.id_of(name)

    def find_run(self, id_: str, experiment_id: str | None) -> tuple[str, str] | None:
        """See `Sink`. A run that another sink created has another id; all of its process are looked up together."""
        new = self._collector.new_run(id_)
        if new is not None:
            return id_, str(new.experiment_id)
        its_experiment = self._tables.find_by_id(id_)
        if its_experiment is not None:
            return (id_, its_experiment) if experiment_id in (None, its_experiment) else None
        process = prefix_of(bytes.fromhex(id_))
        others = self._others.get(process)
        if others is None:
            runs = self._tables.find_runs(process.hex(), None)
            others = {ours: (run_id, experiment) for ours, run_id, experiment in runs}
            if self._collector.active:
                self._others[process] = others
        run = others.get(id_)
        return run if run is not None and experiment_id in (None, run[1]) else None

    def find_runs(self, start: str, experiment_id: str | None) -> list[tuple[str, str, str]]:
        """See `Sink`."""
        self._collector.flush()
        return self._tables.find_runs(start, None if experiment_id is None else experiment_number(experiment_id))

    def tagged(self, tag: str, value: str, experiment_id: str) -> list[StoredRun]:
        """See `Sink`."""
        self._collector.flush()
        return self._tables.tagged(tag, value, experiment_number(experiment_id))

    def newest(self, experiment_id: str, tag: str, value: str | None, began: Times, most: int) -> list[TreeRun]:
        """See `Sink`."""
        self._collector.flush()
        return self._tables.newest(experiment_number(experiment_id), tag, value, began, most)

    def tree(self, run_id: str, most: int) -> list[TreeRun]:
        """See `Sink`."""
        self._collector.flush()
        return self._tables.tree(run_id, most)

    def find_without_parent(self, prefix: str) -> list[tuple[str, str]]:
        """See `Sink`."""
        self._collector.flush()
        return self._tables.find_without_parent(prefix)

    def metric_history(self, run_id: str, key: str, step: int | None = None) -> list[tuple[int, float, int]]:
        """See `Sink`."""
        self._collector.flush_run(run_id)
        return self._tables.metric_history(run_id, key, step)

    def points(self, run_id: str, key: str, most: int) -> list[tuple[int, float, int]]:
        """See `Sink`."""
        self._collector.flush()
        return self._tables.points(run_id, key, most)

    def experiment_name(self, experiment_id: str) -> str:
        """See `Sink`."""
        return self._tables.experiment(experiment_number(experiment_id))[0]

    def experiment_is_deleted(self, experiment_id: str) -> bool:
        """See `Sink`."""
        return self._tables.experiment(experiment_number(experiment_id))[1] != "active"

    def status(self, run_id: str) -> str:
        """See `Sink`."""
        self._collector.flush_run(run_id)
        return self._tables.status(run_id)

    def state(self, run_id: str) -> StoredRun | None:
        """See `Sink`."""
        self._collector.flush_run(run_id)
        return self._tables.state(run_id)

    def params(self, run_id: str) -> dict[str, str]:
        """See `Sink`."""
        self._collector.flush_run(run_id)
        return self._tables.params(run_id)

    def tags(self, run_id: str) -> dict[str, str]:
        """See `Sink`."""
        self._collector.flush_run(run_id)
        return self._tables.tags(run_id)

    def keys(self, run_id: str) -> dict[str, list[str]]:
        """See `Sink`."""
        self._collector.flush_run(run_id)
        return self._tables.keys(run_id)

    def folds_keys(self) -> bool:
        """See `Sink`."""
        return self._experiments.folds_case()

    # What is written.

    def create_run(self, experiment_id: str, name: str, start: int, tags: dict[str, str]) -> str:
        """See `Sink`."""
        run_id = tags[ID_TAG]
        change = self._collector.change(run_id)
        change.new = NewRun(experiment_number(experiment_id), name, start, tags.get("mlflow.user", "unknown"))
        # As MLflow does: the name is also a tag.
        change.batches.append(Batch(tags={**tags, RUN_NAME_TAG: name}))
        try:
            self._collector.added(len(tags) + 1)
        except BaseException:
            self._experiments.forget()  # One may have been deleted since.
            raise
        return run_id

    def write(self, run_id: str, batch: Batch) -> None:
        """See `Sink`."""
        self._collector.change(run_id).batches.append(batch)
        self._collector.added(len(batch.params) + len(batch.tags) + len(batch.metrics))

    def end_run(self, run_id: str, status: str, end: int) -> None:
        """See `Sink`."""
        self._collector.change(run_id).end = status, end
        self._collector.added(1)

    def write_input(self, run_id: str, event: Input) -> None:
        """See `Sink`."""
        check_input(event)
        self._collector.change(run_id).inputs.append(event)
        self._collector.added(1)

    def reopen_run(self, run_id: str) -> None:
        """See `Sink`. The end time stays, as when MLflow resumes a run."""
        self._collector.flush()
        self._tables.reopen_run(run_id)

    def delete_tags(self, run_id: str, names: list[str]) -> None:
        """See `Sink`."""
        self._collector.flush()
        for name in names:
            self._tables.delete_tag(run_id, name)

    def link(self, run_id: str, parent_run_id: str) -> None:
        """See `Sink`."""
        self.write(run_id, Batch(tags={"mlflow.parentRunId": parent_run_id}))
        self.delete_tags(run_id, ["trackdsl.parent.missing"])

    def remove_others(self, id_: str, experiment_id: str, run_id: str) -> None:
        """See `Sink`."""
        for _, other, experiment in self.find_runs(id_, experiment_id):
            if other != run_id and experiment == experiment_id:
                self._tables.delete_run(other)

    # Artifacts and models.

    def models_of(self, run_id: str) -> list[tuple[str, int]]:
        """See `Sink`."""
        self._collector.flush()
        return self._tables.models_of(run_id)

    def _folder_of(self, run_id: str) -> Path | None:
        return self._folders.folder_of(run_id)

    def _other(self) -> ClientSink:
        self._collector.flush()  # What is collected must be there first, and no transaction of ours may be open.
        return super()._other()

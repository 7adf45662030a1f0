"""The sink that writes through `mlflow.MlflowClient`: one of the few modules that import MLflow."""

from __future__ import annotations

import contextlib
import itertools
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from functools import partial

from trackdsl._core.events import Input
from trackdsl.delivery.mlflow_client import _run_requests
from trackdsl.delivery.mlflow_client._concurrency_limit import MOST
from trackdsl.delivery.mlflow_client._files import MlflowFiles
from trackdsl.delivery.mlflow_client._reads import MlflowReads
from trackdsl.delivery.mlflow_client._traces import MlflowTraces
from trackdsl.delivery.store._errors import Refused, Unavailable
from trackdsl.delivery.store._sink import Batch, NewRun
from trackdsl.store_format.tags import ID_TAG, MISSING_PARENT_TAG, PARENT_TAG


class MlflowSink(MlflowReads, MlflowFiles, MlflowTraces):
    """Delivers to one tracking URI; its arguments are those of `MlflowConnection`."""

    own_ids = False

    def link(self, run_id: str, parent_run_id: str) -> None:
        """See `Sink`."""
        self._settle(run_id)
        with self._translated():
            self._client.set_tag(run_id, PARENT_TAG, parent_run_id)
            with contextlib.suppress(Refused), self._translated():
                self._client.delete_tag(run_id, MISSING_PARENT_TAG)

    def reopen_run(self, run_id: str) -> None:
        """See `Sink`. The end time stays, as when MLflow resumes a run."""
        self._settle(run_id)
        with self._translated():
            self._client.update_run(run_id, status="RUNNING")

    def delete_tags(self, run_id: str, names: list[str]) -> None:
        """See `Sink`."""
        self._settle(run_id)
        for name in names:
            with contextlib.suppress(Refused), self._translated():
                self._client.delete_tag(run_id, name)

    def remove_others(self, id_: str, experiment_id: str, run_id: str) -> None:
        """See `Sink`."""
        with self._translated():
            for run in self._client.search_runs([experiment_id], f"tags.`{ID_TAG}` = '{id_}'"):
                if run.info.run_id != run_id:
                    self._client.delete_run(run.info.run_id)

    def create_run(self, experiment_id: str, name: str, start: int, tags: dict[str, str]) -> str:
        """See `Sink`."""
        try:
            if self._rest is not None:
                return _run_requests.create_run(self._rest, experiment_id, name, start, tags)
            with self._translated():
                run_id: str = self._client.create_run(experiment_id, start, tags, name).info.run_id
                return run_id
        except BaseException:
            # The experiment may have been deleted since: look it up again.
            self._experiments.clear()
            raise

    def create_runs(self, runs: list[NewRun], created: Callable[[NewRun], None]) -> None:
        """See `CreatesConcurrently`."""
        ready = deque(run for run in runs if not isinstance(run.parent, NewRun))
        children: dict[bytes, list[NewRun]] = {}
        for run in runs:
            if isinstance(run.parent, NewRun):
                children.setdefault(run.parent.id_, []).append(run)
        under_way: dict[Future[str], NewRun] = {}
        failure: Unavailable | None = None
        while under_way or (ready and failure is None):
            while ready and failure is None and len(under_way) < MOST:
                run = ready.popleft()
                run.sent = True
                under_way[self._requests.submit(partial(self._create_or_find, run, itertools.count()))] = run
            for answer in wait(under_way, return_when=FIRST_COMPLETED).done:
                run = under_way.pop(answer)
                try:
                    run.run_id = answer.result()
                except Refused:
                    continue
                except Unavailable as error:
                    run.late = error.late
                    failure = failure or error
                    continue
                created(run)
                ready += children.get(run.id_, ())
        if failure is not None:
            raise failure

    def _create_or_find(self, run: NewRun, attempts: Iterator[int]) -> str:
        """Create a run; if this was tried before, it may exist."""
        tags = {**run.tags, ID_TAG: run.id_.hex()}
        if run.parent is not None:
            tags[PARENT_TAG] = run.parent if isinstance(run.parent, str) else run.parent.run_id
        match = self._search_run(run.id_.hex(), run.experiment_id) if next(attempts) else None
        return match[0] if match is not None else self.create_run(run.experiment_id, run.name, run.start, tags)

    def write(self, run_id: str, batch: Batch) -> None:
        """See `Sink`."""
        self._send(run_id, partial(self._write, run_id, batch))

    def _write(self, run_id: str, batch: Batch) -> None:
        if self._rest is not None:
            _run_requests.write(self._rest, run_id, batch)
            return
        from mlflow.entities import Metric, Param, RunTag

        with self._translated():
            self._client.log_batch(
                run_id,
                metrics=[Metric(key, value, time, step) for key, value, time, step in batch.metrics],
                params=[Param(key, value) for key, value in batch.params.items()],
                tags=[RunTag(key, value) for key, value in batch.tags.items()],
                synchronous=True,
            )

    def end_run(self, run_id: str, status: str, end: int) -> None:
        """See `Sink`."""
        self._send(run_id, partial(self._end_run, run_id, status, end))

    def _end_run(self, run_id: str, status: str, end: int) -> None:
        if self._rest is not None:
            _run_requests.end_run(self._rest, run_id, status, end)
            return
        with self._translated():
            store = getattr(getattr(self._client, "_tracking_client", None), "store", None)
            if store is None:
                self._client.set_terminated(run_id, status, end)
                return
            # What `set_terminated` does, but without reading the run only to print its URL.
            from mlflow.entities import RunStatus

            store.update_run_info(run_id, RunStatus.from_string(status), end, None)

    def write_input(self, run_id: str, event: Input) -> None:
        """See `Sink`."""
        self._send(run_id, partial(self._write_input, run_id, event))

    def _write_input(self, run_id: str, event: Input) -> None:
        from mlflow.entities import Dataset, DatasetInput, InputTag

        dataset = Dataset(
            event.name, event.digest, event.source_type, event.source, event.schema or None, event.profile or None
        )
        tags = [] if event.context is None else [InputTag("mlflow.data.context", event.context)]
        with self._translated():
            self._client.log_inputs(run_id, [DatasetInput(dataset, tags)])

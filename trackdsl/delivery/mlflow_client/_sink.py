"""The sink that writes through `mlflow.MlflowClient`: one of the few modules that import MLflow."""

from __future__ import annotations

import contextlib

from trackdsl._core.events import Input
from trackdsl.delivery.mlflow_client._files import MlflowFiles
from trackdsl.delivery.mlflow_client._reads import MlflowReads
from trackdsl.delivery.mlflow_client._traces import MlflowTraces
from trackdsl.delivery.store._errors import Refused
from trackdsl.delivery.store._sink import Batch
from trackdsl.store_format.tags import ID_TAG, MISSING_PARENT_TAG, PARENT_TAG


class MlflowSink(MlflowReads, MlflowFiles, MlflowTraces):
    """Delivers to one tracking URI; its arguments are those of `MlflowConnection`."""

    own_ids = False

    def link(self, run_id: str, parent_run_id: str) -> None:
        """See `Sink`."""
        with self._translated():
            self._client.set_tag(run_id, PARENT_TAG, parent_run_id)
            with contextlib.suppress(Refused), self._translated():
                self._client.delete_tag(run_id, MISSING_PARENT_TAG)

    def reopen_run(self, run_id: str) -> None:
        """See `Sink`. The end time stays, as when MLflow resumes a run."""
        with self._translated():
            self._client.update_run(run_id, status="RUNNING")

    def delete_tags(self, run_id: str, names: list[str]) -> None:
        """See `Sink`."""
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
            with self._translated():
                run_id: str = self._client.create_run(experiment_id, start, tags, name).info.run_id
                return run_id
        except BaseException:
            # The experiment may have been deleted since: look it up again.
            self._experiments.clear()
            raise

    def write(self, run_id: str, batch: Batch) -> None:
        """See `Sink`."""
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
        from mlflow.entities import Dataset, DatasetInput, InputTag

        dataset = Dataset(
            event.name, event.digest, event.source_type, event.source, event.schema or None, event.profile or None
        )
        tags = [] if event.context is None else [InputTag("mlflow.data.context", event.context)]
        with self._translated():
            self._client.log_inputs(run_id, [DatasetInput(dataset, tags)])

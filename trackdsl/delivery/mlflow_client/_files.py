"""Artifacts and models, written through MlflowClient."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from pathlib import Path, PurePosixPath
from typing import Any

from trackdsl._core.events import Model
from trackdsl._core.redaction import mask_text
from trackdsl.delivery.mlflow_client._connection import MlflowConnection
from trackdsl.delivery.rest._occupied_paths import wanted_paths, write_files
from trackdsl.delivery.store._sink import RemoteFiles
from trackdsl.errors import logger

#: The address at which a server says what kind of store it has.
_SERVER_INFO = "/api/3.0/mlflow/server-info"


class MlflowFiles(MlflowConnection):
    """Stores files and models."""

    _of_files: bool | None = None

    def files(self, run_id: str) -> RemoteFiles | None:  # noqa: ARG002 - part of the protocol
        """See `Sink`. The files of a database that MLflow writes to are sent one by one."""
        return None

    def upload(self, send: Callable[[], None]) -> Future[None]:
        """See `RemoteFiles`."""
        return self._uploads.submit(send)

    def write_artifact(self, run_id: str, local: Path, path: str, *, directory: bool) -> None:
        """See `Sink`."""
        with self._translated(), self._patiently():
            self._point_mlflow_here()
            write = self._client.log_artifacts if directory else self._client.log_artifact
            folder = path if directory else str(PurePosixPath(path).parent)
            self._write_files(
                run_id,
                lambda: write(run_id, str(local), None if folder in ("", ".") else folder),
                lambda: wanted_paths(local, path, directory=directory),
            )

    def read_artifact(self, run_id: str, path: str) -> bytes | None:
        """See `Sink`."""
        folder = str(PurePosixPath(path).parent)
        with self._translated():
            self._point_mlflow_here()
            files = self._client.list_artifacts(run_id, None if folder == "." else folder)
            if not any(file.path == path and not file.is_dir for file in files):
                return None
            with tempfile.TemporaryDirectory(prefix="trackdsl-") as temporary:
                local = Path(temporary) / "content"
                # The public function shows a progress bar, in whatever terminal delivery has.
                repository = self._client._tracking_client._get_artifact_repo(run_id)
                repository._download_file(path, str(local))  # type: ignore[no-untyped-call]
                return local.read_bytes()

    def list_files(self, run_id: str, most: int) -> list[tuple[str, int | None]]:
        """See `Sink`."""
        files: list[tuple[str, int | None]] = []
        with self._translated():
            self._point_mlflow_here()
            waiting: list[str | None] = [None]
            while waiting and len(files) < most:
                for file in self._client.list_artifacts(run_id, waiting.pop(0)):
                    if file.is_dir:
                        waiting.append(file.path)
                    else:
                        files.append((file.path, file.file_size))
        return files[:most]

    def write_text(self, run_id: str, text: str, path: str) -> None:
        """See `Sink`."""
        with self._translated():
            self._point_mlflow_here()
            self._write_files(run_id, lambda: self._client.log_text(run_id, text, path), lambda: [path])

    def _write_files(self, run_id: str, write: Callable[[], object], wanted: Callable[[], Iterable[str]]) -> None:
        write_files(write, wanted, lambda folder: self._client.list_artifacts(run_id, folder))

    def write_model(self, run_id: str, experiment_id: str, event: Model, local: Path) -> str:
        """See `Sink`."""
        from trackdsl.delivery.mlflow_client._models import log_model

        with self._translated(), self._patiently():
            self._point_mlflow_here()
            return log_model(self._client, self._uri, run_id, experiment_id, event, local)

    def models_of(self, run_id: str) -> list[tuple[str, int]]:
        """See `Sink`."""
        with self._translated():
            outputs = getattr(self._client.get_run(run_id).outputs, "model_outputs", None) or []
            return [(output.model_id, output.step) for output in outputs]

    def find_model(self, key: str, experiment_id: str) -> str | None:
        """See `Sink`."""
        from trackdsl.store_format.logged_models import find_model

        with self._translated():
            model_id = find_model(self._client, [experiment_id], key)
            return model_id or find_model(self._client, self._all_experiments(), key)

    def model_points(self, model_id: str) -> list[tuple[str, str, int, int]]:
        """See `Sink`."""
        with self._translated():
            metrics = self._client.get_logged_model(model_id).metrics or []
            return [(str(point.run_id), point.key, point.step, point.timestamp) for point in metrics]

    def write_model_points(
        self, run_id: str, model_id: str, points: list[tuple[str, float, int, int]], dataset: tuple[str, str] | None
    ) -> None:
        """See `Sink`."""
        from mlflow.entities import Metric

        name, digest = dataset or (None, None)
        metrics = [Metric(key, value, time, step, model_id, name, digest) for key, value, time, step in points]
        with self._translated():
            store: Any = getattr(getattr(self._client, "_tracking_client", None), "store", None)
            append = getattr(store, "_log_model_metric", None)
            if append is None:
                if not self._serves_files(store):
                    self._client.log_batch(run_id, metrics=metrics, synchronous=True)
                return
            # A file store would add each point to the run as well, which already has it.
            experiment_id = self._client.get_logged_model(model_id).experiment_id
            for metric in metrics:
                append(experiment_id, model_id, run_id, metric)

    def _serves_files(self, store: Any) -> bool:
        """Whether the store is a server with a file store, which has no points of models; warns once."""
        if self._of_files is None:
            self._of_files = False
            if hasattr(store, "get_host_creds"):
                from mlflow.utils.rest_utils import http_request

                # An older server does not know this address.
                ask: Any = http_request
                answer = ask(store.get_host_creds(), _SERVER_INFO, "GET", raise_on_status=False)
                self._of_files = answer.status_code == 200 and answer.json().get("store_type") == "FileStore"
            if self._of_files:
                logger.warning(
                    "trackdsl: %s keeps its runs in files, where each metric of a model would appear twice in its "
                    "run: models get no metrics. Start the server with a database.",
                    mask_text(self._uri),
                )
        return self._of_files

    def write_model_input(self, run_id: str, model_id: str) -> None:
        """See `Sink`."""
        from mlflow.entities import LoggedModelInput

        with self._translated():
            self._client.log_inputs(run_id, models=[LoggedModelInput(model_id)])

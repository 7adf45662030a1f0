"""The sink that writes through `mlflow.MlflowClient`: one of the few modules that import MLflow."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

from trackdsl._core.events import Input, Model
from trackdsl._core.redaction import mask_text
from trackdsl._server.http import bound_requests
from trackdsl.delivery import _databases, _sqlite
from trackdsl.delivery._advice import advised
from trackdsl.delivery._blocked import deleted_experiment
from trackdsl.delivery._sink import GONE, UPLOAD_TIMEOUT, Batch, Denied, Refused, RunBlocked, StoredRun, Unavailable
from trackdsl.errors import format_error, logger, reraise_from_signal
from trackdsl.store_format.empty_database import artifact_root
from trackdsl.store_format.sqlite import identity, through_link

#: Error codes that are final; after any other one, the same request may succeed later.
_FINAL = {
    "INVALID_PARAMETER_VALUE",
    "RESOURCE_DOES_NOT_EXIST",
    "RESOURCE_ALREADY_EXISTS",
    "BAD_REQUEST",
    "INVALID_STATE",
    "NOT_FOUND",
    "NOT_IMPLEMENTED",
}
_CHECKED = {"INVALID_PARAMETER_VALUE"}
#: Error codes that concern the whole store: it is unreachable, locked or busy, or does not know the user.
_OF_THE_STORE = {"TEMPORARILY_UNAVAILABLE", "REQUEST_LIMIT_EXCEEDED", "DEADLINE_EXCEEDED", "UNAUTHENTICATED"}
_DATABASES = ("sqlite", "postgresql", "mysql", "mssql")
#: A path that no file system accepts, or that something else has taken.
_FINAL_ERRNO = (errno.ENAMETOOLONG, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.EINVAL)
#: The minimum time to wait for the answer to an upload, in seconds.
_UPLOAD_PATIENCE = 120
_TIMEOUT = "MLFLOW_HTTP_REQUEST_TIMEOUT"
#: MLflow's caches of clients, see mlflow/utils/request_utils.py and mlflow/store/artifact/s3_artifact_repo.py.
_CLIENT_CACHES = (
    ("mlflow.utils.request_utils", "_cached_get_request_session"),
    ("mlflow.store.artifact.s3_artifact_repo", "_cached_get_s3_client"),
)
#: The address at which a server says what kind of store it has.
_SERVER_INFO = "/api/3.0/mlflow/server-info"
#: This tag of an experiment makes MLflow's UI open it on model training instead of generative AI.
_KIND = {"mlflow.experimentKind": "custom_model_development"}
_ID_TAG = "trackdsl.id"
_ORPHAN_TAG = "trackdsl.parent.missing"


class MlflowSink:
    """Delivers to one tracking URI.

    Args:
        uri: the tracking URI.
        cwd: the folder below which a local store puts its artifacts, as in a program that runs there.
        own: whether this process belongs to delivery, so that it may set its working directory and MLflow's global
            tracking URI.

    Raises:
        Unavailable: the store cannot be opened.
    """

    def __init__(self, uri: str, cwd: str, *, own: bool) -> None:
        try:
            self._uri = uri = through_link(uri, cwd)
        except FileExistsError as error:
            raise Unavailable(str(error)) from None
        self._own = own
        self._translated = partial(_translated, uri.startswith("http"), own)
        self._experiments: dict[str, str] = {}
        self._folds: bool | None = None
        self._of_files: bool | None = None
        bound_requests(of_thread=not own)
        if own:
            _forget_clients()
        with _for_now(), self._translated(), _sqlite.alone(uri), _databases.alone(uri), _inside(cwd, own):
            from mlflow import MlflowClient

            gone = own and not os.path.isdir(cwd)
            root = artifact_root(cwd if gone else os.getcwd())
            _sqlite.make_database(uri, root, lambda fresh: MlflowClient(tracking_uri=fresh))
            self._client = MlflowClient(tracking_uri=uri, registry_uri=uri)
            store = self._client._tracking_client.store
            if gone and hasattr(store, "artifact_root_uri"):
                store.artifact_root_uri = root  # Not below the folder of this process, where nobody would look.
        self._file = identity(uri)

    def stale(self) -> bool:
        """See `Sink`. If a SQLite file is removed or replaced, open connections still lead to the old one."""
        if self._file is None or identity(self._uri) == self._file:
            return False
        # MLflow keeps the engine for the whole process.
        self._client._tracking_client.store.engine.dispose()
        return True

    def close(self) -> None:
        """See `Sink`."""
        if not self._own:  # The program itself may be using the store.
            engine = getattr(self._client._tracking_client.store, "engine", None)
            if engine is not None:
                engine.dispose()
        elif self._uri.partition(":")[0].partition("+")[0] in _DATABASES:
            _sqlite.release(self._client)

    def answers(self) -> bool:
        """See `Sink`."""
        try:
            self._client.search_experiments(max_results=1)
        except Exception:
            return False
        return True

    def experiment(self, name: str) -> str:
        """See `Sink`."""
        known = self._experiments.get(name)
        if known is None:
            with self._translated():
                known = self._experiments[name] = self._find_or_make(name)
        return known

    def find_run(self, id_: str, experiment_id: str | None) -> tuple[str, str] | None:
        """See `Sink`."""
        with self._translated():
            experiment_ids = [experiment_id] if experiment_id is not None else self._all_experiments()
            for start in range(0, len(experiment_ids), 100):
                found = self._client.search_runs(
                    experiment_ids[start : start + 100], f"tags.`{_ID_TAG}` = '{id_}'", run_view_type=3, max_results=1
                )
                if found:
                    return found[0].info.run_id, found[0].info.experiment_id
        return None

    def find_runs(self, start: str, experiment_id: str | None) -> list[tuple[str, str, str]]:
        """See `Sink`."""
        found = self._search(_ID_TAG, start, experiment_id)
        return [(run.data.tags[_ID_TAG], run.info.run_id, run.info.experiment_id) for run in found]

    def tagged(self, tag: str, value: str, experiment_id: str) -> list[StoredRun]:
        """See `Sink`."""
        with self._translated():
            return [_found(run) for run in self._pages([experiment_id], f"tags.`{tag}` = '{value}'", run_view_type=1)]

    def find_without_parent(self, prefix: str) -> list[tuple[str, str]]:
        """See `Sink`."""
        return [(run.info.run_id, run.data.tags[_ORPHAN_TAG]) for run in self._search(_ORPHAN_TAG, prefix, None)]

    def link(self, run_id: str, parent_run_id: str) -> None:
        """See `Sink`."""
        with self._translated():
            self._client.set_tag(run_id, "mlflow.parentRunId", parent_run_id)
            with contextlib.suppress(Refused), self._translated():
                self._client.delete_tag(run_id, _ORPHAN_TAG)

    def metric_history(self, run_id: str, key: str, step: int | None = None) -> list[tuple[int, float, int]]:
        """See `Sink`."""
        with self._translated():
            found = self._client.get_metric_history(run_id, key) if step is None else self._at_step(run_id, key, step)
            return [(p.step, p.value, p.timestamp) for p in found if step in (None, p.step)]

    def _at_step(self, run_id: str, key: str, step: int) -> list[Any]:
        """The points of a metric at one step, and others if the store cannot search for a step."""
        store: Any = getattr(getattr(self._client, "_tracking_client", None), "store", None)
        if hasattr(store, "engine") and hasattr(store, "get_metric_history_bulk_interval_from_steps"):
            return list(store.get_metric_history_bulk_interval_from_steps(run_id, key, [step], None))
        return list(self._client.get_metric_history(run_id, key))

    def experiment_name(self, experiment_id: str) -> str:
        """See `Sink`."""
        with self._translated():
            return str(self._client.get_experiment(experiment_id).name)

    def experiment_is_deleted(self, experiment_id: str) -> bool:
        """See `Sink`."""
        with self._translated():
            return bool(self._client.get_experiment(experiment_id).lifecycle_stage != "active")

    def status(self, run_id: str) -> str:
        """See `Sink`."""
        with self._translated():
            try:
                run = self._client.get_run(run_id)
            except Exception as error:
                if _is_final(error, self._uri.startswith("http")):
                    return GONE
                raise
            return GONE if run.info.lifecycle_stage == "deleted" else str(run.info.status)

    def state(self, run_id: str) -> StoredRun | None:
        """See `Sink`."""
        with self._translated():
            try:
                run = self._client.get_run(run_id)
            except Exception as error:
                if _is_final(error, self._uri.startswith("http")):
                    return None
                raise
            return _found(run)

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
            for found in self._client.search_runs([experiment_id], f"tags.`{_ID_TAG}` = '{id_}'"):
                if found.info.run_id != run_id:
                    self._client.delete_run(found.info.run_id)

    def create_run(self, experiment_id: str, name: str, start: int, tags: dict[str, str]) -> str:
        """See `Sink`."""
        with self._translated():
            try:
                run = self._client.create_run(experiment_id, start, tags, name)
            except BaseException:
                # The experiment may have been deleted since: look it up again.
                self._experiments.clear()
                raise
            run_id: str = run.info.run_id
            return run_id

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

    def params(self, run_id: str) -> dict[str, str]:
        """See `Sink`."""
        with self._translated():
            return dict(self._client.get_run(run_id).data.params)

    def tags(self, run_id: str) -> dict[str, str]:
        """See `Sink`."""
        with self._translated():
            return dict(self._client.get_run(run_id).data.tags)

    def keys(self, run_id: str) -> dict[str, list[str]]:
        """See `Sink`."""
        with self._translated():
            data = self._client.get_run(run_id).data
            return {"params": list(data.params), "tags": list(data.tags), "metrics": list(data.metrics)}

    def folds_keys(self) -> bool:
        """See `Sink`. A server does not say what database it has, but it finds experiments the way it finds keys."""
        if self._folds is None:
            with self._translated():
                name = next(iter(self._experiments), "Default")
                found = self._client.get_experiment_by_name(name.swapcase())
                self._folds = found is not None and found.name != name.swapcase()
        return self._folds

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

    def write_artifact(self, run_id: str, local: Path, path: str, *, directory: bool) -> None:
        """See `Sink`."""
        with self._translated(), self._patiently():
            self._point_mlflow_here()
            if directory:
                self._client.log_artifacts(run_id, str(local), path or None)
            else:
                folder = str(PurePosixPath(path).parent)
                self._client.log_artifact(run_id, str(local), None if folder == "." else folder)

    def read_artifact(self, run_id: str, path: str) -> bytes | None:
        """See `Sink`."""
        folder = str(PurePosixPath(path).parent)
        with self._translated():
            self._point_mlflow_here()
            found = self._client.list_artifacts(run_id, None if folder == "." else folder)
            if not any(file.path == path and not file.is_dir for file in found):
                return None
            with tempfile.TemporaryDirectory(prefix="trackdsl-") as temporary:
                local = Path(temporary) / "content"
                # The public function shows a progress bar, in whatever terminal delivery has.
                repository = self._client._tracking_client._get_artifact_repo(run_id)
                repository._download_file(path, str(local))  # type: ignore[no-untyped-call]
                return local.read_bytes()

    def write_model(self, run_id: str, experiment_id: str, event: Model, local: Path) -> str:
        """See `Sink`."""
        from trackdsl.delivery._models import log_model

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
            found = find_model(self._client, [experiment_id], key)
            return found or find_model(self._client, self._all_experiments(), key)

    def model_points(self, model_id: str) -> list[tuple[str, str, int, int]]:
        """See `Sink`."""
        with self._translated():
            found = self._client.get_logged_model(model_id).metrics or []
            return [(str(point.run_id), point.key, point.step, point.timestamp) for point in found]

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

    def write_input(self, run_id: str, event: Input) -> None:
        """See `Sink`."""
        from mlflow.entities import Dataset, DatasetInput, InputTag

        dataset = Dataset(
            event.name, event.digest, event.source_type, event.source, event.schema or None, event.profile or None
        )
        tags = [] if event.context is None else [InputTag("mlflow.data.context", event.context)]
        with self._translated():
            self._client.log_inputs(run_id, [DatasetInput(dataset, tags)])

    def write_text(self, run_id: str, text: str, path: str) -> None:
        """See `Sink`."""
        with self._translated():
            self._point_mlflow_here()
            self._client.log_text(run_id, text, path)

    @contextlib.contextmanager
    def _patiently(self) -> Iterator[None]:
        """Wait longer for an answer: a server may copy a file to its store before it answers."""
        before = os.environ.get(_TIMEOUT)
        if not self._own or before is None:
            yield
            return
        wanted = os.environ.get(UPLOAD_TIMEOUT, "")
        os.environ[_TIMEOUT] = str(max(_UPLOAD_PATIENCE, int(wanted) if wanted.isdecimal() else 0))
        try:
            yield
        finally:
            os.environ[_TIMEOUT] = before

    def _point_mlflow_here(self) -> None:
        # MLflow 3.1 asks the global tracking URI, not that of its client, where a server's artifacts go.
        if self._own:
            import mlflow

            mlflow.set_tracking_uri(self._uri)

    def _search(self, tag: str, start: str, experiment_id: str | None) -> list[Any]:
        """Runs with a tag that begins with `start`; MLflow cannot search for a list of values."""
        found: list[Any] = []
        with self._translated():
            experiment_ids = [experiment_id] if experiment_id is not None else self._all_experiments()
            for first in range(0, len(experiment_ids), 100):
                found += self._pages(
                    experiment_ids[first : first + 100], f"tags.`{tag}` LIKE '{start}%'", run_view_type=3
                )
        return found

    def _pages(self, experiment_ids: list[str], wanted: str, *, run_view_type: int) -> Iterator[Any]:
        token = None
        while True:
            page = self._client.search_runs(experiment_ids, wanted, run_view_type=run_view_type, page_token=token)
            yield from page
            token = page.token
            if not token:
                return

    def _all_experiments(self) -> list[str]:
        found: list[str] = []
        token = None
        while True:
            page = self._client.search_experiments(view_type=3, max_results=1000, page_token=token)
            found += [experiment.experiment_id for experiment in page]
            token = page.token
            if not token:
                return found

    def _find_or_make(self, name: str) -> str:
        found = self._client.get_experiment_by_name(name)
        if found is None:
            try:
                return str(self._client.create_experiment(name, tags=_KIND))
            except Exception:
                # Another process may have created it in between; if not, the error is raised.
                found = self._client.get_experiment_by_name(name)
                if found is None:
                    raise
        if found.lifecycle_stage != "active":
            raise RunBlocked(deleted_experiment(repr(name), found.experiment_id), experiment=True)
        return str(found.experiment_id)


def _found(run: Any) -> StoredRun:
    info, data = run.info, run.data
    return StoredRun(
        info.run_id,
        str(info.status),
        int(info.end_time or 0),
        dict(data.tags),
        dict(data.params),
        str(info.experiment_id),
        deleted=info.lifecycle_stage == "deleted",
    )


@contextlib.contextmanager
def _for_now() -> Iterator[None]:
    """The error for a store that cannot be opened now. The cause may be fixed, so nothing is left out for good."""
    try:
        yield
    except Refused as error:
        raise Unavailable(advised(error, str(error), remote=False)) from None


@contextlib.contextmanager
def _translated(remote: bool, own: bool = False) -> Iterator[None]:
    """Turn MLflow's exceptions into `Unavailable` or `Refused`.

    Args:
        remote: whether the store is behind a tracking server.
        own: whether this process belongs to delivery, and may wait longer for the next answers.
    """
    try:
        yield
    except (Unavailable, Refused):
        raise
    except Exception as error:
        reraise_from_signal(error)
        text = mask_text(format_error(error)).strip()[:2000]
        if _is_final(error, remote):
            raise Refused(text) from None
        text = advised(error, text, remote=remote)
        if _is_denied(error):
            raise Denied(text) from None
        late = remote and "timed out" in text.lower()
        if late and own:
            _wait_longer()
        raise Unavailable(text, late=late, answered=not late and _is_of_the_request(error)) from None


def _wait_longer() -> None:
    """Wait twice as long for the next answers, up to the timeout of MLflow's client: the server may be slow."""
    seconds = int(os.environ.get(_TIMEOUT, "0"))
    wanted = os.environ.get(UPLOAD_TIMEOUT, "")
    longest = max(_UPLOAD_PATIENCE, int(wanted) if wanted.isdecimal() else 0)
    if seconds:
        os.environ[_TIMEOUT] = str(min(2 * seconds, longest))


def _forget_clients() -> None:
    """Make MLflow create its clients of servers and of S3 again: they keep the credentials of their creation."""
    for module, name in _CLIENT_CACHES:
        cached = getattr(sys.modules.get(module), name, None)
        if cached is not None:
            cached.cache_clear()


def _is_final(error: Exception, remote: bool) -> bool:
    """Whether another attempt would have the same result."""
    from mlflow.exceptions import MlflowException, RestException

    if isinstance(error, RestException):
        return error.error_code in _FINAL
    if isinstance(error, MlflowException):
        # From a server, these may be pages of a proxy, with a code that MLflow derived from their status. The client's
        # own checks use only this code.
        return error.error_code in (_CHECKED if remote else _FINAL)
    if isinstance(error, OSError):
        return error.errno in _FINAL_ERRNO
    return isinstance(error, (OverflowError, TypeError, ValueError))


def _is_denied(error: Exception) -> bool:
    """Whether permission is missing, perhaps only for this request."""
    from mlflow.exceptions import MlflowException

    if isinstance(error, MlflowException):
        return str(error.error_code) == "PERMISSION_DENIED"
    return isinstance(error, PermissionError)


def _is_of_the_request(error: Exception) -> bool:
    """Whether only this request may fail, while the store accepts others."""
    from mlflow.exceptions import MlflowException

    if isinstance(error, MlflowException):
        return error.error_code not in _OF_THE_STORE
    return not isinstance(error, OSError)


@contextlib.contextmanager
def _inside(cwd: str, move: bool) -> Iterator[None]:
    """Change to the program's working directory, which MLflow uses for local artifacts."""
    if not move or not os.path.isdir(cwd):
        yield
        return
    before = os.getcwd()
    os.chdir(cwd)
    try:
        yield
    finally:
        os.chdir(before)

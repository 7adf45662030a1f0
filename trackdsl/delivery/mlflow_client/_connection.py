"""An open store of MLflow's client."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections.abc import Iterator
from functools import partial

from trackdsl._server.http import bound_requests
from trackdsl.delivery.mlflow_client import _creation_lock, _sqlite_creation
from trackdsl.delivery.mlflow_client._errors import for_now, translated
from trackdsl.delivery.rest._concurrent_requests import ConcurrentRequests
from trackdsl.delivery.store._answers import TIMEOUT, upload_patience
from trackdsl.delivery.store._errors import Unavailable
from trackdsl.store_format.empty_database import artifact_root
from trackdsl.store_format.sqlite import identity, through_link

DATABASES = ("sqlite", "postgresql", "mysql", "mssql")
#: MLflow's caches of clients, see mlflow/utils/request_utils.py and mlflow/store/artifact/s3_artifact_repo.py.
_CLIENT_CACHES = (
    ("mlflow.utils.request_utils", "_cached_get_request_session"),
    ("mlflow.store.artifact.s3_artifact_repo", "_cached_get_s3_client"),
)


class MlflowConnection:
    """A tracking URI and the client that is open for it.

    Args:
        uri: the tracking URI.
        cwd: the folder below which a local store puts its artifacts, as in a program that runs there.
        own: whether this process belongs to delivery, so that it may set its working directory and MLflow's global
            tracking URI.

    Raises:
        Unavailable: the store cannot be opened.
    """

    collects = False

    def __init__(self, uri: str, cwd: str, *, own: bool) -> None:
        try:
            self._uri = uri = through_link(uri, cwd)
        except FileExistsError as error:
            raise Unavailable(str(error)) from None
        self._own = own
        self._translated = partial(translated, uri.startswith("http"), own)
        self._uploads = ConcurrentRequests(partial(bound_requests, of_thread=not own))
        self._waiting_longer = 0
        self._shorter = ""
        self._lock = threading.Lock()
        self._experiments: dict[str, str] = {}
        bound_requests(of_thread=not own)
        if own:
            _forget_clients()
        with (
            for_now(),
            self._translated(),
            _sqlite_creation.alone(uri),
            _creation_lock.alone(uri),
            _inside(cwd, own and not uri.startswith("http")),
        ):
            from mlflow import MlflowClient

            gone = own and not os.path.isdir(cwd)
            root = artifact_root(cwd if gone else os.getcwd())
            _sqlite_creation.make_database(uri, root, lambda fresh: MlflowClient(tracking_uri=fresh))
            self._client = MlflowClient(tracking_uri=uri, registry_uri=uri)
            store = self._client._tracking_client.store
            if gone and hasattr(store, "artifact_root_uri"):
                store.artifact_root_uri = root  # Not in this process's working directory, which is not the user's.
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
        self._uploads.close()
        if not self._own:  # The program itself may be using the store.
            engine = getattr(self._client._tracking_client.store, "engine", None)
            if engine is not None:
                engine.dispose()
        elif self._uri.partition(":")[0].partition("+")[0] in DATABASES:
            _sqlite_creation.release(self._client)

    @contextlib.contextmanager
    def collecting(self) -> Iterator[None]:
        """See `Sink`: everything is written at once."""
        yield

    def commit(self) -> None:
        """See `Sink`."""

    def answers(self) -> bool:
        """See `Sink`."""
        try:
            self._client.search_experiments(max_results=1)
        except Exception:
            return False
        return True

    def _all_experiments(self) -> list[str]:
        ids: list[str] = []
        token = None
        while True:
            page = self._client.search_experiments(view_type=3, max_results=1000, page_token=token)
            ids += [experiment.experiment_id for experiment in page]
            token = page.token
            if not token:
                return ids

    def _point_mlflow_here(self) -> None:
        # MLflow 3.1 asks the global tracking URI, not that of its client, where a server's artifacts go.
        if self._own:
            import mlflow

            mlflow.set_tracking_uri(self._uri)

    @contextlib.contextmanager
    def _patiently(self) -> Iterator[None]:
        """Wait longer for an answer: a server may copy a file to its store before it answers."""
        if not self._own or TIMEOUT not in os.environ:
            yield
            return
        with self._lock:
            if not self._waiting_longer:
                self._shorter = os.environ[TIMEOUT]
                os.environ[TIMEOUT] = str(upload_patience())
            self._waiting_longer += 1
        try:
            yield
        finally:
            with self._lock:
                self._waiting_longer -= 1
                if not self._waiting_longer:
                    os.environ[TIMEOUT] = self._shorter


def _forget_clients() -> None:
    """Make MLflow create its clients of servers and of S3 again: they keep the credentials of their creation."""
    for module, name in _CLIENT_CACHES:
        cached = getattr(sys.modules.get(module), name, None)
        if cached is not None:
            cached.cache_clear()


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

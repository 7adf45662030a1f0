"""The sink of a tracking server without change sets: requests of MLflow's REST API, for several runs at once."""

from __future__ import annotations

import contextlib
import itertools
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from functools import partial
from pathlib import Path

from trackdsl._core.events import Input, Model
from trackdsl._server.http import bound_requests
from trackdsl.delivery.rest import _run_requests
from trackdsl.delivery.rest._artifacts import LARGEST_READ, ServerArtifacts, is_sent_at_once, root_of
from trackdsl.delivery.rest._concurrency_limit import MOST
from trackdsl.delivery.rest._concurrent_requests import ConcurrentRequests
from trackdsl.delivery.rest._requests import Rest
from trackdsl.delivery.rest._runs import ServerRuns
from trackdsl.delivery.store._errors import Refused, Unavailable
from trackdsl.delivery.store._experiments import Experiments
from trackdsl.delivery.store._local_artifacts import local_folder
from trackdsl.delivery.store._partial_sink import PartialSink
from trackdsl.delivery.store._sink import Batch, ClientSink, NewRun, RemoteFiles, StoredRun, Times, TreeRun
from trackdsl.store_format.tags import ID_TAG, MISSING_PARENT_TAG, PARENT_TAG

#: So many artifact URIs are remembered.
_MOST_REMEMBERED = 1000


class RestSink(PartialSink):
    """Writes runs and files to a server.

    Args:
        rest: requests to the server.
        open_other: see `PartialSink`.
        own: whether this process belongs to delivery.
    """

    own_ids = False
    collects = True

    def __init__(self, rest: Rest, open_other: Callable[[], ClientSink], *, own: bool) -> None:
        super().__init__(open_other)
        self._rest = rest
        self._runs = ServerRuns(rest)
        self._experiments = Experiments(self._runs)
        self._artifacts = ServerArtifacts(rest)
        prepare = partial(bound_requests, of_thread=not own)  # For what MLflow's client sends.
        self._requests = ConcurrentRequests(prepare)
        #: Files have threads of their own: metrics do not wait for them.
        self._uploads = ConcurrentRequests(prepare)
        self._collecting = False
        #: Those of the latest runs. They never change.
        self._artifact_uris: dict[str, str] = {}
        self._lock = threading.Lock()

    def stale(self) -> bool:
        """See `Sink`."""
        return False

    def close(self) -> None:
        """See `Sink`."""
        self._requests.close()
        self._uploads.close()
        self._rest.close()
        super().close()

    def answers(self) -> bool:
        """See `Sink`."""
        return self._runs.answers()

    @contextlib.contextmanager
    def collecting(self) -> Iterator[None]:
        """See `Sink`. Requests for different runs are sent concurrently."""
        self._collecting = True
        try:
            yield
        except BaseException:
            with contextlib.suppress(Unavailable):  # The first error counts.
                self._requests.finish()
            raise
        else:
            self._requests.finish()
        finally:
            self._collecting = False

    def commit(self) -> None:
        """See `Sink`."""
        self._requests.finish()

    # What is asked.

    def experiment(self, name: str) -> str:
        """See `Sink`."""
        return self._experiments.id_of(name)

    def find_run(self, id_: str, experiment_id: str | None) -> tuple[str, str] | None:
        """See `Sink`."""
        self._requests.finish()
        return self._find_run(id_, experiment_id)

    def _find_run(self, id_: str, experiment_id: str | None) -> tuple[str, str] | None:
        found = self._runs.find_runs(id_, experiment_id)
        return next(((run_id, experiment) for _, run_id, experiment in found), None)

    def find_runs(self, start: str, experiment_id: str | None) -> list[tuple[str, str, str]]:
        """See `Sink`."""
        self._requests.finish()
        return self._runs.find_runs(start, experiment_id)

    def tagged(self, tag: str, value: str, experiment_id: str) -> list[StoredRun]:
        """See `Sink`."""
        self._requests.finish()
        return self._runs.tagged(tag, value, experiment_id)

    def newest(self, experiment_id: str, tag: str, value: str | None, began: Times, most: int) -> list[TreeRun]:
        """See `Sink`."""
        self._requests.finish()
        return self._runs.newest(experiment_id, tag, value, began, most)

    def tree(self, run_id: str, most: int) -> list[TreeRun]:
        """See `Sink`."""
        self._requests.finish()
        return self._runs.tree(run_id, most)

    def find_without_parent(self, prefix: str) -> list[tuple[str, str]]:
        """See `Sink`."""
        self._requests.finish()
        return self._runs.find_without_parent(prefix)

    def metric_history(self, run_id: str, key: str, step: int | None = None) -> list[tuple[int, float, int]]:
        """See `Sink`."""
        self._requests.settle(run_id)
        return self._runs.metric_history(run_id, key, step)

    def points(self, run_id: str, key: str, most: int) -> list[tuple[int, float, int]]:
        """See `Sink`."""
        self._requests.settle(run_id)
        return self._runs.points(run_id, key, most)

    def experiment_name(self, experiment_id: str) -> str:
        """See `Sink`."""
        return self._runs.experiment(experiment_id)[0]

    def experiment_is_deleted(self, experiment_id: str) -> bool:
        """See `Sink`."""
        return self._runs.experiment(experiment_id)[1] == "deleted"

    def status(self, run_id: str) -> str:
        """See `Sink`."""
        self._requests.settle(run_id)
        return self._runs.status(run_id)

    def state(self, run_id: str) -> StoredRun | None:
        """See `Sink`."""
        self._requests.settle(run_id)
        return self._runs.state(run_id)

    def params(self, run_id: str) -> dict[str, str]:
        """See `Sink`."""
        self._requests.settle(run_id)
        return self._runs.params(run_id)

    def tags(self, run_id: str) -> dict[str, str]:
        """See `Sink`."""
        self._requests.settle(run_id)
        return self._runs.tags(run_id)

    def keys(self, run_id: str) -> dict[str, list[str]]:
        """See `Sink`."""
        self._requests.settle(run_id)
        return self._runs.keys(run_id)

    def folds_keys(self) -> bool:
        """See `Sink`. A server does not say what database it has, but it finds experiments the way it finds keys."""
        return self._experiments.folds_case()

    def models_of(self, run_id: str) -> list[tuple[str, int]]:
        """See `Sink`."""
        self._requests.settle(run_id)
        return self._runs.models_of(run_id)

    # What is written.

    def create_run(self, experiment_id: str, name: str, start: int, tags: dict[str, str]) -> str:
        """See `Sink`."""
        try:
            made = _run_requests.create_run(self._rest, experiment_id, name, start, tags)
        except BaseException:
            self._experiments.forget()  # One may have been deleted since.
            raise
        if made.artifact_uri:
            self._remember(made.run_id, made.artifact_uri)
        return made.run_id

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
        match = self._find_run(run.id_.hex(), run.experiment_id) if next(attempts) else None
        return match[0] if match is not None else self.create_run(run.experiment_id, run.name, run.start, tags)

    def write(self, run_id: str, batch: Batch) -> None:
        """See `Sink`."""
        self._send(run_id, partial(_run_requests.write, self._rest, run_id, batch))

    def end_run(self, run_id: str, status: str, end: int) -> None:
        """See `Sink`."""
        self._send(run_id, partial(_run_requests.end_run, self._rest, run_id, status, end))

    def write_input(self, run_id: str, event: Input) -> None:
        """See `Sink`."""
        self._send(run_id, partial(_run_requests.write_input, self._rest, run_id, event))

    def reopen_run(self, run_id: str) -> None:
        """See `Sink`. The end time stays, as when MLflow resumes a run."""
        self._requests.settle(run_id)
        self._runs.reopen_run(run_id)

    def delete_tags(self, run_id: str, names: list[str]) -> None:
        """See `Sink`."""
        self._requests.settle(run_id)
        for name in names:
            self._runs.delete_tag(run_id, name)

    def link(self, run_id: str, parent_run_id: str) -> None:
        """See `Sink`."""
        self._requests.settle(run_id)
        _run_requests.set_tag(self._rest, run_id, PARENT_TAG, parent_run_id)
        self._runs.delete_tag(run_id, MISSING_PARENT_TAG)

    def remove_others(self, id_: str, experiment_id: str, run_id: str) -> None:
        """See `Sink`."""
        for run in self._runs.tagged(ID_TAG, id_, experiment_id):
            if run.run_id != run_id:
                self._runs.delete_run(run.run_id)

    def _send(self, run_id: str, request: Callable[[], None]) -> None:
        """Send a request for a run: at once, or while others are sent."""
        if self._collecting:
            self._requests.send(run_id, request)
        else:
            request()

    # Files.

    def files(self, run_id: str) -> RemoteFiles | None:
        """See `Sink`."""
        return self if self._folder_of(run_id) is None else None

    def upload(self, send: Callable[[], None]) -> Future[None]:
        """See `RemoteFiles`."""
        return self._uploads.submit(send)

    def write_artifact(self, run_id: str, local: Path, path: str, *, directory: bool) -> None:
        """See `Sink`."""
        root = root_of(self._artifact_uri(run_id))
        if root is not None and is_sent_at_once(local, directory=directory):
            self._artifacts.write(root, local, path, directory=directory)
        else:
            super().write_artifact(run_id, local, path, directory=directory)

    def write_text(self, run_id: str, text: str, path: str) -> None:
        """See `Sink`."""
        root = root_of(self._artifact_uri(run_id))
        if root is not None:
            self._artifacts.write_text(root, text, path)
        else:
            super().write_text(run_id, text, path)

    def read_artifact(self, run_id: str, path: str) -> bytes | None:
        """See `Sink`."""
        root = root_of(self._artifact_uri(run_id))
        if root is None:
            return super().read_artifact(run_id, path)
        file = self._artifacts.find(root, path)
        if file is None:
            return None
        if (file.file_size or 0) > LARGEST_READ:
            return super().read_artifact(run_id, path)
        return self._artifacts.content(root, path)

    def list_files(self, run_id: str, most: int) -> list[tuple[str, int | None]]:
        """See `Sink`."""
        root = root_of(self._artifact_uri(run_id))
        return self._artifacts.files(root, most) if root is not None else super().list_files(run_id, most)

    def _artifact_uri(self, run_id: str) -> str:
        uri = self._artifact_uris.get(run_id)
        if uri is None:
            uri = self._runs.artifact_uri(run_id)
            self._remember(run_id, uri)
        return uri

    def _remember(self, run_id: str, artifact_uri: str) -> None:
        with self._lock:
            self._artifact_uris[run_id] = artifact_uri
            if len(self._artifact_uris) > _MOST_REMEMBERED:
                del self._artifact_uris[next(iter(self._artifact_uris))]

    def _folder_of(self, run_id: str) -> Path | None:
        return local_folder(self._artifact_uri(run_id))

    # Models get what their runs have.

    def write_model(self, run_id: str, experiment_id: str, event: Model, local: Path) -> str:
        """See `Sink`."""
        self._requests.settle(run_id)
        return super().write_model(run_id, experiment_id, event, local)

    def write_model_points(
        self, run_id: str, model_id: str, points: list[tuple[str, float, int, int]], dataset: tuple[str, str] | None
    ) -> None:
        """See `Sink`."""
        self._requests.settle(run_id)
        super().write_model_points(run_id, model_id, points, dataset)

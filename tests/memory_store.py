"""A store in memory that keeps to the contract of `delivery.store._sink.Sink`, and fails where the test wants it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trackdsl._core import events
from trackdsl.delivery.process._worker import Worker
from trackdsl.delivery.store._errors import Refused, RefusedTogether, RunBlocked, Unavailable
from trackdsl.delivery.store._sink import GONE, Batch, NewRun, StoredRun

#: What a store with our ids collects; and what it does only after it has written all that was collected.
_COLLECTED = ("create_run", "end_run", "write", "write_input")
_AT_ONCE = (
    "delete_tags",
    "find_runs",
    "find_without_parent",
    "link",
    "remove_others",
    "reopen_run",
    "tagged",
    "write_model",
    "write_model_input",
    "write_model_points",
)


class Crash(BaseException):
    """The delivery process is gone at this very call: nothing of it may run on."""


@dataclass
class Held:
    """A run as the store holds it; `points` are key, value, time and step, of which equal ones are one."""

    experiment: str
    name: str
    tags: dict[str, str]
    params: dict[str, str] = field(default_factory=dict)
    points: set[tuple[str, float | str, int, int]] = field(default_factory=set)
    files: dict[str, str] = field(default_factory=dict)
    inputs: set[tuple[str, str]] = field(default_factory=set)
    models: dict[str, int] = field(default_factory=dict)
    used_models: set[str] = field(default_factory=set)
    status: str = "RUNNING"
    end: int = 0
    deleted: bool = False


class MemoryStore:
    """Writes are idempotent, except `create_run`; what MLflow refuses is refused.

    With `own_ids`, runs get our ids, and what is collected is there completely or not at all; files are there at once.

    Attributes:
        side_by_side: whether runs are created early, several at once.
        own_ids: the kind of all stores that are made, see `Sink`; a test changes it by `each_kind_of_store`.
        faults: what to raise at the n-th call, and whether the call has done its work by then.
        fired: for each fault that was raised, how many runs there were.
        deleted: ids of experiments that are deleted; an experiment of the name n has the id `e-n`.
        before: called with the method's name and arguments before anything is done; may raise.
    """

    own_ids = False
    side_by_side = False

    def __init__(self, faults: dict[int, tuple[Callable[[str], BaseException], bool]] | None = None) -> None:
        #: What is there for certain, while writes are collected.
        self._kept: dict[str, Held] | None = None
        self._files: dict[str, dict[str, str]] = {}
        self.runs: dict[str, Held] = {}
        #: By model: run, key, step and time, with the value and the dataset of the point.
        self.models: dict[str, dict[tuple[str, str, int, int], tuple[float, tuple[str, str] | None]]] = {}
        self._keys: dict[str, str] = {}
        self.calls = 0
        self.faults = faults or {}
        self.fired: list[int] = []
        self.before: Callable[..., None] = lambda *_: None
        self.deleted: set[str] = set()

    def open(self, _uri: str = "", _cwd: str = "") -> MemoryStore:
        """For a worker, as its way to open the sink."""
        with self._call("open"):
            return self

    @property
    def collects(self) -> bool:
        """See `Sink`."""
        return self.own_ids or self.side_by_side

    @contextmanager
    def collecting(self) -> Iterator[None]:
        """See `Sink`."""
        outermost = self.own_ids and self._kept is None
        if outermost:
            self._kept = deepcopy(self.runs)
        try:
            yield
            self.commit()
        finally:
            if outermost and self._kept is not None:
                self._restore(self._kept)
                self._kept = None

    def commit(self) -> None:
        """See `Sink`."""
        if self._kept is not None:
            with self._call("commit"):
                self._kept = deepcopy(self.runs)

    def stale(self) -> bool:
        """See `Sink`."""
        return False

    def close(self) -> None:
        """See `Sink`."""

    def answers(self) -> bool:
        try:
            with self._call("answers"):
                return True
        except Exception:
            return False

    def experiment(self, name: str) -> str:
        with self._call("experiment", name):
            if f"e-{name}" in self.deleted:
                raise RunBlocked(f"experiment {name} is deleted", experiment=True)
            return f"e-{name}"

    def find_run(self, id_: str, experiment_id: str | None) -> tuple[str, str] | None:
        with self._call("find_run", id_):
            for run_id, run in self.runs.items():
                if run.tags.get("trackdsl.id") == id_ and experiment_id in (None, run.experiment):
                    return run_id, run.experiment
            return None

    def find_runs(self, start: str, experiment_id: str | None) -> list[tuple[str, str, str]]:
        with self._call("find_runs", start):
            ids = {run_id: run.tags.get("trackdsl.id", "") for run_id, run in self.runs.items()}
            return [
                (id_, run_id, self.runs[run_id].experiment)
                for run_id, id_ in ids.items()
                if id_.startswith(start) and (experiment_id is None or self.runs[run_id].experiment == experiment_id)
            ]

    def tagged(self, tag: str, value: str, experiment_id: str) -> list[StoredRun]:
        with self._call("tagged", tag, value):
            return [
                self._found(run_id)
                for run_id, run in self.runs.items()
                if run.tags.get(tag) == value and run.experiment == experiment_id not in self.deleted
            ]

    def find_without_parent(self, prefix: str) -> list[tuple[str, str]]:
        with self._call("find_without_parent", prefix):
            active = {run_id: run for run_id, run in self.runs.items() if run.experiment not in self.deleted}
            missing = {run_id: run.tags.get("trackdsl.parent.missing", "") for run_id, run in active.items()}
            return [(run_id, id_) for run_id, id_ in missing.items() if id_ and id_.startswith(prefix)]

    def link(self, run_id: str, parent_run_id: str) -> None:
        with self._call("link", run_id, parent_run_id):
            self._check_active(self.runs[run_id].experiment)
            self.runs[run_id].tags["mlflow.parentRunId"] = parent_run_id
            self.runs[run_id].tags.pop("trackdsl.parent.missing", None)

    def metric_history(self, run_id: str, key: str, step: int | None = None) -> list[tuple[int, float, int]]:
        with self._call("metric_history", run_id, key):
            points = (point for point in self.runs[run_id].points if point[0] == key and step in (None, point[3]))
            return [(step, float(value), time) for _, value, time, step in points]

    def create_run(self, experiment_id: str, name: str, start: int, tags: dict[str, str]) -> str:
        with self._call("create_run", name, tags):
            self._check_active(experiment_id)
            if tags.get("mlflow.runName", name) != name:
                raise Refused("both a name and another mlflow.runName")
            run_id = tags["trackdsl.id"] if self.own_ids and "trackdsl.id" in tags else f"r{self.calls}"
            held = self.runs.setdefault(run_id, Held(experiment_id, name, {}))
            held.tags.update(tags)
            held.files = self._files.setdefault(run_id, held.files)
            return run_id

    def create_runs(self, runs: list[NewRun], created: Callable[[NewRun], None]) -> None:
        """See `CreatesConcurrently`."""
        for run in runs:
            parent = run.parent.run_id if isinstance(run.parent, NewRun) else run.parent
            if parent == "":
                continue
            run.sent = True
            links = {} if parent is None else {"mlflow.parentRunId": parent}
            try:
                run.run_id = self.create_run(
                    run.experiment_id, run.name, run.start, {**run.tags, **links, "trackdsl.id": run.id_.hex()}
                )
            except Refused:
                continue
            except Unavailable as error:
                run.late = error.late
                raise
            created(run)

    def experiment_name(self, experiment_id: str) -> str:
        with self._call("experiment_name", experiment_id):
            return experiment_id.removeprefix("e-")

    def experiment_is_deleted(self, experiment_id: str) -> bool:
        with self._call("experiment_is_deleted", experiment_id):
            return experiment_id in self.deleted

    def status(self, run_id: str) -> str:
        with self._call("status", run_id):
            if run_id in self.runs and self.runs[run_id].experiment in self.deleted:
                return GONE
            return self.runs[run_id].status if run_id in self.runs else GONE

    def state(self, run_id: str) -> StoredRun | None:
        with self._call("state", run_id):
            return self._found(run_id) if run_id in self.runs else None

    def reopen_run(self, run_id: str) -> None:
        with self._call("reopen_run", run_id):
            self._check_active(self.runs[run_id].experiment)
            self.runs[run_id].status = "RUNNING"

    def delete_tags(self, run_id: str, names: list[str]) -> None:
        with self._call("delete_tags", run_id):
            for name in names:
                self.runs[run_id].tags.pop(name, None)

    def remove_others(self, id_: str, experiment_id: str, run_id: str) -> None:
        with self._call("remove_others", id_):
            for other, run in list(self.runs.items()):
                if other != run_id and (run.tags.get("trackdsl.id"), run.experiment) == (id_, experiment_id):
                    del self.runs[other]

    def write(self, run_id: str, batch: Batch) -> None:
        with self._call("write", run_id, batch):
            run = self.runs[run_id]
            self._check_active(run.experiment)
            if any(run.params.get(key, value) != value for key, value in batch.params.items()):
                raise Refused("a parameter has another value already")
            run.params.update(batch.params)
            run.tags.update(batch.tags)
            run.points |= {(key, value if value == value else "nan", *rest) for key, value, *rest in batch.metrics}

    def params(self, run_id: str) -> dict[str, str]:
        with self._call("params", run_id):
            return dict(self.runs[run_id].params)

    def tags(self, run_id: str) -> dict[str, str]:
        with self._call("tags", run_id):
            return dict(self.runs[run_id].tags)

    def keys(self, run_id: str) -> dict[str, list[str]]:
        with self._call("keys", run_id):
            run = self.runs[run_id]
            return {"params": [*run.params], "tags": [*run.tags], "metrics": [*{point[0] for point in run.points}]}

    def folds_keys(self) -> bool:
        return False

    def end_run(self, run_id: str, status: str, end: int) -> None:
        with self._call("end_run", run_id, status):
            self._check_active(self.runs[run_id].experiment)
            self.runs[run_id].status, self.runs[run_id].end = status, end

    def files(self, run_id: str) -> None:
        """See `Sink`."""

    def write_artifact(self, run_id: str, local: Path, path: str, *, directory: bool) -> None:
        with self._call("write_artifact", run_id, path):
            for file in sorted(local.rglob("*")) if directory else [local]:
                if file.is_file():
                    inside = str(file.relative_to(local)) if directory else ""
                    self.runs[run_id].files["/".join(filter(None, [path, inside]))] = file.read_text()

    def read_artifact(self, run_id: str, path: str) -> bytes | None:
        with self._call("read_artifact", run_id, path):
            found = self.runs[run_id].files.get(path)
            return None if found is None else found.encode()

    def write_model(self, run_id: str, experiment_id: str, event: events.Model, local: Path) -> str:
        with self._call("write_model", run_id, event.name):
            model_id = self._keys.setdefault(events.model_key(event), f"m-{len(self._keys)}")
            self.models.setdefault(model_id, {})
            self.runs[run_id].models[model_id] = event.step
            for path in sorted(local.rglob("*")):
                if path.is_file():
                    self.runs[run_id].files[f"{event.name}/{path.relative_to(local)}"] = path.read_text(
                        errors="replace"
                    )

            return model_id

    def models_of(self, run_id: str) -> list[tuple[str, int]]:
        with self._call("models_of", run_id):
            return list(self.runs[run_id].models.items())

    def find_model(self, key: str, experiment_id: str) -> str | None:
        with self._call("find_model", key):
            return self._keys.get(key)

    def model_points(self, model_id: str) -> list[tuple[str, str, int, int]]:
        with self._call("model_points", model_id):
            if model_id not in self.models:
                raise Refused(f"there is no model {model_id}")
            return list(self.models[model_id])

    def write_model_points(
        self, run_id: str, model_id: str, points: list[tuple[str, float, int, int]], dataset: tuple[str, str] | None
    ) -> None:
        with self._call("write_model_points", run_id, model_id, points):
            for key, value, time, step in points:
                if (run_id, key, step, time) in self.models[model_id]:
                    raise Unavailable("a model has one point of a metric, step and millisecond", answered=True)
                assert any(point[0] == key and point[2:] == (time, step) for point in self.runs[run_id].points)
                self.models[model_id][run_id, key, step, time] = value, dataset

    def write_model_input(self, run_id: str, model_id: str) -> None:
        with self._call("write_model_input", run_id, model_id):
            self.runs[run_id].used_models.add(model_id)

    def write_input(self, run_id: str, event: events.Input) -> None:
        with self._call("write_input", run_id, event.name):
            self.runs[run_id].inputs.add((event.name, event.digest))

    def write_text(self, run_id: str, text: str, path: str) -> None:
        with self._call("write_text", run_id, path):
            self.runs[run_id].files[path] = text

    def named(self, name: str) -> Held:
        """The one run of a name."""
        (run,) = (run for run in self.runs.values() if run.name == name)
        return run

    def _found(self, run_id: str) -> StoredRun:
        run = self.runs[run_id]
        deleted = run.deleted or run.experiment in self.deleted
        return StoredRun(run_id, run.status, run.end, dict(run.tags), dict(run.params), run.experiment, deleted)

    def _check_active(self, experiment_id: str) -> None:
        if experiment_id in self.deleted:
            raise Refused(f"the experiment {experiment_id} is deleted")

    def _restore(self, kept: dict[str, Held]) -> None:
        """Undo what was collected in vain, in the runs that tests hold."""
        for run_id, run in list(self.runs.items()):
            if run_id not in kept:
                del self.runs[run_id]
            else:
                vars(run).update(vars(kept[run_id]), files=run.files)

    @contextmanager
    def _call(self, method: str, *arguments: Any) -> Iterator[None]:
        self.calls += 1
        fault, done = self.faults.get(self.calls, (None, False))
        if fault is not None and not done:
            self.fired.append(len(self.runs))
            raise fault(f"call {self.calls}: {method}")
        if self._kept is not None and method in _AT_ONCE:
            self._kept = deepcopy(self.runs)
        try:
            self.before(method, *arguments)
            yield
        except Refused as error:
            if self._kept is not None and method in _COLLECTED:
                raise RefusedTogether(str(error)) from error
            raise
        if self._kept is not None and method in _AT_ONCE:
            self._kept = deepcopy(self.runs)
        if fault is not None:
            self.fired.append(len(self.runs))
            raise fault(f"call {self.calls}: {method}")


def roots(store: MemoryStore) -> list[tuple[str, Held]]:
    """The runs without a parent, by their ids."""
    return [(id_, run) for id_, run in store.runs.items() if "mlflow.parentRunId" not in run.tags]


def fail_once(*methods: str, error: Callable[[], BaseException]) -> Callable[..., None]:
    """For `MemoryStore.before`: the first call of each of these methods fails."""
    left = list(methods)

    def before(method: str, *_: Any) -> None:
        if method in left:
            left.remove(method)
            raise error()

    return before


def refuse_nul(method: str, *arguments: Any) -> None:
    """For `MemoryStore.before`: no text with a NUL is accepted, as by PostgreSQL."""
    texts = arguments[1] if method == "create_run" else {}
    if method == "write":
        texts = arguments[1].params | arguments[1].tags
    if any("\0" in text for text in texts.values()):
        raise Refused("no NUL")


def deliver_to(store: MemoryStore, spool: Path, rounds: int = 300) -> None:
    """Deliver a spool by a worker of its own; the journals of programs that live are there for the rest."""
    worker = Worker(spool, store.open)
    try:
        for _ in range(rounds):
            worker.round()
            if worker.idle():
                break
    finally:
        worker.close()

"""What delivery needs of a store; `_errors.py` has the errors of stores."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Protocol

import msgspec

from trackdsl._core.events import Input, Model
from trackdsl.store_format.limits import MAX_BATCH, Integer, Key, ParamValue, TagValue

if TYPE_CHECKING:
    from concurrent.futures import Future

    from trackdsl.delivery.store._run_trace import RunTrace

#: Tags of the experiments that delivery creates: MLflow's UI opens them on model training instead of generative AI.
EXPERIMENT_TAGS = {"mlflow.experimentKind": "custom_model_development"}
#: Checked where a batch is read that another machine has sent.
_AT_MOST = msgspec.Meta(max_length=MAX_BATCH)
#: The first and the last of some times, in milliseconds since 1970.
Times = tuple[int, int]
#: The status of a run that nobody can write to any more.
GONE = "GONE"


class Batch(msgspec.Struct, array_like=True):
    """Parameters, tags and points that are written to one run at once.

    Attributes:
        params: name to value, both within MLflow's limits.
        tags: name to value, both within MLflow's limits.
        metrics: key, value, time in milliseconds since 1970, step.
    """

    params: Annotated[dict[Key, ParamValue], _AT_MOST] = msgspec.field(default_factory=dict)
    tags: Annotated[dict[Key, TagValue], _AT_MOST] = msgspec.field(default_factory=dict)
    metrics: Annotated[list[tuple[Key, float, Integer, Integer]], _AT_MOST] = msgspec.field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.params or self.tags or self.metrics)


@dataclass(frozen=True)
class StoredRun:
    """A run of a store.

    Attributes:
        run_id: the store's id of the run.
        status: `RUNNING`, or its final status.
        end: when it last ended, in milliseconds since 1970; 0 if it never did.
        tags, params: all of its tags and parameters.
        experiment_id: the store's id of its experiment.
        deleted: whether it is deleted; a user may restore it.
    """

    run_id: str
    status: str
    end: int
    tags: dict[str, str]
    params: dict[str, str]
    experiment_id: str
    deleted: bool = False


@dataclass(frozen=True)
class TreeRun:
    """A run of a store, with all that is compared of it.

    Attributes:
        run_id: the store's id of the run.
        name: its name.
        status: `RUNNING`, or its final status.
        start, end: in milliseconds since 1970; 0 if it has not begun or ended.
        experiment_id: the store's id of its experiment.
        tags, params: all of its tags and parameters.
        metrics: the latest value of each metric.
        datasets: the digests of its datasets, by name.
    """

    run_id: str
    name: str
    status: str
    start: int
    end: int
    experiment_id: str
    tags: dict[str, str]
    params: dict[str, str]
    metrics: dict[str, float]
    datasets: dict[str, str]


@dataclass
class NewRun:
    """A run that is to be created, together with others.

    Attributes:
        id_: our id of it.
        experiment_id: the store's id of its experiment.
        name: its name.
        start: when it began, in milliseconds since 1970.
        tags: its tags, without the link to its parent.
        parent: its parent: the store's id, or a run that is created before it; None if it has none.
        sent: whether the store was asked to create it.
        run_id: the store's id, once it is created.
        late: whether the store may still create it, at any time from now.
    """

    id_: bytes
    experiment_id: str
    name: str
    start: int
    tags: dict[str, str]
    parent: NewRun | str | None
    sent: bool = False
    run_id: str = ""
    late: bool = False


class CreatesConcurrently(Protocol):
    """A sink that creates several runs at once, if each creation is a request."""

    def create_runs(self, runs: list[NewRun], created: Callable[[NewRun], None]) -> None:
        """Create runs; those that the store refuses, and their children, are left out.

        Args:
            runs: the runs; parents come before their children.
            created: called with each run as soon as it exists, by the calling thread.

        Raises:
            Unavailable: some could not be created; `NewRun.sent` says for which ones this is not certain.
        """


class RemoteFiles(Protocol):
    """A store that takes files by requests; its methods may be called by several threads."""

    def upload(self, send: Callable[[], None]) -> Future[None]:
        """Call a function that sends a file, in another thread: a few at once, and again while the store is busy."""

    def write_artifact(self, run_id: str, local: Path, path: str, *, directory: bool) -> None:
        """See `Sink`."""


class Sink(Protocol):
    """A store that runs are delivered to.

    Every method except `answers` and `close` raises `Unavailable` or `Refused`. Writing the same batch, end or artifact
    twice must have the same result as writing it once. Only `create_run` cannot be repeated, unless runs get our ids:
    for that there is `find_run`.

    Attributes:
        own_ids: whether a run gets our id, its tag `trackdsl.id`, so that creating it twice is impossible.
        collects: whether `collecting` does anything.
    """

    own_ids: bool
    collects: bool

    def collecting(self) -> AbstractContextManager[None]:
        """Within this context, writes may be collected until its end, and are then written together or concurrently.

        What is read of a run within it includes them. They are written before runs are searched (`find_runs`, `tagged`,
        `find_without_parent`): after such a search, other processes find these runs too. Files are stored at once. The
        end, and every call within it, may also raise `RefusedTogether`.
        """

    def commit(self) -> None:
        """Write the collected changes now."""

    def stale(self) -> bool:
        """Whether this sink no longer leads to the store, and must be opened again."""

    def close(self) -> None:
        """Release what the sink holds: connections, files, memory. It is not used afterwards."""

    def answers(self) -> bool:
        """Whether the store answers a request that concerns no run."""

    def experiment(self, name: str) -> str:
        """The id of an experiment, which is created if it does not exist.

        Raises:
            RunBlocked: it is deleted, and may be restored.
        """

    def find_run(self, id_: str, experiment_id: str | None) -> tuple[str, str] | None:
        """Run id and experiment id of the run with our id, anywhere or in one experiment."""

    def create_run(self, experiment_id: str, name: str, start: int, tags: dict[str, str]) -> str:
        """Create a run that began at `start`, in milliseconds since 1970; returns its id."""

    def find_runs(self, start: str, experiment_id: str | None) -> list[tuple[str, str, str]]:
        """Runs whose id of ours begins with `start`, anywhere or in one experiment.

        Returns:
            for each run our id, its run id and its experiment id.
        """

    def tagged(self, tag: str, value: str, experiment_id: str) -> list[StoredRun]:
        """Runs of an experiment with a tag of exactly this value, without deleted runs."""

    def newest(self, experiment_id: str, tag: str, value: str | None, began: Times, most: int) -> list[TreeRun]:
        """The newest runs of an experiment with a tag, newest first, without deleted runs.

        Args:
            experiment_id: the experiment.
            tag: the tag.
            value: its value; None for any.
            began: the first and the last time at which they began, in milliseconds since 1970. A day takes less time
                in a large store than ever.
            most: the largest number of runs.
        """

    def tree(self, run_id: str, most: int) -> list[TreeRun]:
        """A run, and the runs below it level by level, at most so many; empty if it is deleted or does not exist.

        Those count that began while the run was open. A store that can only be searched finds those in its experiment.
        """

    def find_without_parent(self, prefix: str) -> list[tuple[str, str]]:
        """Runs that lack a parent whose id of ours begins with `prefix`: their run ids, and our ids of the parents.

        These runs have the tag `trackdsl.parent.missing`, which holds that id.
        """

    def link(self, run_id: str, parent_run_id: str) -> None:
        """Make a run the child of another one, and delete its tag `trackdsl.parent.missing`."""

    def metric_history(self, run_id: str, key: str, step: int | None = None) -> list[tuple[int, float, int]]:
        """The points of a metric, at one step or all: step, value, time in milliseconds since 1970."""

    def points(self, run_id: str, key: str, most: int) -> list[tuple[int, float, int]]:
        """The points of a metric as `metric_history` has them; about `most` at even distances if there are more."""

    def list_files(self, run_id: str, most: int) -> list[tuple[str, int | None]]:
        """The files of a run, at most this many: their paths and sizes in bytes. None if the store does not say."""

    def experiment_name(self, experiment_id: str) -> str:
        """The name of an experiment."""

    def experiment_is_deleted(self, experiment_id: str) -> bool:
        """Whether an experiment is deleted, so that nobody can write to its runs until it is restored."""

    def status(self, run_id: str) -> str:
        """`RUNNING`, the final status, or `GONE` if the run is deleted or does not exist."""

    def state(self, run_id: str) -> StoredRun | None:
        """A run of the store; None if it never existed."""

    def reopen_run(self, run_id: str) -> None:
        """Make a run that has ended `RUNNING` again."""

    def delete_tags(self, run_id: str, names: list[str]) -> None:
        """Delete tags of a run; it need not have all of them."""

    def remove_others(self, id_: str, experiment_id: str, run_id: str) -> None:
        """Delete every run of an experiment with our id, except one."""

    def write(self, run_id: str, batch: Batch) -> None:
        """Write parameters, tags and metric points."""

    def params(self, run_id: str) -> dict[str, str]:
        """The parameters that a run has."""

    def tags(self, run_id: str) -> dict[str, str]:
        """The tags that a run has."""

    def keys(self, run_id: str) -> dict[str, list[str]]:
        """The keys of a run: of its `params`, `tags` and `metrics`."""

    def folds_keys(self) -> bool:
        """Whether the store treats keys as equal that differ in case."""

    def end_run(self, run_id: str, status: str, end: int) -> None:
        """End a run at `end`, in milliseconds since 1970."""

    def files(self, run_id: str) -> RemoteFiles | None:
        """The object that takes the files of a run by requests; None if `write_artifact` only copies them."""

    def write_artifact(self, run_id: str, local: Path, path: str, *, directory: bool) -> None:
        """Store a file under a path of the run, or the content of a folder below it."""

    def read_artifact(self, run_id: str, path: str) -> bytes | None:
        """The content of the file at a path of the run; None if there is none."""

    def write_model(self, run_id: str, experiment_id: str, event: Model, local: Path) -> str:
        """Store a model from the folder of its snapshot, and register it if the event says so; returns its id."""

    def models_of(self, run_id: str) -> list[tuple[str, int]]:
        """The models that a run has logged: their ids and steps."""

    def find_model(self, key: str, experiment_id: str) -> str | None:
        """The id of the model that was recorded with a key, in this experiment or else any, or None."""

    def model_points(self, model_id: str) -> list[tuple[str, str, int, int]]:
        """The points of a model: the run that logged them, key, step, time in milliseconds since 1970.

        Raises:
            Refused: there is no such model.
        """

    def write_model_points(
        self, run_id: str, model_id: str, points: list[tuple[str, float, int, int]], dataset: tuple[str, str] | None
    ) -> None:
        """Add points to a model that its run has and it has not: key, value, time in milliseconds since 1970, step.

        Args:
            run_id: the run.
            model_id: the model.
            points: at most as many as fit into one request.
            dataset: name and digest of the data that they were measured on.
        """

    def write_model_input(self, run_id: str, model_id: str) -> None:
        """Record a model as an input of a run."""

    def write_input(self, run_id: str, event: Input) -> None:
        """Record a dataset as an input of a run."""

    def write_text(self, run_id: str, text: str, path: str) -> None:
        """Store text as a file at a path of the run."""

    def write_trace(self, trace: RunTrace, check_interrupt: Callable[[], None]) -> str:
        """Store the tree of a root run as a trace, with the spans that MLflow recorded inside; returns its id.

        Args:
            trace: the trace.
            check_interrupt: called between requests; raises if this is to be given up.
        """


class ClientSink(Sink, RemoteFiles, Protocol):
    """The sink that uses MLflow's client; it also stores remote files for a sink that writes only runs itself."""

"""What delivery needs of a store, and the errors of stores."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from trackdsl._core.events import Input, Model

#: The environment variable with the minimum time that the user wants to wait for an upload, in seconds.
UPLOAD_TIMEOUT = "TRACKDSL_UPLOAD_TIMEOUT"
#: The status of a run that nobody can write to any more.
GONE = "GONE"


class Unavailable(Exception):
    """The store cannot be reached or is not ready; the same call may succeed later.

    Attributes:
        late: whether the store may still carry out the request, at any time from now.
        answered: whether the store was reached and failed only with this request.
    """

    def __init__(self, message: str, *, late: bool = False, answered: bool = False) -> None:
        super().__init__(message)
        self.late = late
        self.answered = answered


class Denied(Unavailable):
    """The store, or its file system, does not permit this."""


class RunBlocked(Unavailable):
    """The store works, but one run cannot be created or written now; the cause may be fixed later.

    Attributes:
        experiment: whether the cause is the run's experiment, and so applies to all runs in it.
        waits: whether it waits for a run of another journal that is set aside.
    """

    def __init__(self, message: str, *, experiment: bool = False, waits: bool = False) -> None:
        super().__init__(message)
        self.experiment = experiment
        self.waits = waits


class NotYet(Unavailable):
    """Something from another journal or machine is not there yet; it may come in a moment.

    Attributes:
        pause: how long to wait before the next attempt, in seconds; None to choose.
        blocks: whether it has been awaited so long that waiting programs should know.
    """

    def __init__(self, message: str, *, pause: float | None = None, blocks: bool = False) -> None:
        super().__init__(message)
        self.pause = pause
        self.blocks = blocks


class Refused(Exception):
    """The store was reached and refused this; another attempt has the same result."""


@dataclass
class Batch:
    """What is written to one run at once.

    Attributes:
        params: name to value, both within MLflow's limits.
        tags: name to value, both within MLflow's limits.
        metrics: key, value, time in milliseconds since 1970, step.
    """

    params: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    metrics: list[tuple[str, float, int, int]] = field(default_factory=list)

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


class Sink(Protocol):
    """A store that runs are delivered to.

    Every method except `answers` and `close` raises `Unavailable` or `Refused`. Writing the same batch, end or artifact
    twice must have the same result as writing it once. Only `create_run` cannot be repeated: for that there is
    `find_run`.
    """

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

    def find_without_parent(self, prefix: str) -> list[tuple[str, str]]:
        """Runs that lack a parent whose id of ours begins with `prefix`: their run ids, and our ids of the parents.

        These runs have the tag `trackdsl.parent.missing`, which holds that id.
        """

    def link(self, run_id: str, parent_run_id: str) -> None:
        """Make a run the child of another one, and delete its tag `trackdsl.parent.missing`."""

    def metric_history(self, run_id: str, key: str, step: int | None = None) -> list[tuple[int, float, int]]:
        """The points of a metric, at one step or all: step, value, time in milliseconds since 1970."""

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

"""What delivery needs of a store, and how a store says no."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from trackdsl._core.events import Input, Model

#: The variable of the environment that holds what the user wants to wait for an upload at least, in seconds.
UPLOAD_TIMEOUT = "TRACKDSL_UPLOAD_TIMEOUT"
#: The status of a run that nobody can write to any more.
GONE = "GONE"


class Unavailable(Exception):
    """The store cannot be reached or is not ready; the same call may work later.

    Attributes:
        late: the store may still carry out what it was asked, at any time from now.
        answered: the store was reached and failed over this request: it may take others.
    """

    def __init__(self, message: str, *, late: bool = False, answered: bool = False) -> None:
        super().__init__(message)
        self.late = late
        self.answered = answered


class Denied(Unavailable):
    """The store, or the file system below it, does not permit this."""


class RunBlocked(Unavailable):
    """The store works, and one run cannot be made or written as things are: that may be mended.

    Attributes:
        experiment: the cause is the experiment of the run, so the same holds for all its runs.
        waits: it waits for a run of another journal that is set aside.
    """

    def __init__(self, message: str, *, experiment: bool = False, waits: bool = False) -> None:
        super().__init__(message)
        self.experiment = experiment
        self.waits = waits


class NotYet(Unavailable):
    """Something that another journal or another machine brings is not there yet; it may be in a moment.

    Attributes:
        pause: how long not to ask again, in seconds; None to choose.
        blocks: it has been waited for so long that whoever waits in turn should know.
    """

    def __init__(self, message: str, *, pause: float | None = None, blocks: bool = False) -> None:
        super().__init__(message)
        self.pause = pause
        self.blocks = blocks


class Refused(Exception):
    """The store was reached and will not take this; trying again changes nothing."""


@dataclass
class Batch:
    """What is to be written to one run in one go.

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
class Found:
    """A run of a store.

    Attributes:
        run_id: the store's id of it.
        status: `RUNNING`, or how it ended.
        end: when it ended last, in milliseconds since 1970; 0 where it did not.
        tags, params: all that it has.
        experiment_id: the store's id of its experiment.
        deleted: it is deleted, and may be restored.
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

    Every method but `answers` and `close` raises `Unavailable` or `Refused`. Writing the same batch, end or artifact
    twice must leave the store as writing it once; only `create_run` is not repeatable, which is what `find_run` is for.
    """

    def stale(self) -> bool:
        """Whether this sink leads nowhere any more, and has to be opened anew."""

    def close(self) -> None:
        """Give back what the sink holds: connections, files, memory. It is not used afterwards."""

    def answers(self) -> bool:
        """Whether the store answers a request that concerns no run."""

    def experiment(self, name: str) -> str:
        """The id of an experiment; it is made where it does not exist.

        Raises:
            RunBlocked: it is deleted, and may be restored.
        """

    def find_run(self, id_: str, experiment_id: str | None) -> tuple[str, str] | None:
        """Run id and experiment id of the run that carries our id, anywhere or in one experiment."""

    def create_run(self, experiment_id: str, name: str, start: int, tags: dict[str, str]) -> str:
        """Make a run that began at `start`, in milliseconds since 1970; returns its id."""

    def find_runs(self, start: str, experiment_id: str | None) -> list[tuple[str, str, str]]:
        """Runs that carry an id of ours which begins with `start`, anywhere or in one experiment.

        Returns:
            for each our id, its run id and its experiment id.
        """

    def tagged(self, tag: str, value: str, experiment_id: str) -> list[Found]:
        """Runs of an experiment with a tag of exactly this value, without those that are deleted."""

    def find_without_parent(self, prefix: str) -> list[tuple[str, str]]:
        """Runs that miss a parent whose id, of ours, begins with `prefix`: their run ids, and our ids of the parents.

        They miss it if they have the tag `trackdsl.parent.missing`, which holds that id.
        """

    def link(self, run_id: str, parent_run_id: str) -> None:
        """Make a run the child of another one, and take the tag `trackdsl.parent.missing` from it."""

    def metric_history(self, run_id: str, key: str, step: int | None = None) -> list[tuple[int, float, int]]:
        """The points of a metric, at one step or at all: step, value, time in milliseconds since 1970."""

    def experiment_name(self, experiment_id: str) -> str:
        """What an experiment is called."""

    def experiment_is_deleted(self, experiment_id: str) -> bool:
        """Whether nobody can write to the runs of an experiment until it is restored."""

    def status(self, run_id: str) -> str:
        """`RUNNING`, how the run ended, or `GONE` where it is deleted or was never there."""

    def state(self, run_id: str) -> Found | None:
        """A run as it is there; None where it never was."""

    def reopen_run(self, run_id: str) -> None:
        """Make a run that has ended `RUNNING` again."""

    def delete_tags(self, run_id: str, names: list[str]) -> None:
        """Take tags from a run; one that it does not have may be among them."""

    def remove_others(self, id_: str, experiment_id: str, run_id: str) -> None:
        """Delete every run of an experiment that carries our id, except one."""

    def write(self, run_id: str, batch: Batch) -> None:
        """Write parameters, tags and metric points."""

    def params(self, run_id: str) -> dict[str, str]:
        """The parameters that a run has."""

    def tags(self, run_id: str) -> dict[str, str]:
        """The tags that a run has."""

    def keys(self, run_id: str) -> dict[str, list[str]]:
        """The names of what a run has: of its `params`, `tags` and `metrics`."""

    def folds_keys(self) -> bool:
        """Whether the store takes keys for one that differ in case."""

    def end_run(self, run_id: str, status: str, end: int) -> None:
        """End a run at `end`, in milliseconds since 1970."""

    def write_artifact(self, run_id: str, local: Path, place: str, *, directory: bool) -> None:
        """Store a file at `place`, or the content of a folder below it."""

    def read_artifact(self, run_id: str, place: str) -> bytes | None:
        """The content of the file at `place`; None where there is none."""

    def write_model(self, run_id: str, experiment_id: str, event: Model, local: Path) -> str:
        """Store the model whose snapshot lies in a folder, and register it where the event says so; returns its id."""

    def models_of(self, run_id: str) -> list[tuple[str, int]]:
        """The models that a run has logged: their ids and steps."""

    def find_model(self, key: str, experiment_id: str) -> str | None:
        """The id of the model that was recorded with a key, in this experiment or else any, or None."""

    def model_points(self, model_id: str) -> list[tuple[str, str, int, int]]:
        """The points that a model has: the run they were logged by, key, step, time in milliseconds since 1970.

        Raises:
            Refused: there is no such model.
        """

    def write_model_points(
        self, run_id: str, model_id: str, points: list[tuple[str, float, int, int]], dataset: tuple[str, str] | None
    ) -> None:
        """Give a model points that its run has, and it has not: key, value, time in milliseconds since 1970, step.

        Args:
            run_id: the run.
            model_id: the model.
            points: as many as one request takes.
            dataset: name and digest of the data that they were measured on.
        """

    def write_model_input(self, run_id: str, model_id: str) -> None:
        """Record a model as an input of a run."""

    def write_input(self, run_id: str, event: Input) -> None:
        """Record a dataset as an input of a run."""

    def write_text(self, run_id: str, text: str, place: str) -> None:
        """Store text as a file at `place`."""

"""A change set: what is to be written to the runs of one store, computed without asking the store.

The types say what a server accepts of it: `msgspec` checks them when it reads a change set, not when one is made.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from trackdsl._core.events import Input
from trackdsl.delivery.store._sink import Batch
from trackdsl.store_format.limits import MAX_BATCH, Integer, RunId, RunName

#: Limits for a change set that is sent to a server.
MOST_RUNS = 20_000
MOST_BATCHES = 16
MOST_INPUTS = 1000
#: The most points, parameters and tags in one transaction, which blocks other writers.
MOST_ITEMS = MAX_BATCH
#: A dataset takes several statements, which are as much work as this many points.
_OF_A_DATASET = 10
#: For each of them, MLflow is asked whether the user may write to it, which takes milliseconds.
MOST_EXPERIMENTS = 200

_Status = Annotated[str, Meta(pattern=r"\A(FINISHED|FAILED|KILLED)\Z")]
#: The status of a run, and when it ended, in milliseconds since 1970; None if it does not end.
End = tuple[_Status, Integer] | None


class NewRun(msgspec.Struct, array_like=True):
    """A run that is to be created.

    Attributes:
        experiment_id: the store's id of its experiment.
        name: its name.
        start: in milliseconds since 1970.
        user: the name of its user.
    """

    experiment_id: Annotated[int, Meta(ge=0, le=(1 << 63) - 1)]
    name: RunName
    start: Integer
    user: Annotated[str, Meta(max_length=256)]


class RunChange(msgspec.Struct, array_like=True):
    """The changes of one run.

    Attributes:
        new: how to create it; None if it exists.
        batches: parameters, tags and points, in order.
        inputs: datasets.
        end: how it ends.
    """

    new: NewRun | None = None
    batches: Annotated[list[Batch], Meta(max_length=MOST_BATCHES)] = msgspec.field(default_factory=list)
    inputs: Annotated[list[Input], Meta(max_length=MOST_INPUTS)] = msgspec.field(default_factory=list)
    end: End = None


#: By the store's id of the run.
ChangeSet = dict[RunId, RunChange]


def count_items(changes: ChangeSet) -> int:
    """The number of points, parameters and tags; datasets count as several."""
    return sum(map(items_of, changes.values()))


def items_of(change: RunChange) -> int:
    """The number of points, parameters and tags of one run; datasets count as several."""
    return _OF_A_DATASET * len(change.inputs) + sum(map(items_in, change.batches))


def items_in(batch: Batch) -> int:
    """The number of points, parameters and tags of one batch."""
    return len(batch.params) + len(batch.tags) + len(batch.metrics)

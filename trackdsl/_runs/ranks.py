"""What the processes of one launch record: children of a root that they have in common, or the first of them alone.

The root's id follows from what the launcher shares and from its name: the n-th root of a name of every rank is the same
run, without a word between them. No process opens it: the delivery of each makes it where it is not there, and the
last one ends it; see `delivery/_shared_roots.py`.
"""

from __future__ import annotations

import hashlib
import itertools
from typing import NamedTuple

from trackdsl._config import resolve as settings
from trackdsl._core import runtime
from trackdsl._core.events import Rank
from trackdsl._core.runtime import Phase
from trackdsl._runs import launch as _launch
from trackdsl._runs.launch import Launch
from trackdsl._runs.run import Run
from trackdsl.journal._target import Target, overridden

_ID_LENGTH = 16
#: How many roots of a name this process has begun in a launch and an experiment.
_begun: dict[tuple[str, str, str, str], itertools.count[int]] = {}
runtime.register("roots of ranks", Phase.RUNS, reset=_begun.clear)


class Shared(NamedTuple):
    """Where the run of a rank goes.

    Attributes:
        root: the run that the ranks have in common.
        rank: the place of this one among them.
        name: of the run of this rank.
    """

    root: Run
    rank: Rank
    name: str


def records_nothing(chosen: str | None) -> bool:
    """Whether this process is to record nothing, as another one of its launch records for all.

    Args:
        chosen: what the run that begins says of ranks; None where the settings say it.
    """
    launch = _launch.current()
    return launch is not None and launch.rank != 0 and _records(chosen) == "main" and not overridden()


def leaves_run_to_first(chosen: str | None) -> bool:
    """Whether a run that all ranks are to go on with is that of rank 0, and this is another one with its own root.

    Args:
        chosen: as for `records_nothing`.
    """
    launch = _launch.current()
    return launch is not None and launch.rank != 0 and _records(chosen) == "separate" and not overridden()


def share_root(chosen: str | None) -> bool:
    """Whether this process is a rank of a launch whose ranks have a root in common.

    Args:
        chosen: as for `records_nothing`.
    """
    return _launch.current() is not None and _records(chosen) == "children" and not overridden()


def shared(
    name: str, experiment: str | None, target: Target, chosen: str | None, goes_on: str | None = None
) -> Shared | None:
    """Where a root run goes in a process that is a rank of a launch; None where it is an ordinary root.

    Args:
        name: of the root.
        experiment: its MLflow experiment.
        target: where it is recorded.
        chosen: what it says of ranks; None where the settings say it.
        goes_on: the run that goes on as the root, where one does.
    """
    launch = _launch.current()
    if launch is None or not target.delivers or _records(chosen) != "children":
        return None
    if goes_on is None:
        id_ = _id_of_root(launch, experiment or "", name, target)
    else:
        id_ = _digest(launch.key, "goes on", goes_on)
    root = Run(id_, name, None, name, experiment, target)
    rank = Rank(
        root=name,
        rank=launch.rank,
        size=launch.size,
        local_rank=launch.local_rank,
        node=launch.node,
        launch=launch.shown,
        attempt=launch.attempt,
        goes_on=goes_on or "",
    )
    return Shared(root, rank, f"rank-{launch.rank}")


def tags_below(chosen: str | None) -> dict[str, str]:
    """The tags of what a rank records below a run that it was handed, as by Lightning, or by a stage around torchrun.

    Args:
        chosen: as for `records_nothing`.
    """
    launch = _launch.current()
    if launch is None or not share_root(chosen):
        return {}
    tags = {
        "trackdsl.rank": str(launch.rank),
        "trackdsl.node": launch.node,
        "trackdsl.launch": launch.shown,
        "trackdsl.world_size": str(launch.size),
    }
    return tags if launch.local_rank is None else {**tags, "trackdsl.local_rank": str(launch.local_rank)}


def _records(chosen: str | None) -> str:
    return chosen or settings.ranks()


def _id_of_root(launch: Launch, experiment: str, name: str, target: Target) -> bytes:
    key = (launch.key, experiment, name, target.uri)
    number = next(_begun.setdefault(key, itertools.count()))
    # Without the store's address, which the machines of a launch may know by other names.
    return _digest(launch.key, experiment, name, str(number))


def _digest(*parts: str) -> bytes:
    return hashlib.sha256("\0".join(parts).encode("utf-8", "surrogatepass")).digest()[:_ID_LENGTH]

"""The runs of the processes of one launch: children of a common root, or the runs of rank 0 alone.

The id of the common root is computed from what the launcher gives to all ranks, and from the root's name. So the n-th
root of a name is the same run in every rank, without any communication. No rank begins it: the first delivery that
needs it creates it, and the last one ends it; see `delivery/runs/_shared_roots.py`.
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
from trackdsl.journal._store_target import Target
from trackdsl.journal._target import overridden
from trackdsl.store_format.tags import LAUNCH_TAG, LOCAL_RANK_TAG, NODE_TAG, RANK_TAG, WORLD_SIZE_TAG

_ID_LENGTH = 16
#: The number of roots that this process has begun, by launch, experiment, name and store.
_begun: dict[tuple[str, str, str, str], itertools.count[int]] = {}
runtime.register("roots of ranks", Phase.RUNS, reset=_begun.clear)


class Shared(NamedTuple):
    """The run of a rank, before it begins.

    Attributes:
        root: the common root of the ranks.
        rank: which of the ranks this process is.
        name: the name of this rank's run.
    """

    root: Run
    rank: Rank
    name: str


def records_nothing(chosen: str | None) -> bool:
    """Whether this process records nothing, because rank 0 records for all.

    Args:
        chosen: the option `ranks` of the run that begins; None where the setting decides.
    """
    launch = _launch.current()
    return launch is not None and launch.rank != 0 and _records(chosen) == "main" and not overridden()


def leaves_run_to_first(chosen: str | None) -> bool:
    """Whether only rank 0 continues the run that all ranks should continue, and this rank begins its own root run.

    Args:
        chosen: as for `records_nothing`.
    """
    launch = _launch.current()
    return launch is not None and launch.rank != 0 and _records(chosen) == "separate" and not overridden()


def share_root(chosen: str | None) -> bool:
    """Whether this process is a rank of a launch whose ranks have a common root.

    Args:
        chosen: as for `records_nothing`.
    """
    return _launch.current() is not None and _records(chosen) == "children" and not overridden()


def shared(
    name: str, experiment: str | None, target: Target, chosen: str | None, continued_id: str | None = None
) -> Shared | None:
    """The common root of a launch and this rank's run below it; None in a process that begins an ordinary root.

    Args:
        name: the name of the root.
        experiment: its MLflow experiment.
        target: where its events go.
        chosen: as for `records_nothing`.
        continued_id: the run that continues as the root, if one does.
    """
    launch = _launch.current()
    if launch is None or not target.delivers or _records(chosen) != "children":
        return None
    if continued_id is None:
        id_ = _id_of_root(launch, experiment or "", name, target)
    else:
        id_ = _digest(launch.key, "goes on", continued_id)
    root = Run(id_, name, None, name, experiment, target)
    rank = Rank(
        root=name,
        rank=launch.rank,
        size=launch.size,
        local_rank=launch.local_rank,
        node=launch.node,
        launch=launch.shown,
        attempt=launch.attempt,
        continued_id=continued_id or "",
    )
    return Shared(root, rank, f"rank-{launch.rank}")


def tags_below(chosen: str | None) -> dict[str, str]:
    """The tags of a rank's runs below a parent from another process: of Lightning, or a stage around torchrun.

    Args:
        chosen: as for `records_nothing`.
    """
    launch = _launch.current()
    if launch is None or not share_root(chosen):
        return {}
    tags = {
        RANK_TAG: str(launch.rank),
        NODE_TAG: launch.node,
        LAUNCH_TAG: launch.shown,
        WORLD_SIZE_TAG: str(launch.size),
    }
    return tags if launch.local_rank is None else {**tags, LOCAL_RANK_TAG: str(launch.local_rank)}


def _records(chosen: str | None) -> str:
    """The mode in which the ranks of a launch record: the option, or else the setting."""
    return chosen or settings.ranks()


def _id_of_root(launch: Launch, experiment: str, name: str, target: Target) -> bytes:
    key = (launch.key, experiment, name, target.uri)
    number = next(_begun.setdefault(key, itertools.count()))
    # The URI of the store is no part of the id: it may differ between the machines of a launch.
    return _digest(launch.key, experiment, name, str(number))


def _digest(*parts: str) -> bytes:
    return hashlib.sha256("\0".join(parts).encode("utf-8", "surrogatepass")).digest()[:_ID_LENGTH]

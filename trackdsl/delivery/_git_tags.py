"""What git says of a program's source: it may answer after the program's first runs exist."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from trackdsl.delivery import _compose
from trackdsl.delivery._runs import RunMap
from trackdsl.delivery._sink import Batch, Refused, Sink

#: How long the end of a journal waits for git's answer, in seconds.
PATIENCE = 10.0


class GitTags:
    """Tags the runs of one journal with what git said.

    Args:
        directory: the journal's folder.
        runs: its runs.
        refuse: is told what the store refused, and its answer.
    """

    def __init__(self, directory: Path, runs: RunMap, refuse: Callable[[str, Exception], None]) -> None:
        self._directory = directory
        self._runs = runs
        self._refuse = refuse
        # Whether an earlier process has told these is not known; telling them twice does no harm.
        self._untold = runs.ours()
        self._tags = None if self._untold else _compose.git_tags(directory)

    def of_new_run(self, id_: bytes) -> dict[str, str]:
        """The tags of a run that is to be created; none where git has not answered: then it gets them later."""
        if self._tags is None:
            self._untold.append(id_)
        return self._tags or {}

    def waits(self, since: int) -> bool:
        """Whether an answer is worth waiting for, if git was asked at `since`, in nanoseconds since 1970."""
        return self._tags is None and bool(self._untold) and (time.time_ns() - since) / 1e9 < PATIENCE

    def tell(self, sink: Sink) -> None:
        """Tell the store git's answer, if it has come."""
        if self._tags is None:
            self._tags = _compose.git_tags(self._directory)
        # One by one: where the store goes away in between, the rest is told the next time.
        while self._tags is not None and self._untold:
            run = self._runs.get(self._untold[-1])
            if run is not None and self._tags:
                try:
                    sink.write(run.run_id, Batch(tags=self._tags))
                except Refused as error:
                    self._refuse(f"the git tags of run {run.run_id}", error)
            self._untold.pop()

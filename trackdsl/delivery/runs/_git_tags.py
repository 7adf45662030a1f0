"""The tags that come from git, which may answer after the program's first runs exist."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from trackdsl._core.events import Tags
from trackdsl.delivery._timing import timing
from trackdsl.delivery.batches import _compose
from trackdsl.delivery.batches._own_tags import OwnTags
from trackdsl.delivery.batches._single_writes import SingleWrites
from trackdsl.delivery.state._run_map import DeliveredRun, RunMap
from trackdsl.delivery.store._sink import Batch, Sink


class GitTags:
    """Tags the runs of one journal with the answer of git.

    Args:
        directory: the journal's folder.
        runs: its runs.
        refuse: called with what the store refused, and its answer.
        own_tags: adds to tags that the runs have.
        block: blocks a run, with an event that could not be delivered, if an error concerns only this run; returns
            whether it does.
    """

    def __init__(
        self,
        directory: Path,
        runs: RunMap,
        refuse: Callable[[str, Exception], None],
        own_tags: OwnTags,
        block: Callable[[Sink, Tags, Exception], bool],
    ) -> None:
        self._block = block
        self._directory = directory
        self._runs = runs
        self._refuse = refuse
        self._writes = SingleWrites(refuse)
        self._own_tags = own_tags
        # An earlier process may have tagged these runs; tagging them twice does no harm.
        self._untagged = runs.ours()
        self._tags = None if self._untagged else _compose.git_tags(directory)

    def of_new_run(self, id_: bytes) -> dict[str, str]:
        """The tags of a run that is to be created; none before git has answered: then the run gets them later."""
        if self._tags is None and id_ not in self._untagged[-1:]:
            self._untagged.append(id_)
        return self._tags or {}

    def known(self) -> dict[str, str]:
        """The tags, if git has answered; else none."""
        return self._tags or {}

    def waits(self, since: int) -> bool:
        """Whether to wait for an answer, if git was asked at `since`, in nanoseconds since 1970."""
        return self._tags is None and bool(self._untagged) and (time.time_ns() - since) / 1e9 < timing().git_answer

    def write(self, sink: Sink) -> None:
        """Write the tags, if git has answered."""
        if self._tags is None:
            self._tags = _compose.git_tags(self._directory)
        if self._tags is None or not self._untagged:
            return
        for id_ in reversed(self._untagged):
            run = self._runs.get(id_)
            if run is not None and self._tags:
                try:
                    self._write_run(sink, run, self._tags)
                except Exception as error:
                    if not self._block(sink, Tags(id_, self._tags), error):
                        raise
        # If the store fails before, all are written again the next time, which does no harm.
        sink.commit()
        self._untagged.clear()

    def _write_run(self, sink: Sink, run: DeliveredRun, tags: dict[str, str]) -> None:
        batch = Batch(tags=self._own_tags.completed(sink, run, tags))
        gone = self._writes.write(sink, run, batch)
        if gone is not None:
            self._refuse(f"the git tags of run {run.run_id}, which is deleted", gone)

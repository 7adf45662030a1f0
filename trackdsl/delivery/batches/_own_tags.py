"""Adds to JSON tags that a run has already: git's answer to `trackdsl.call`, and files to `trackdsl.files`."""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Mapping
from pathlib import Path

from trackdsl.delivery.state._run_map import DeliveredRun
from trackdsl.delivery.store._errors import Refused
from trackdsl.delivery.store._sink import Sink
from trackdsl.journal._spool import MARK
from trackdsl.store_format.call_tag import CALL_TAG, GIT_DIRTY_TAG, SPOOL, call_text, with_git_dirty
from trackdsl.store_format.files_tag import FileNote, with_files


class OwnTags:
    """Adds to the JSON tags of runs.

    It reads the tags from the store each time, because an earlier delivery process or another spool may have written
    them.

    Args:
        spool: the spool's folder.

    Attributes:
        spool: the spool's name, see `spool_name`.
    """

    def __init__(self, spool: Path) -> None:
        self.spool = spool_name(spool)
        #: MLflow's ids of runs that this process has written files of.
        self._with_files: set[str] = set()

    def completed(
        self, sink: Sink, run: DeliveredRun, tags: dict[str, str], files: Mapping[str, FileNote] | None = None
    ) -> dict[str, str]:
        """The tags to write to a run, including those that name its files.

        Args:
            sink: the store.
            run: the run.
            tags: other tags to write.
            files: how files of the run are read back, by their paths.
        """
        if not files and GIT_DIRTY_TAG not in tags:
            return tags
        held = self._held(sink, run, tags)
        tags = with_git_dirty(tags, held)
        if not files:
            return tags
        self._with_files.add(run.run_id)
        return tags | with_files({**held, **tags}, self.spool, files)

    def _held(self, sink: Sink, run: DeliveredRun, tags: dict[str, str]) -> dict[str, str]:
        """The tags that a run has at the store."""
        if run.made > -math.inf and run.run_id not in self._with_files and GIT_DIRTY_TAG not in tags:
            # This process has made the run, so there are no files yet. Most runs need no request.
            return {CALL_TAG: call_text({SPOOL: self.spool})}
        try:
            return sink.tags(run.run_id)
        except Refused:  # The run is gone. The store will refuse the tags too, and delivery reports that.
            return {}


def spool_name(spool: Path) -> str:
    """The name of a spool: unique, and the same as long as the spool exists, from whichever host it is read."""
    try:
        mark = os.stat(spool / MARK)
    except OSError:  # A version without marks has made the spool.
        return hashlib.sha256(str(spool).encode("utf-8", "surrogateescape")).hexdigest()[:8]
    # The mark is created once and never written to, so its times and its number stay the same.
    return hashlib.sha256(f"{spool.name} {mark.st_ino} {mark.st_mtime_ns}".encode("utf-8", "replace")).hexdigest()[:8]

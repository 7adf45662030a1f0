"""Adds to tags that a run has already: to `trackdsl.call` what git said, to `trackdsl.files` the files that follow."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Mapping
from pathlib import Path

from trackdsl.delivery._run_map import DeliveredRun
from trackdsl.delivery._sink import Refused, Sink
from trackdsl.journal._spool import MARK
from trackdsl.store_format.call_tag import GIT_DIRTY_TAG, with_git_dirty
from trackdsl.store_format.files_tag import FileNote, with_files


class OwnTags:
    """Adds to the tags of ours that are JSON objects.

    The tags are read from the store each time. A delivery process that has died, or another spool, may have written
    them.

    Args:
        spool: the spool's folder.

    Attributes:
        spool: the spool's name, see `spool_name`.
    """

    def __init__(self, spool: Path) -> None:
        self.spool = spool_name(spool)

    def completed(
        self, sink: Sink, run: DeliveredRun, tags: dict[str, str], files: Mapping[str, FileNote] | None = None
    ) -> dict[str, str]:
        """Tags that are to be written to a run, with what belongs into such tags moved there.

        Args:
            sink: the store.
            run: the run.
            tags: the tags.
            files: how files of the run are read back, by their paths.
        """
        if not files and GIT_DIRTY_TAG not in tags:
            return tags
        held: dict[str, str] = {}
        with contextlib.suppress(Refused):  # The run is gone; the store will refuse the tags too, and that is reported.
            held = sink.tags(run.run_id)
        tags = with_git_dirty(tags, held)
        return tags | with_files({**held, **tags}, self.spool, files) if files else tags


def spool_name(spool: Path) -> str:
    """A name of a spool that no other spool has, and that stays the same as long as the spool is there."""
    try:
        mark = os.stat(spool / MARK)
    except OSError:  # An old version made it. The folder stays the same too, but for the time of its last change.
        return hashlib.sha256(str(spool).encode("utf-8", "surrogateescape")).hexdigest()[:8]
    # The mark is made once and never written to.
    return hashlib.sha256(f"{spool.name} {mark.st_ino} {mark.st_mtime_ns}".encode("utf-8", "replace")).hexdigest()[:8]

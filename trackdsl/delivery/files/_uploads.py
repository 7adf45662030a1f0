"""Uploads files to a store that takes them by requests: concurrently, and each on its own.

A store on this machine only links or copies its files, which is done at once: see `Sink.files`.
"""

from __future__ import annotations

import contextlib
import hashlib
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from trackdsl._core import events
from trackdsl.delivery.store._errors import Unavailable
from trackdsl.delivery.store._sink import RemoteFiles
from trackdsl.journal._snapshots import content_of, opened_snapshot

if TYPE_CHECKING:
    from concurrent.futures import Future


@dataclass
class Outcome:
    """The results of sending the files of an artifact, by their paths inside of it; a single file has an empty path.

    Attributes:
        left_out: entries of the snapshot that cannot be read, with the reasons.
        errors: what the store answered to the files that it did not take.
    """

    left_out: dict[str, str]
    errors: dict[str, Exception] = field(default_factory=dict)


@dataclass
class _Upload:
    outcome: Outcome
    opened: contextlib.ExitStack
    files: dict[str, Future[None]]


class Uploads:
    """The files of one journal that are on their way.

    Args:
        directory: the journal's folder.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        #: By run and snapshot. Finished uploads stay here if their stretch fails, so that they are not sent again.
        self._begun: dict[tuple[str, str], _Upload] = {}
        #: What was sent last to each path of a run, until its stretch is delivered: a snapshot, and the file in it.
        self._last: dict[tuple[str, str], tuple[str, str]] = {}

    def __len__(self) -> int:
        return len(self._begun)

    def has_begun(self, run_id: str, event: events.File) -> bool:
        """Whether an artifact is on its way."""
        return (run_id, event.snapshot) in self._begun

    def begin(self, files: RemoteFiles, run_id: str, event: events.File, only: list[str] | None = None) -> None:
        """Begin to send an artifact.

        Args:
            files: takes the files of the run.
            run_id: MLflow's id of the run.
            event: describes the artifact.
            only: the files in a folder that are sent; None for all.

        Raises:
            FileNotFoundError: its snapshot is gone.
            UnsafeSnapshot: its snapshot cannot be used.
            OSError: its snapshot cannot be read.
        """
        if self.has_begun(run_id, event):
            return
        with contextlib.ExitStack() as stack:
            snapshot = stack.enter_context(opened_snapshot(self._directory, event.snapshot))
            names = [""]
            if event.directory:
                names = [name for name, is_folder in content_of(snapshot.path) if not is_folder]
            # What waits on is sent after the rest, which was left out by then.
            upload = _Upload(Outcome(snapshot.left_out if only is None else {}), stack, {})
            try:
                for name in names if only is None else [name for name in names if name in only]:
                    local, path = snapshot.path / name, f"{event.path}/{name}".strip("/")
                    before, this = self._last.get((run_id, path)), (event.snapshot, name)
                    if before == this:  # Its stretch failed after it was sent, and is read again.
                        continue
                    upload.files[name] = files.upload(partial(self._send, files, run_id, local, path, before))
                    self._last[run_id, path] = this
            except BaseException:  # No thread can be started: all of it is sent again.
                self._give_up(run_id, event.path, upload)
                raise
            self._begun[run_id, event.snapshot] = upload
            upload.opened = stack.pop_all()

    def finish(self, run_id: str, event: events.File) -> Outcome:
        """Wait until an artifact is sent, or has failed."""
        upload = self._begun[run_id, event.snapshot]
        for name, answer in upload.files.items():
            error = Unavailable("its store was closed") if answer.cancelled() else answer.exception()
            if isinstance(error, Exception):
                upload.outcome.errors[name] = error
                self._last.pop((run_id, f"{event.path}/{name}".strip("/")), None)
            elif error is not None:
                raise error
        del self._begun[run_id, event.snapshot]
        upload.opened.close()
        return upload.outcome

    def delivered(self) -> None:
        """Forget what was sent before: others may have written to the same paths since."""
        self._last.clear()

    def _give_up(self, run_id: str, path: str, upload: _Upload) -> None:
        """Forget files that are on their way, once no thread reads them any more."""
        from concurrent.futures import wait

        wait([answer for answer in upload.files.values() if not answer.cancel()])
        for name in upload.files:
            self._last.pop((run_id, f"{path}/{name}".strip("/")), None)

    def _send(self, files: RemoteFiles, run_id: str, local: Path, path: str, before: tuple[str, str] | None) -> None:
        # Files in folders are not compared: that needs a link to each of them.
        if before is None or before[1] or not self._equals(local, before[0]):
            files.write_artifact(run_id, local, path, directory=False)

    def _equals(self, local: Path, snapshot: str) -> bool:
        """Whether a file has the content of a snapshot; only files of the same size are read."""
        try:
            with opened_snapshot(self._directory, snapshot) as other:
                return local.stat().st_size == other.path.stat().st_size and _hash(local) == _hash(other.path)
        except OSError:  # It is removed.
            return False


def _hash(path: Path) -> bytes:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").digest()

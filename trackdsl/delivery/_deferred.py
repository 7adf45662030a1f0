"""Artifacts that the artifact store would not take yet, so that metrics need not wait for them."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

import msgspec

from trackdsl import _events as events
from trackdsl.delivery._sink import Refused, Sink, Unavailable
from trackdsl.errors import logger

_PAUSE = 5.0


class _Artifact(msgspec.Struct, frozen=True):
    run_id: str
    path: str
    snapshot: str
    directory: bool


class DeferredArtifacts:
    """The artifacts of one journal that are tried again later.

    Args:
        directory: the journal's folder.

    Attributes:
        reason: what the store said last.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._path = directory / "deferred"
        self._next_try = 0.0
        self.reason = ""
        try:
            self._waiting = msgspec.json.decode(self._path.read_bytes(), type=list[_Artifact])
        except (OSError, msgspec.MsgspecError):
            self._waiting = []

    def __len__(self) -> int:
        return len(self._waiting)

    def holds(self, run_id: str) -> bool:
        """Whether an artifact of a run waits."""
        return any(artifact.run_id == run_id for artifact in self._waiting)

    def add(self, run_id: str, event: events.File, reason: str) -> None:
        """Keep an artifact for later."""
        artifact = _Artifact(run_id, event.path, event.snapshot, event.directory)
        if artifact not in self._waiting:
            self._waiting.append(artifact)
        self.reason = reason
        self._next_try = time.monotonic() + _PAUSE
        self._save()

    def retry(self, sink: Sink) -> bool:
        """Try again, at most every few seconds; returns whether anything was delivered."""
        if not self._waiting or time.monotonic() < self._next_try:
            return False
        left: list[_Artifact] = []
        away: set[str] = set()
        for artifact in self._waiting:
            if artifact.run_id in away:  # In order, see `holds`.
                left.append(artifact)
                continue
            local = self._directory / "files" / artifact.snapshot
            try:
                if local.exists():
                    sink.write_artifact(artifact.run_id, local, artifact.path, directory=artifact.directory)
                    shutil.rmtree(local.parent, ignore_errors=True)
            except Refused as error:
                # It could be stored when it was first tried, or the answer would have been another then.
                logger.warning("trackdsl: the artifact %r is left out: %s", artifact.path, error)
            except Unavailable as error:
                self.reason = f"the artifact {artifact.path!r} is not taken: {error}"
                left.append(artifact)
                away.add(artifact.run_id)
        delivered = len(left) < len(self._waiting)
        self._waiting = left
        self._next_try = time.monotonic() + _PAUSE
        self._save()
        return delivered

    def _save(self) -> None:
        part = self._path.with_suffix(".part")
        try:
            part.write_bytes(msgspec.json.encode(self._waiting))
            os.replace(part, self._path)
        except OSError as error:
            # Without the note a crash would lose them: delivery stays where it is until there is room.
            raise Unavailable(f"cannot note the artifacts that wait in {self._path}: {error}") from None

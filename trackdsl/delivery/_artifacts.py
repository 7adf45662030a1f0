"""The artifacts, models and datasets of one journal on their way, and those the store would not take yet.

An artifact store that is away must not hold up metrics, nor may what it did not take be lost.
"""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path
from typing import Union

import msgspec

from trackdsl import _events as events
from trackdsl.delivery._runs import KnownRun
from trackdsl.delivery._sink import Refused, Sink, Unavailable
from trackdsl.errors import logger

_PAUSE = 5.0

Stored = Union[events.File, events.Model]


class _Waiting(msgspec.Struct, frozen=True):
    run_id: str
    experiment_id: str
    place: str
    event: bytes


class Artifacts:
    """Delivers what a journal keeps as files, in order for each run; tries again later what is not taken.

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
            self._waiting = msgspec.json.decode(self._path.read_bytes(), type=list[_Waiting])
        except (OSError, msgspec.MsgspecError):
            self._waiting = []

    def __len__(self) -> int:
        return len(self._waiting)

    def store(self, sink: Sink, run: KnownRun, event: Stored, *, in_doubt: bool) -> str | None:
        """Deliver one artifact, or keep it for later.

        Args:
            sink: the store.
            run: whose artifact it is.
            event: tells of it.
            in_doubt: it may have been delivered, and its snapshot removed, just before the last process died.

        Returns:
            why it is left out for good; None where it is not.
        """
        local = self._directory / "files" / event.snapshot
        if any(waiting.run_id == run.run_id and _overlap(waiting.place, _key(event)) for waiting in self._waiting):
            # In order: an older file must not be stored over a newer one later.
            self._defer(run, event, self.reason)
            return None
        if not local.exists():
            return None if in_doubt else "its snapshot is gone"
        try:
            _send(sink, run.run_id, run.experiment_id, event, local)
        except Refused as error:
            check_experiment(sink, run, error)
            shutil.rmtree(local.parent, ignore_errors=True)
            return f"MLflow refused it: {error}"
        except Unavailable as error:
            logger.warning("trackdsl keeps %r for later: %s", place_of(event), error)
            self._defer(run, event, str(error))
            return None
        shutil.rmtree(local.parent, ignore_errors=True)
        return None

    def retry(self, sink: Sink) -> bool:
        """Try again, at most every few seconds; returns whether anything was delivered."""
        if not self._waiting or time.monotonic() < self._next_try:
            return False
        left: list[_Waiting] = []
        away: list[tuple[str, str]] = []
        for waiting in self._waiting:
            if any(waiting.run_id == run_id and _overlap(waiting.place, place) for run_id, place in away):
                left.append(waiting)
                continue
            event = events.decode(waiting.event)
            assert isinstance(event, (events.File, events.Model))
            local = self._directory / "files" / event.snapshot
            try:
                if local.exists():
                    _send(sink, waiting.run_id, waiting.experiment_id, event, local)
                    shutil.rmtree(local.parent, ignore_errors=True)
            except Refused as error:
                # It could be stored when it was first tried, or the answer would have been another then.
                logger.warning("trackdsl: %r is left out: %s", place_of(event), error)
            except Unavailable as error:
                self.reason = f"{place_of(event)!r} is not taken: {error}"
                left.append(waiting)
                away.append((waiting.run_id, waiting.place))
        delivered = len(left) < len(self._waiting)
        self._waiting = left
        self._next_try = time.monotonic() + _PAUSE
        self._save()
        return delivered

    def hurry(self) -> None:
        """Try again at once what waits."""
        self._next_try = 0.0

    def _defer(self, run: KnownRun, event: Stored, reason: str) -> None:
        waiting = _Waiting(run.run_id, run.experiment_id, _key(event), events.encode(event))
        if waiting not in self._waiting:
            self._waiting.append(waiting)
        self.reason = reason
        self._next_try = time.monotonic() + _PAUSE
        self._save()

    def _save(self) -> None:
        part = self._path.with_suffix(".part")
        try:
            part.write_bytes(msgspec.json.encode(self._waiting))
            os.replace(part, self._path)
        except OSError as error:
            # Without the note a crash would lose them: delivery stays where it is until there is room.
            raise Unavailable(f"cannot note the artifacts that wait in {self._path}: {error}") from None


def _send(sink: Sink, run_id: str, experiment_id: str, event: Stored, local: Path) -> None:
    if isinstance(event, events.Model):
        sink.write_model(run_id, experiment_id, event, local)
    else:
        sink.write_artifact(run_id, local, event.path, directory=event.directory)


def check_experiment(sink: Sink, run: KnownRun, error: Refused) -> None:
    """Let what was refused wait where the experiment is deleted: it may be restored.

    Raises:
        Unavailable: it is deleted.
    """
    try:
        deleted = sink.experiment_is_deleted(run.experiment_id)
    except Refused:  # It is gone for good.
        return
    if deleted:
        raise Unavailable(
            f"the MLflow experiment {run.experiment_id} is deleted: restore it with `mlflow experiments restore "
            f"--experiment-id {run.experiment_id}`, and its runs will be delivered ({error})"
        ) from None


def _key(event: Stored) -> str:
    """Where an artifact stands among those of its run; ends with a slash."""
    kind = "models" if isinstance(event, events.Model) else "files"
    return f"{kind}/{place_of(event)}".rstrip("/") + "/"


def _overlap(one: str, other: str) -> bool:
    """Whether two artifacts are the same or one is inside the other, so that their order counts."""
    return one.startswith(other) or other.startswith(one)


def place_of(event: Stored) -> str:
    """Where an artifact stands in its run."""
    return event.name if isinstance(event, events.Model) else event.path

"""Delivery of the artifacts, models and datasets of one journal, and of those that the store has not accepted yet.

An artifact store that cannot be reached must not delay metrics, and nothing may be lost that it did not accept.
"""

from __future__ import annotations

import contextlib
import errno
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec

from trackdsl._core import events
from trackdsl._core.artifact_paths import checked_path
from trackdsl._core.decoders import json_decoder
from trackdsl.delivery._blocked import check_experiment
from trackdsl.delivery._model_points import ModelPoints
from trackdsl.delivery._run_map import DeliveredRun
from trackdsl.delivery._sink import Batch, Refused, Sink, Unavailable
from trackdsl.delivery._timing import timing
from trackdsl.errors import logger
from trackdsl.journal._files import read_regular, remove, replace
from trackdsl.journal._snapshots import UnsafeSnapshot, opened_snapshot, remove_snapshot
from trackdsl.store_format import limits as _limits

Stored = events.File | events.Model


class _Waiting(msgspec.Struct, frozen=True, rename={"path": "place"}):
    run_id: str
    experiment_id: str
    path: str
    event: bytes


class Artifacts:
    """Delivers the files of a journal, in order for each run, and tries again later if the store does not accept them.

    Args:
        directory: the journal's folder.
        models: the points of logged models.

    Attributes:
        reason: the last error of the store.
    """

    def __init__(self, directory: Path, models: ModelPoints) -> None:
        self._directory = directory
        self._models = models
        self._path = directory / "deferred"
        self._next_try = 0.0
        self.reason = ""
        self._waiting = _read(self._path)
        for left in directory.glob("upload-*"):  # Of a process that died; the hard links in it cost no space.
            remove(left)

    def __len__(self) -> int:
        return len(self._waiting)

    def store(self, sink: Sink, run: DeliveredRun, event: Stored, *, in_doubt: bool) -> dict[str, str]:
        """Deliver one artifact, or defer it.

        Args:
            sink: the store.
            run: the run of the artifact.
            event: describes the artifact.
            in_doubt: whether it may have been delivered, and its snapshot removed, just before the last process died.

        Returns:
            what is left out for good, by its path in the run, with the reasons: the artifact, or files in it.
        """
        if any(waiting.run_id == run.run_id and _overlap(waiting.path, _key(event)) for waiting in self._waiting):
            # In order: an older file must not be stored over a newer one later.
            self._defer(run, event, self.reason)
            return {}
        path = path_of(event)
        try:
            left_out = self._send(sink, run.run_id, run.experiment_id, event)
        except FileNotFoundError:
            return {} if in_doubt else {path: "its snapshot is gone"}
        except UnsafeSnapshot as error:
            return {path: error.why}
        except Refused as error:
            check_experiment(sink, run.experiment_id, error)
            remove_snapshot(self._directory, event.snapshot)
            return {path: f"MLflow refused it: {error}"}
        except Exception as error:
            # Also an unexpected error: the rest of the run must not wait for this artifact.
            logger.warning("trackdsl defers %r: %s", path, error)
            self._defer(run, event, str(error))
            return {}
        remove_snapshot(self._directory, event.snapshot)
        return left_out

    def retry(self, sink: Sink) -> bool:
        """Try again, but only every few seconds; returns whether anything was delivered."""
        if not self.due():
            return False
        left: list[_Waiting] = []
        away: list[tuple[str, str]] = []
        for waiting in self._waiting:
            if any(waiting.run_id == run_id and _overlap(waiting.path, path) for run_id, path in away):
                left.append(waiting)
                continue
            event = events.decode(waiting.event)
            assert isinstance(event, (events.File, events.Model))
            try:
                self._retry(sink, waiting, event)
            except Exception as error:
                # Also an unexpected error: other artifacts must not wait for this one.
                self.reason = f"{path_of(event)!r} is not accepted: {error}"
                left.append(waiting)
                away.append((waiting.run_id, waiting.path))
        delivered = len(left) < len(self._waiting)
        self._waiting = left
        self._next_try = time.monotonic() + timing().file_retry
        self._save()
        return delivered

    def due(self) -> bool:
        """Whether it is time to try again."""
        return bool(self._waiting) and time.monotonic() >= self._next_try

    def retry_now(self) -> None:
        """Try again at once what waits."""
        self._next_try = 0.0

    def drop(self, run_id: str) -> None:
        """Forget the deferred artifacts of one run."""
        left = [waiting for waiting in self._waiting if waiting.run_id != run_id]
        if len(left) < len(self._waiting):
            self._waiting = left
            self._save()

    def _send(self, sink: Sink, run_id: str, experiment_id: str, event: Stored) -> dict[str, str]:
        """Write an artifact to the store; returns which files in it are left out, and why."""
        if isinstance(event, events.File):
            check_path(event.path, event.snapshot)
        with _legible(), opened_snapshot(self._directory, event.snapshot) as snapshot:
            if isinstance(event, events.File):
                sink.write_artifact(run_id, snapshot.path, event.path, directory=event.directory)
            elif snapshot.left_out:  # A model without one of its files is broken.
                raise UnsafeSnapshot(next(iter(snapshot.left_out.values())), event.snapshot)
            else:
                model_id = sink.write_model(run_id, experiment_id, event, snapshot.path)
                self._models.added(sink, run_id, model_id, event.step, events.model_key(event))
            path = path_of(event)
            return {f"{path}/{name}".lstrip("/"): why for name, why in snapshot.left_out.items()}

    def _retry(self, sink: Sink, waiting: _Waiting, event: Stored) -> None:
        path = path_of(event)
        try:
            left_out = self._send(sink, waiting.run_id, waiting.experiment_id, event)
            remove_snapshot(self._directory, event.snapshot)
        except FileNotFoundError:  # It was delivered just before the last process died.
            return
        except UnsafeSnapshot as error:
            left_out = {path: error.why}
        except Refused as error:
            check_experiment(sink, waiting.experiment_id, error)
            # The artifact was acceptable when it was first tried, or it would have been refused then.
            left_out = {path: f"MLflow refused it: {error}"}
        for name, why in left_out.items():
            logger.warning("trackdsl: %r is left out: %s", name, why)
            with contextlib.suppress(Refused):  # The run is deleted too.
                sink.write(waiting.run_id, Batch(tags={omitted_tag(name): _limits.fit_text(why, 500)}))

    def _defer(self, run: DeliveredRun, event: Stored, reason: str) -> None:
        waiting = _Waiting(run.run_id, run.experiment_id, _key(event), events.encode(event))
        if waiting not in self._waiting:
            self._waiting.append(waiting)
        self.reason = reason
        self._next_try = time.monotonic() + timing().file_retry
        self._save()

    def _save(self) -> None:
        try:
            replace(self._path, msgspec.json.encode(self._waiting))
        except OSError as error:
            # Without the note, a crash would lose them: delivery stops here until there is space.
            raise Unavailable(f"cannot note the deferred artifacts in {self._path}: {error}") from None


@contextlib.contextmanager
def _legible() -> Iterator[None]:
    """Distinguish a snapshot that can never be read from a machine that is short of resources."""
    try:
        yield
    except (FileNotFoundError, UnsafeSnapshot):
        raise
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EPERM, errno.ENAMETOOLONG):
            raise UnsafeSnapshot(f"its snapshot cannot be read: {error.strerror}", str(error.filename)) from None
        raise Unavailable(f"cannot read a snapshot: {error}") from None


def _read(path: Path) -> list[_Waiting]:
    """The deferred artifacts; entries that name no artifact are skipped."""
    try:
        noted = json_decoder(list[_Waiting]).decode(read_regular(path))
    except FileNotFoundError:
        return []
    except (OSError, RecursionError, msgspec.MsgspecError) as error:
        logger.warning("trackdsl cannot read which artifacts are deferred, in %s: %s", path, error)
        return []
    return [waiting for waiting in noted if _names_artifact(waiting)]


def _names_artifact(waiting: _Waiting) -> bool:
    try:
        return isinstance(events.decode(waiting.event), (events.File, events.Model))
    except (msgspec.MsgspecError, RecursionError):
        return False


def check_path(path: str, snapshot: str) -> None:
    """Check that an artifact's path stays inside of its run.

    Raises:
        UnsafeSnapshot: it does not.
    """
    try:
        checked_path(path)
    except ValueError as error:
        raise UnsafeSnapshot(str(error), snapshot) from None


def omitted_tag(path: str) -> str:
    """The tag that says why something is left out of a run."""
    return _limits.fit_key(f"trackdsl.omitted.{path}")


def _key(event: Stored) -> str:
    """The path of an artifact among all artifacts of its run; ends with a slash."""
    kind = "models" if isinstance(event, events.Model) else "files"
    return f"{kind}/{path_of(event)}".rstrip("/") + "/"


def _overlap(one: str, other: str) -> bool:
    """Whether two paths are equal or one contains the other, so that their order matters."""
    return one.startswith(other) or other.startswith(one)


def path_of(event: Stored) -> str:
    """The path of an artifact in its run."""
    return event.name if isinstance(event, events.Model) else event.path

"""Delivery of the artifacts, models and datasets of one journal, and of those that the store has not accepted yet.

An artifact store that cannot be reached must not delay metrics, and nothing may be lost that it did not accept.
"""

from __future__ import annotations

import bisect
import contextlib
import errno
import time
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from trackdsl._core import events
from trackdsl._core.artifact_paths import checked_path
from trackdsl.delivery._timing import timing
from trackdsl.delivery.batches._model_points import ModelPoints
from trackdsl.delivery.batches._single_writes import tag_omitted
from trackdsl.delivery.files._uploads import Uploads
from trackdsl.delivery.state._blocked import check_experiment
from trackdsl.delivery.state._run_map import DeliveredRun
from trackdsl.delivery.state._waiting_artifacts import DeferredArtifacts, WaitingArtifact, recorded_order
from trackdsl.delivery.store._errors import Refused, RefusedParts, Unavailable
from trackdsl.delivery.store._sink import Sink
from trackdsl.errors import logger
from trackdsl.journal._files import remove
from trackdsl.journal._snapshots import UnsafeSnapshot, opened_snapshot, remove_snapshot

if TYPE_CHECKING:
    from trackdsl.delivery.state._open_journal import OpenJournal

Stored = events.File | events.Model

#: This many artifacts are on their way at most before their events are applied.
_MOST_BEGUN = 8


class _Sent(NamedTuple):
    """The result of sending an artifact: the files that are left out, those that wait, and one of their errors."""

    left_out: dict[str, str]
    waiting: list[str]
    error: Exception | None = None


class Artifacts:
    """Delivers the files of a journal, in order for each run, and tries again later if the store does not accept them.

    Args:
        stream: the journal.
        models: the points of logged models.

    Attributes:
        reason: the last error of the store.
        uploads: the files that are on their way.
    """

    def __init__(self, stream: OpenJournal, models: ModelPoints) -> None:
        self._stream = stream
        self._directory = directory = stream.directory
        self._models = models
        self._deferred = DeferredArtifacts(stream.ledger)
        self._next_try = 0.0
        self.reason = ""
        self._waiting = self._deferred.read()
        #: Snapshots that are not needed once their events are written down as delivered.
        self._spent: list[str] = []
        self.uploads = Uploads(directory)
        for left in directory.glob("upload-*"):  # Of a process that died; the hard links in it cost no space.
            remove(left)

    def __len__(self) -> int:
        return len(self._waiting)

    def begin(self, sink: Sink, next_ones: Iterable[tuple[DeliveredRun, events.File]]) -> None:
        """Begin to send the next files of a stretch, before their events are applied.

        Args:
            sink: the store.
            next_ones: their runs and events, in order.
        """
        older = [(waiting.run_id, waiting.path) for waiting in self._waiting]
        self._begin_in_order(sink, ((run.run_id, event, None) for run, event in next_ones), older)

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
            sent = self._send(sink, run.run_id, run.experiment_id, event)
        except FileNotFoundError:
            return {} if in_doubt else {path: "its snapshot is gone"}
        except UnsafeSnapshot as error:
            return {path: error.why}
        except Refused as error:
            check_experiment(sink, run.experiment_id, error)
            self._spent.append(event.snapshot)
            return {path: f"MLflow refused it: {error}"}
        except Exception as error:
            # Also an unexpected error: the rest of the run must not wait for this artifact.
            logger.warning("trackdsl defers %r: %s", path, error)
            self._defer(run, event, str(error))
            return {}
        if sent.waiting:
            logger.warning("trackdsl defers %d files in %r: %s", len(sent.waiting), path, sent.error)
            self._defer(run, event, str(sent.error), sent.waiting)
        elif isinstance(event, events.Model):
            # It has its points now. Stored again, it would get those of later events without their datasets.
            remove_snapshot(self._directory, event.snapshot)
        else:
            self._spent.append(event.snapshot)
        return sent.left_out

    def delivered(self) -> None:
        """Remove the snapshots of artifacts that were stored or refused, now that this is written down."""
        for snapshot in self._spent:
            remove_snapshot(self._directory, snapshot)
        self._spent.clear()
        self.uploads.delivered()

    def forget(self) -> None:
        """Keep the snapshots of the artifacts that were stored: they will be stored again."""
        self._spent.clear()

    def retry(self, sink: Sink) -> bool:
        """Try again, but only every few seconds; returns whether anything was delivered or left out."""
        if not self.due():
            return False
        left: list[WaitingArtifact] = []
        away: list[tuple[str, str]] = []
        for number, waiting in enumerate(self._waiting):
            if any(waiting.run_id == run_id and _overlap(waiting.path, path) for run_id, path in away):
                left.append(waiting)
                continue
            self._begin_in_order(sink, map(_described, self._waiting[number:]), away.copy())
            _, event, _ = _described(waiting)
            try:
                remaining = self._retry(sink, waiting, event)
                if remaining:
                    left.append(msgspec.structs.replace(waiting, only=remaining))
                    away.append((waiting.run_id, waiting.path))
            except Exception as error:
                # Also an unexpected error: other artifacts must not wait for this one.
                self.reason = f"{path_of(event)!r} is not accepted: {error}"
                left.append(waiting)
                away.append((waiting.run_id, waiting.path))
        delivered = left != self._waiting
        self._waiting = left
        self._next_try = time.monotonic() + timing().file_retry
        self._deferred.write(self._waiting)
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
            self._deferred.write(self._waiting)

    def _begin_in_order(
        self,
        sink: Sink,
        next_ones: Iterable[tuple[str, Stored, list[str] | None]],
        older: list[tuple[str, str]],
    ) -> None:
        """Begin to send the next files, but no file before an older one with the same path.

        Args:
            sink: the store.
            next_ones: their runs and events, and the files in a folder that are sent; None for all.
            older: runs and paths of what has to be stored before them.
        """
        for run_id, event, only in next_ones:
            if len(self.uploads) >= _MOST_BEGUN:
                return
            key = _key(event)
            in_order = not any(run_id == other and _overlap(key, path) for other, path in older)
            if in_order and isinstance(event, events.File) and not self._begin(sink, run_id, event, only):
                return
            older.append((run_id, key))

    def _begin(self, sink: Sink, run_id: str, event: events.File, only: list[str] | None) -> bool:
        """Begin to send a file or folder; False if its store only copies files. Errors come when it is stored."""
        with contextlib.suppress(OSError, Refused, Unavailable):
            check_path(event.path, event.snapshot)
            files = sink.files(run_id)
            if files is None:
                return False
            self.uploads.begin(files, run_id, event, only)
        return True

    def _send(self, sink: Sink, run_id: str, experiment_id: str, event: Stored, only: list[str] | None = None) -> _Sent:
        """Write an artifact to the store, or only some of the files in it."""
        path = path_of(event)
        if isinstance(event, events.File):
            check_path(event.path, event.snapshot)
            begun = self.uploads.has_begun(run_id, event)
            files = None if begun else sink.files(run_id)
            if begun or files is not None:
                with _legible():
                    if files is not None:
                        self.uploads.begin(files, run_id, event, only)
                return self._finish(sink, run_id, experiment_id, event)
        with _legible(), opened_snapshot(self._directory, event.snapshot) as snapshot:
            left_out = dict(snapshot.left_out)
            if isinstance(event, events.File):
                try:
                    sink.write_artifact(run_id, snapshot.path, event.path, directory=event.directory)
                except RefusedParts as error:
                    left_out |= {name: f"MLflow refused it: {why}" for name, why in error.reasons.items()}
            elif snapshot.left_out:  # A model without one of its files is broken.
                raise UnsafeSnapshot(next(iter(snapshot.left_out.values())), event.snapshot)
            else:
                model_id = sink.write_model(run_id, experiment_id, event, snapshot.path)
                self._models.added(sink, run_id, model_id, event.step, events.model_key(event))
            return _Sent(_below(path, left_out), [])

    def _finish(self, sink: Sink, run_id: str, experiment_id: str, event: events.File) -> _Sent:
        """Wait for the files of an artifact; those of a folder that the store did not take wait on their own."""
        outcome = self.uploads.finish(run_id, event)
        left_out, waiting, error = dict(outcome.left_out), list[str](), None
        for name, answer in outcome.errors.items():
            if not event.directory:
                raise answer
            if isinstance(answer, Refused):
                check_experiment(sink, experiment_id, answer)
                left_out[name] = f"MLflow refused it: {answer}"
            else:
                waiting.append(name)
                error = answer
        return _Sent(_below(event.path, left_out), waiting, error)

    def _retry(self, sink: Sink, waiting: WaitingArtifact, event: Stored) -> list[str]:
        """Try one artifact again; returns the files in it that wait on."""
        path = path_of(event)
        sent = _Sent({}, [])
        gone = False
        try:
            sent = self._send(sink, waiting.run_id, waiting.experiment_id, event, waiting.only)
        except FileNotFoundError:  # It was delivered just before the last process died.
            return []
        except UnsafeSnapshot as error:
            sent, gone = _Sent({path: error.why}, []), True
        except Refused as error:
            check_experiment(sink, waiting.experiment_id, error)
            # The artifact was acceptable when it was first tried, or it would have been refused then.
            sent, gone = _Sent({path: f"MLflow refused it: {error}"}, []), True
        for name, why in sent.left_out.items():
            tag_omitted(sink, waiting.run_id, name, why, waiting.experiment_id)
        for name, why in sent.left_out.items():  # Now that no error makes it all happen again.
            logger.warning("trackdsl: %r is left out: %s", name, why)
        self._stream.progress.refused += len(sent.left_out)
        if sent.waiting:
            self.reason = f"{len(sent.waiting)} files in {path!r} are not accepted: {sent.error}"
        elif not gone:
            remove_snapshot(self._directory, event.snapshot)
        return sent.waiting

    def _defer(self, run: DeliveredRun, event: Stored, reason: str, only: list[str] | None = None) -> None:
        waiting = WaitingArtifact(run.run_id, run.experiment_id, _key(event), events.encode(event), only)
        if not any((other.run_id, other.event) == (waiting.run_id, waiting.event) for other in self._waiting):
            # Not always at the end: an older one that was stored is read again where its stretch failed.
            bisect.insort(self._waiting, waiting, key=recorded_order)
        self.reason = reason
        self._next_try = time.monotonic() + timing().file_retry
        self._deferred.write(self._waiting)


def _described(waiting: WaitingArtifact) -> tuple[str, Stored, list[str] | None]:
    event = events.decode(waiting.event)
    assert isinstance(event, (events.File, events.Model))
    return waiting.run_id, event, waiting.only


def _below(path: str, left_out: dict[str, str]) -> dict[str, str]:
    return {f"{path}/{name}".strip("/"): why for name, why in left_out.items()}


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


def check_path(path: str, snapshot: str) -> None:
    """Check that an artifact's path stays inside of its run.

    Raises:
        UnsafeSnapshot: it does not.
    """
    try:
        checked_path(path)
    except ValueError as error:
        raise UnsafeSnapshot(str(error), snapshot) from None


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

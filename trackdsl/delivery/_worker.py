"""The worker: delivers every journal of a spool, in the delivery process, in a thread, or under `trackdsl sync`."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

from trackdsl.delivery._durability import Durability
from trackdsl.delivery._health import why_unreachable
from trackdsl.delivery._interpreter import Shared
from trackdsl.delivery._model_points import ModelPoints
from trackdsl.delivery._open_sinks import OpenSinks
from trackdsl.delivery._own_tags import OwnTags
from trackdsl.delivery._remote_runs import RemoteRuns
from trackdsl.delivery._sampling import Sampler
from trackdsl.delivery._shared_points import SharedPoints
from trackdsl.delivery._sink import NotYet, Sink, Unavailable
from trackdsl.delivery._stream import Stream
from trackdsl.delivery._tables import Tables
from trackdsl.delivery._timing import timing
from trackdsl.delivery._vanished import Folders, Vanished
from trackdsl.delivery.environment import Environments
from trackdsl.delivery.journal_requests import carry_out, is_pending
from trackdsl.errors import logger
from trackdsl.journal._lock import FileLock, is_held, is_written
from trackdsl.journal._origin import Origin, read_origin
from trackdsl.journal._ownership import check_folder
from trackdsl.journal._reader import newer_schema
from trackdsl.journal._spool import WAKE, check_content, check_spool, make_folder, scan_journals, sweep, wake
from trackdsl.store_format.servers import LOCAL, folder_of, lock_of, server_of

#: How long a program may take to hand over its environment, in seconds; after that, another environment is used.
_HANDOVER_PATIENCE = 3.0

#: With more journals than these, each opens its files only while it is delivered.
_MOST_OPEN = 12

#: Opens the sink of a target.
OpenSink = Callable[[str, str], Sink]


@dataclass
class _Store:
    """A tracking URI with its working directory, and whether the store answers."""

    uri: str
    cwd: str
    failures: int = 0


@dataclass
class _Pause:
    """How long one journal waits before it is tried again.

    Each has its own pause: its problem may not concern others.
    """

    length: float = 0.0
    until: float = 0.0


class Worker:
    """Delivers the journals of a spool.

    Args:
        spool: the spool's folder.
        open_sink: opens the sink of a tracking URI and working directory.
        only: the journals to deliver; None for all, including those of later programs.
        server: the only server to deliver to, see `server_of`; None for all stores.
        environments: those of programs, if this process may use them as its own.

    Raises:
        OSError: the spool is not safe from other users, see `check_spool`.

    Attributes:
        environments: the same.
        expects_more: whether all journals that were delivered last expect more events soon.
        woken_at: when a program last woke delivery, on the monotonic clock.
    """

    def __init__(
        self,
        spool: Path,
        open_sink: OpenSink,
        *,
        server: str | None = None,
        environments: Environments | None = None,
        only: Collection[Path] | None = None,
    ) -> None:
        with contextlib.suppress(FileNotFoundError):
            check_spool(spool)
        self.spool = spool
        self._only = only
        self.environments = environments or Environments()
        self._environments_seen = 0
        self._takes_environments = environments is not None
        self._server = server
        self._others: dict[Path, str] = {}
        self._sinks = OpenSinks(open_sink)
        self._folders = Folders()
        self._streams: dict[Path, Stream] = {}
        self._stores: dict[tuple[str, str], _Store] = {}
        self._pauses: dict[Path, _Pause] = {}
        self._unreadable: set[Path] = set()
        self._refused = False
        self._durability = Durability(spool)
        self._sampler = Sampler()
        self._shared: dict[str, Shared] = {}
        self._woken = self._wake_time()
        self.expects_more = False
        self.woken_at = time.monotonic()
        if server in (None, LOCAL):  # One process for each spool is enough for these tasks.
            sweep(spool)
            self._durability.start()

    def round(self) -> bool:
        """Deliver a stretch of every journal that can be delivered now.

        Returns:
            whether anything was delivered; if not, wait a little before the next round.
        """
        self._find_streams()
        if self.woken():
            self._woken = self._wake_time()
            self.woken_at = time.monotonic()
            self._carry_out_requests()
            self._retry_all_now()
        if self.environments.version != self._environments_seen:
            self._environments_seen = self.environments.version
            self._retry_all_now()
            for stream in self._streams.values():
                if stream.progress.set_aside:  # These runs may need other credentials.
                    self.environments.failed(stream.origin.prefix, is_held(stream.directory / "lock"))
        busy = [stream for stream in list(self._streams.values()) if self._deliver(stream)]
        self._sinks.close_idle()
        self.expects_more = all(stream.expects_more for stream in busy)
        return bool(busy)

    def woken(self) -> bool:
        """Whether a program woke delivery since the last round."""
        return self._wake_time() != self._woken

    def idle(self) -> bool:
        """Whether no journal is left that this worker could ever deliver."""
        self._find_streams()
        return not self._streams

    def living(self) -> bool:
        """Whether a program writes to one of the journals, of any store."""
        return any(is_written(directory) for directory in [*self._streams, *self._others])

    def at_work(self) -> bool:
        """Whether other processes deliver on behalf of this worker."""
        return False

    def others(self) -> list[str]:
        """The servers of journals that this worker does not deliver, as of the last round or call of `idle`."""
        return list(dict.fromkeys(self._others.values()))

    def _retry_all_now(self) -> None:
        """Try everything again at once that waits for its next attempt."""
        for shared in self._shared.values():
            shared.tables.retry_now()
            shared.remote_runs.retry_now()
        for stream in self._streams.values():
            stream.retry_now()
        self._pauses.clear()

    def _carry_out_requests(self) -> None:
        """Remove the journals that are to be dropped, and reopen those that are to go to another store."""
        self._others.clear()  # Another worker may have carried out requests too.
        asked = [directory for directory in [*self._streams, *self._unreadable] if is_pending(directory)]
        for directory in asked:
            self._forget_journal(directory)
            try:
                carry_out(directory)
            except OSError as error:
                logger.warning("trackdsl cannot carry out the request for the journal %s: %s", directory, error)
        if asked:
            wake(self.spool)  # Another worker may have to deliver it now.
        self._find_streams()

    def _carry_out_unclaimed(self, directory: Path) -> None:
        """Carry out the request for a journal that no process delivers. A child that delivers it does so itself."""
        origin = read_origin(directory)
        server = LOCAL if origin is None else server_of(origin.uri)
        if self._server is None or server == LOCAL:
            carry_out(directory)
            return
        # While this lock is held, no child starts to deliver the journal to its old store.
        lock = FileLock(lock_of(self.spool, server))
        if lock.acquire():
            try:
                carry_out(directory)
            finally:
                lock.release()

    def _forget_journal(self, directory: Path) -> None:
        """Close a journal, and forget it."""
        stream = self._streams.pop(directory, None)
        if stream is not None:
            stream.close()
            self._shared_of(stream.origin).remote_runs.remove(stream)
        self._unreadable.discard(directory)
        self._pauses.pop(directory, None)

    def close(self) -> None:
        """Close all files."""
        self._durability.stop()
        self._sampler.stop()
        for stream in self._streams.values():
            stream.close()
        self._streams.clear()
        self._sinks.close()

    def _deliver(self, stream: Stream) -> bool:
        try:
            return self._step(stream)
        finally:
            if len(self._streams) > _MOST_OPEN:
                stream.close()

    def _step(self, stream: Stream) -> bool:
        store = self._store_of(stream.origin)
        pause = self._pauses.get(stream.directory)
        if (pause is not None and time.monotonic() < pause.until) or self._waits_for_environment(stream):
            return False
        try:
            # An idle stream is cheap: no sink is opened for it.
            if not stream.is_due():
                return False
            self._folders.check(stream.origin)
            self._use_environment(stream)
            busy = stream.step(self._sink(store))
            self._folders.opened(stream.origin)
        except NotYet as error:
            self._wait(stream, error)
            return False
        except Vanished as error:
            self._back_off(store, stream, str(error))
            return self._abandon(stream)
        except Unavailable as error:
            self._back_off(store, stream, str(error))
            return False
        except OSError as error:
            self._back_off(store, stream, f"the journal cannot be read: {error}")
            return False
        except Exception as error:
            # An error in trackdsl or MLflow: this journal waits, the others continue.
            logger.exception("trackdsl: the delivery of %s failed", stream.directory)
            self._back_off(store, stream, f"{type(error).__name__}: {error}")
            return False
        store.failures = 0
        self._pauses.pop(stream.directory, None)
        if stream.finished:
            self._remove_finished(stream)
        return busy

    def _sink(self, store: _Store) -> Sink:
        key = (store.uri, store.cwd)
        sink = self._sinks.get(key)
        if sink is None or store.failures:
            reason = why_unreachable(store.uri, store.failures)
            if reason is not None:
                raise Unavailable(reason)
        return sink or self._sinks.open(key)

    def _abandon(self, stream: Stream) -> bool:
        """Drop the journal of a program that has ended and whose store is gone; returns whether it was dropped."""
        if is_held(stream.directory / "lock"):
            return False
        stream.abandon()
        self._remove_finished(stream)
        return True

    def _remove_finished(self, stream: Stream) -> None:
        """Forget a journal that is gone."""
        del self._streams[stream.directory]
        self._pauses.pop(stream.directory, None)
        self._shared_of(stream.origin).remote_runs.remove(stream)

    def _wait(self, stream: Stream, error: NotYet) -> None:
        if error.blocks and error.pause is None:
            self._lengthen_pause(stream)
        else:
            pause = timing().first_retry if error.pause is None else error.pause
            self._pauses[stream.directory] = _Pause(0.0, time.monotonic() + pause)
        if error.blocks:
            stream.note_blocked(str(error))

    def _back_off(self, store: _Store, stream: Stream, error: str) -> None:
        if not store.failures:
            logger.warning("trackdsl: delivery waits: %s", error)
        store.failures += 1
        self.environments.failed(stream.origin.prefix, is_held(stream.directory / "lock"))
        self._lengthen_pause(stream)
        stream.note_blocked(error)

    def _lengthen_pause(self, stream: Stream) -> None:
        pause = self._pauses.setdefault(stream.directory, _Pause())
        pause.length = min(max(pause.length * 2, timing().first_retry), timing().longest_retry)
        pause.until = time.monotonic() + pause.length

    def _waits_for_environment(self, stream: Stream) -> bool:
        """Whether a program that has just begun will hand over its environment in a moment."""
        origin = stream.origin
        if not self._takes_environments or self.environments.knows(origin.prefix):
            return False
        return time.time() - origin.time / 1e9 < _HANDOVER_PATIENCE and is_held(stream.directory / "lock")

    def _use_environment(self, stream: Stream) -> None:
        """Use the environment of a journal's program to reach the store."""
        if not self._takes_environments:
            return
        alive = is_held(stream.directory / "lock")
        if self.environments.apply(self.environments.of(stream.origin.prefix, alive)):
            self._sinks.close()

    def _shared_of(self, origin: Origin) -> Shared:
        server = server_of(origin.uri)
        shared = self._shared.get(server)
        if shared is None:
            folder = _folder_for(self.spool, server)
            shared = self._shared[server] = Shared(
                RemoteRuns(folder, self._find_streams),
                SharedPoints(folder, self.spool, self._reached),
                Tables(self.spool, folder),
                ModelPoints(),
                self._sampler,
                OwnTags(self.spool),
            )
        return shared

    def _reached(self, names: set[str]) -> int:
        """The time up to which some journals have all been read, in milliseconds since 1970."""
        streams = (stream for stream in self._streams.values() if stream.directory.name in names)
        return min((stream.reached() for stream in streams), default=time.time_ns() // 1_000_000)

    def _find_streams(self) -> None:
        if not self._is_safe():
            return
        found = list(scan_journals(self.spool))
        present = {directory for directory, _ in found}
        self._others = {directory: server for directory, server in self._others.items() if directory in present}
        for directory in [each for each in self._streams if each not in present and not each.is_dir()]:
            self._forget_journal(directory)  # A user has removed it.
        for directory, problem in found:
            if directory in self._streams or directory in self._unreadable or directory in self._others:
                continue
            if self._only is not None and directory not in self._only:
                continue
            try:
                self._open_journal(directory, problem)
            except (OSError, ValueError) as error:
                self._unreadable.add(directory)
                if self._server in (None, LOCAL):  # Otherwise the parent reports it.
                    logger.warning("trackdsl: the journal %s is not delivered: %s", directory, error)

    def _open_journal(self, directory: Path, problem: str | None) -> None:
        """Begin to deliver a journal that is new to this worker.

        Raises:
            OSError: it is damaged, or not safe.
        """
        if problem is not None:
            raise OSError(1, problem, str(directory))
        if self._server in (None, LOCAL) and is_pending(directory):
            self._carry_out_unclaimed(directory)
            if not directory.is_dir():
                return
        is_held(directory / "lock")  # Raises if the lock can never be held.
        origin = read_origin(directory)
        if origin is None:
            raise OSError(22, "its `origin` file is damaged", str(directory))
        # Before a stream opens the journal for writing; such a stream would also delay all others of its store.
        newer = newer_schema(directory)
        if newer is not None:
            raise OSError(22, f"it was written by a newer trackdsl (schema {newer})", str(directory))
        server = server_of(origin.uri)
        if self._server not in (None, server):
            if self._server == LOCAL:
                _folder_for(self.spool, server)  # If this folder is unusable, its worker would end at once, every time.
            self._others[directory] = server
            return
        shared = self._shared_of(origin)
        stream = self._streams[directory] = Stream(directory, origin, shared)
        if len(self._streams) > _MOST_OPEN:
            stream.close()
        shared.remote_runs.add(stream)

    def _is_safe(self) -> bool:
        """Whether only this user can use the spool; otherwise nothing of it is touched."""
        try:
            check_spool(self.spool)
        except FileNotFoundError:  # The spool was removed; the lock shows whether another one has replaced it.
            return True
        except OSError as error:
            if not self._refused:
                logger.warning("trackdsl: delivery from the spool %s stops: %s", self.spool, error)
            self._refused = True
            for stream in self._streams.values():
                stream.close()
                self._shared_of(stream.origin).remote_runs.remove(stream)
            self._streams.clear()
            return False
        self._refused = False
        return True

    def _store_of(self, origin: Origin) -> _Store:
        key = (origin.uri, origin.cwd)
        store = self._stores.get(key)
        if store is None:
            store = self._stores[key] = _Store(*key)
        return store

    def _wake_time(self) -> float:
        try:
            return (self.spool / WAKE).lstat().st_mtime_ns
        except OSError:
            return 0.0


def _folder_for(spool: Path, server: str) -> Path:
    """The folder of a server, see `folder_of`; it is created if necessary.

    Raises:
        OSError: it cannot be used.
    """
    folder = folder_of(spool, server)
    if server != LOCAL:
        make_folder(folder)
        check_folder(folder)
        check_content(folder)
    return folder

"""The worker: delivers every journal of a spool, in the delivery process, in a thread, or under `trackdsl sync`."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

from trackdsl.delivery._timing import timing
from trackdsl.delivery.environment import of_program
from trackdsl.delivery.journals._stream import Stream
from trackdsl.delivery.journals._streams import Streams
from trackdsl.delivery.process._durability import Durability
from trackdsl.delivery.process._environments import Environments
from trackdsl.delivery.process._health import why_unreachable
from trackdsl.delivery.process._heartbeat_writer import HeartbeatWriter
from trackdsl.delivery.process._open_sinks import OpenSinks
from trackdsl.delivery.process._removed_stores import Folders, StoreRemoved
from trackdsl.delivery.store._errors import NotYet, Unavailable
from trackdsl.delivery.store._sink import Sink
from trackdsl.delivery.summaries._what_changed import Waiting, WhatChanged
from trackdsl.errors import log_once, logger
from trackdsl.journal._lock import is_held
from trackdsl.journal._origin import Origin
from trackdsl.journal._spool import JOURNALS, WAKE, check_spool, sweep
from trackdsl.journal._waiters import is_awaited
from trackdsl.store_format.heartbeat import DELIVERING
from trackdsl.store_format.servers import LOCAL, server_of

#: How long a program may take to hand over its environment, in seconds; after that, the system is asked for it.
_HANDOVER_PATIENCE = 3.0
#: How long a round writes what changed in runs before it looks for events again, in seconds.
_MOMENT = 0.05

#: Opens the sink of a target.
OpenSink = Callable[[str, str], Sink]


@dataclass
class _Store:
    """A tracking URI with its working directory, and whether the store answers."""

    uri: str
    cwd: str
    failures: int = 0

    @property
    def name(self) -> str:
        """The store for people, without credentials."""
        server = server_of(self.uri)
        return "a store on this machine" if server == LOCAL else server


@dataclass
class _Pause:
    """The pause of one journal before it is tried again.

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
        heartbeat: shows what this worker does.

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
        heartbeat: HeartbeatWriter | None = None,
    ) -> None:
        with contextlib.suppress(FileNotFoundError):
            check_spool(spool)
        self.spool = spool
        self._heartbeat = heartbeat or HeartbeatWriter(None)
        self.environments = environments or Environments()
        self._environments_seen = 0
        self._takes_environments = environments is not None
        #: The programs whose environments the system was asked for.
        self._asked: set[str] = set()
        self._sinks = OpenSinks(open_sink)
        self._folders = Folders()
        self._streams = Streams(spool, server=server, only=only, own=environments is not None)
        self._stores: dict[tuple[str, str], _Store] = {}
        self._pauses: dict[Path, _Pause] = {}
        self._durability = Durability(spool)
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
        self._heartbeat.begin_round()
        self._streams.find()
        if self.woken():
            self._woken = self._wake_time()
            self.woken_at = time.monotonic()
            self._streams.carry_out_requests()
            self._retry_all_now()
        if self.environments.version != self._environments_seen:
            self._environments_seen = self.environments.version
            self._retry_all_now()
            for stream in self._streams:
                if stream.progress.blocked:  # These runs may need other credentials.
                    self.environments.failed(stream.origin.prefix, is_held(stream.directory / "lock"))
        busy = [stream for stream in self._streams if self._deliver(stream)]
        written = not busy and self._write_summaries()
        self._sinks.close_idle()
        self.expects_more = bool(busy) and all(stream.expects_more for stream in busy)
        self._heartbeat.end_round()
        return bool(busy) or written

    def woken(self) -> bool:
        """Whether a program woke delivery since the last round."""
        return self._wake_time() != self._woken

    def awaited(self) -> bool:
        """Whether a program waits for delivery now."""
        return is_awaited(self.spool)

    def idle(self) -> bool:
        """Whether no journal is left that this worker could ever deliver."""
        self._streams.find()
        return not self._streams and not any(each.expects() for each in self._streams.what_changed())

    def living(self) -> bool:
        """Whether a program writes to one of the journals, of any store."""
        return self._streams.living()

    def at_work(self) -> bool:
        """Whether other processes deliver on behalf of this worker."""
        return False

    def others(self) -> list[str]:
        """The servers of journals that this worker does not deliver, as of the last round or call of `idle`."""
        return self._streams.others()

    def _retry_all_now(self) -> None:
        """Try everything again at once that waits for its next attempt."""
        self._streams.retry_now()
        self._pauses.clear()

    def close(self) -> None:
        """Close all files."""
        self._durability.stop()
        self._streams.close()
        self._sinks.close()

    def _write_summaries(self) -> bool:
        """Write what changed in root runs that have ended, for a moment; returns whether anything was done.

        Only while nothing is to be delivered, and no program waits.
        """
        until, done = time.monotonic() + _MOMENT, False
        for what_changed in self._streams.what_changed():
            while time.monotonic() < until and not self.awaited() and what_changed.read_next_source():
                done = True
            for waiting in what_changed.due():
                if time.monotonic() >= until or self.woken() or self.awaited():
                    return done
                if not self._streams.awaits_of(waiting.root.origin.prefix):
                    self._write_summary(what_changed, waiting)
                    done = True
        return done

    def _write_summary(self, what_changed: WhatChanged, waiting: Waiting) -> None:
        origin = waiting.root.origin
        store = self._store_of(origin)
        try:
            self._heartbeat.doing(DELIVERING, store.name)
            self._use_environment(origin, self.spool / JOURNALS / waiting.root.journal)
            what_changed.write(self._sink(store), waiting, lambda: self.woken() or self.awaited())
        except Unavailable as error:
            what_changed.failed(waiting, error)
        except Exception as error:
            # An error in trackdsl or MLflow that no tag of the run can say: this run goes without, the others continue.
            log_once(
                f"trackdsl: what changed in run {waiting.root.run_id} cannot be written, nor why",
                key=f"not written:{type(error).__name__}",
                traceback=True,
            )
            what_changed.give_up(waiting)

    def _deliver(self, stream: Stream) -> bool:
        try:
            return self._step(stream)
        finally:
            if self._streams.many():
                stream.close()

    def _step(self, stream: Stream) -> bool:
        store = self._store_of(stream.origin)
        pause = self._pauses.get(stream.directory)
        if (pause is not None and time.monotonic() < pause.until) or self._waits_for_environment(stream):
            stream.last_seen.check()  # The program may be killed while its store is away.
            return False
        try:
            # An idle stream is cheap: no sink is opened for it.
            if not stream.is_due():
                return False
            self._heartbeat.doing(DELIVERING, store.name)
            self._folders.check(stream.origin)
            self._use_environment(stream.origin, stream.directory)
            busy = stream.step(self._sink(store))
            self._folders.opened(stream.origin)
        except NotYet as error:
            self._wait(stream, error)
            return False
        except StoreRemoved as error:
            self._back_off(store, stream, str(error))
            return self._abandon(stream)
        except Unavailable as error:
            self._back_off(store, stream, str(error))
            return False
        except OSError as error:
            self._back_off(store, stream, f"delivery cannot use a file: {error}")
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
        self._streams.remove(stream)
        self._pauses.pop(stream.directory, None)

    def _wait(self, stream: Stream, error: NotYet) -> None:
        if error.blocks and error.pause is None:
            self._lengthen_pause(stream)
        else:
            pause = timing().first_retry if error.pause is None else error.pause
            self._pauses[stream.directory] = _Pause(0.0, time.monotonic() + pause)
        if error.blocks:
            stream.write_blocked(str(error))

    def _back_off(self, store: _Store, stream: Stream, error: str) -> None:
        if not store.failures:
            logger.warning("trackdsl: delivery waits: %s", error)
        store.failures += 1
        self.environments.failed(stream.origin.prefix, is_held(stream.directory / "lock"))
        self._lengthen_pause(stream)
        stream.write_blocked(error)

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

    def _use_environment(self, origin: Origin, directory: Path) -> None:
        """Use the environment of a journal's program to reach the store."""
        if not self._takes_environments:
            return
        alive = is_held(directory / "lock")
        if alive:
            self._learn_environment(origin, directory)
        if self.environments.apply(self.environments.of(origin.prefix, alive)):
            self._sinks.close()

    def _learn_environment(self, origin: Origin, directory: Path) -> None:
        """Ask the system for the environment of a program that has sent none, as it is idle since delivery started.

        Otherwise a later program's would be used, which may hold the credentials of another user. That still happens
        where the system does not answer, as for a program in another PID namespace.
        """
        program = origin.prefix
        if self.environments.knows(program) or program in self._asked:
            return
        self._asked.add(program)
        variables = of_program(origin.pid, directory / "lock")
        if variables is not None:
            self.environments.learn(program, variables)

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

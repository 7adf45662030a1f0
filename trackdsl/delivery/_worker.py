"""The worker: looks after every journal of a spool, in the delivery process, in a thread, or under `trackdsl sync`."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from trackdsl._ids import begins_with
from trackdsl._process import Origin, read_origin
from trackdsl.delivery._durability import Durability
from trackdsl.delivery._health import why_unreachable
from trackdsl.delivery._runs import KnownRun
from trackdsl.delivery._sink import NotYet, Sink, Unavailable
from trackdsl.delivery._stream import Stream
from trackdsl.delivery._tables import Tables
from trackdsl.errors import logger
from trackdsl.journal._lock import is_held
from trackdsl.journal._reader import newer_schema
from trackdsl.journal._spool import journals, sweep

_FIRST_PAUSE = 0.25
_LONGEST_PAUSE = 30.0
_MAX_UNKNOWN = 10_000

#: Opens the sink of a target.
OpenSink = Callable[[str, str], Sink]


@dataclass
class _Place:
    """A tracking URI with the folder it is seen from, and whether it answers."""

    uri: str
    cwd: str
    sink: Sink | None = None
    failures: int = 0


@dataclass
class _Pause:
    """How long a journal waits before it is tried again: its own, as what it waits for may not concern the others."""

    length: float = 0.0
    until: float = 0.0


class Worker:
    """Delivers what is in a spool.

    Args:
        spool: the spool's folder.
        open_sink: opens the sink of a tracking URI and working directory.

    Attributes:
        gathering: whether all that was delivered last will soon have company.
        called_at: when somebody last asked to go on at once, on the monotonic clock.
    """

    def __init__(self, spool: Path, open_sink: OpenSink) -> None:
        self.spool = spool
        self._open_sink = open_sink
        self._streams: dict[Path, Stream] = {}
        self._places: dict[tuple[str, str], _Place] = {}
        self._pauses: dict[Path, _Pause] = {}
        self._waits: set[Path] = set()
        self._unreadable: set[Path] = set()
        self._unknown: set[bytes] = set()
        self._durability = Durability(spool)
        self._tables = Tables(spool)
        self._woken = self._wake_time()
        self.gathering = False
        self.called_at = time.monotonic()
        sweep(spool)
        self._durability.start()

    def round(self) -> bool:
        """Deliver a stretch of every journal that can be delivered now.

        Returns:
            whether anything was done; if not, wait a little before the next round.
        """
        self._find_streams()
        if self.called():
            self._woken = self._wake_time()
            self.called_at = time.monotonic()
            self._pauses.clear()
            self._tables.hurry()
            for stream in self._streams.values():
                stream.hurry()
        busy = [stream for stream in list(self._streams.values()) if self._step(stream)]
        self.gathering = all(stream.gathering for stream in busy)
        return bool(busy)

    def called(self) -> bool:
        """Whether somebody has asked, since the last round, to go on at once."""
        return self._wake_time() != self._woken

    def idle(self) -> bool:
        """Whether no journal is left that this worker could ever deliver."""
        self._find_streams()
        return not self._streams

    def living(self) -> bool:
        """Whether a program writes to one of the journals."""
        return any(is_held(directory / "lock") for directory in self._streams)

    def close(self) -> None:
        """Let go of all files."""
        self._durability.stop()
        for stream in self._streams.values():
            stream.close()
        self._streams.clear()

    def _step(self, stream: Stream) -> bool:
        place = self._place(stream.origin)
        pause = self._pauses.get(stream.directory)
        if pause is not None and time.monotonic() < pause.until:
            return False
        try:
            # An idle stream costs no more than a glance: no sink is opened for it.
            if not stream.has_more() and not stream.progress.deferred:
                return False
            busy = stream.step(self._sink(place))
        except NotYet:
            self._waits.add(stream.directory)
            self._pauses[stream.directory] = _Pause(0.0, time.monotonic() + _FIRST_PAUSE)
            return False
        except Unavailable as error:
            self._back_off(place, stream, str(error))
            return False
        except Exception as error:
            # A fault of ours or of MLflow's: the journal waits, the others go on.
            logger.exception("trackdsl: the delivery of %s failed", stream.directory)
            self._back_off(place, stream, f"{type(error).__name__}: {error}")
            return False
        place.failures = 0
        self._pauses.pop(stream.directory, None)
        self._waits.discard(stream.directory)
        if stream.finished:
            del self._streams[stream.directory]
        return busy

    def _sink(self, place: _Place) -> Sink:
        if place.sink is not None and place.sink.stale():
            place.sink = None
        if place.sink is None or place.failures:
            reason = why_unreachable(place.uri)
            if reason is not None:
                raise Unavailable(reason)
        if place.sink is None:
            place.sink = self._open_sink(place.uri, place.cwd)
        return place.sink

    def _back_off(self, place: _Place, stream: Stream, error: str) -> None:
        if not place.failures:
            logger.warning("trackdsl: delivery waits: %s", error)
        place.failures += 1
        pause = self._pauses.setdefault(stream.directory, _Pause())
        pause.length = min(max(pause.length * 2, _FIRST_PAUSE), _LONGEST_PAUSE)
        pause.until = time.monotonic() + pause.length
        stream.note_blocked(error)

    def _find_foreign(self, id_: bytes, asking: Stream) -> KnownRun | None:
        """A run that another journal opened: a forked child writes on its parent's."""
        others = [stream for stream in self._streams.values() if stream is not asking]
        for stream in others:
            run = stream.runs.get(id_)
            if run is not None:
                return run
        if id_ in self._unknown:
            return None
        # Its own, where the note of it was lost: it has to be ended with the others.
        own = begins_with(id_, bytes.fromhex(asking.origin.prefix))
        # Looked up first: the journal that opened it may be finished and gone.
        found = self._sink(self._place(asking.origin)).find_run(id_.hex(), None)
        if found is None and not own and any(self._may_open(stream, asking) for stream in others):
            raise NotYet("another journal may open this run")
        if found is None:
            if len(self._unknown) < _MAX_UNKNOWN:
                self._unknown.add(id_)
            return None
        run = KnownRun(*found)
        if own:
            asking.runs.add(id_, run)
        else:
            asking.runs.adopt(id_, run)
        return run

    def _may_open(self, other: Stream, asking: Stream) -> bool:
        """Whether `other` may still bring a run that `asking` waits for.

        Of journals that all wait for each other the oldest gives up: one that waits has nothing to say to older ones.
        """
        if other.origin.uri != asking.origin.uri or not other.has_more():
            return False
        return other.directory not in self._waits or other.directory.name < asking.directory.name

    def _find_streams(self) -> None:
        for directory in journals(self.spool):
            if directory in self._streams or directory in self._unreadable:
                continue
            origin = read_origin(directory)
            try:
                if origin is None:
                    raise OSError(22, "its `origin` file is damaged", str(directory))
                # Before a stream opens it for writing; as a stream it would also hold up all others of its store.
                newer = newer_schema(directory)
                if newer is not None:
                    raise OSError(22, f"it was written by a newer trackdsl (schema {newer})", str(directory))
                self._streams[directory] = Stream(directory, origin, self._find_foreign, self._tables)
            except OSError as error:
                self._unreadable.add(directory)
                logger.warning("trackdsl: the journal %s is left alone: %s", directory, error)

    def _place(self, origin: Origin) -> _Place:
        key = (origin.uri, origin.cwd)
        place = self._places.get(key)
        if place is None:
            place = self._places[key] = _Place(*key)
        return place

    def _wake_time(self) -> float:
        try:
            return (self.spool / "wake").stat().st_mtime_ns
        except OSError:
            return 0.0

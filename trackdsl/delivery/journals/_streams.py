"""The journals of a spool that one worker delivers: which there are, and a stream for each."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator
from pathlib import Path

from trackdsl.delivery.batches._model_points import ModelPoints
from trackdsl.delivery.batches._own_tags import OwnTags
from trackdsl.delivery.batches._shared_points import SharedPoints
from trackdsl.delivery.files._tables import Tables
from trackdsl.delivery.journal_requests import carry_out, is_pending
from trackdsl.delivery.journals._stream import Stream
from trackdsl.delivery.runs._remote_runs import RemoteRuns
from trackdsl.delivery.runs._sampling import Sampler
from trackdsl.delivery.runs._shared import Shared
from trackdsl.delivery.state._ledger import server_ledger
from trackdsl.delivery.summaries._what_changed import WhatChanged
from trackdsl.errors import logger
from trackdsl.journal._lock import FileLock, is_held, is_written
from trackdsl.journal._origin import Origin, read_origin
from trackdsl.journal._ownership import check_folder
from trackdsl.journal._segments import newer_schema
from trackdsl.journal._spool import check_content, check_spool, make_folder, scan_journals, wake
from trackdsl.store_format.root_runs import folders, left_in
from trackdsl.store_format.servers import LOCAL, folder_of, lock_of, server_of

#: With more journals than these, each opens its files only while it is delivered.
_MOST_OPEN = 12
#: How long the servers of what an earlier process has left are named, in seconds: then they have their own process.
_NOTICED = 5.0


class Streams:
    """The journals of a spool that one worker delivers; iterating gives their streams.

    Args:
        spool: the spool's folder.
        server: the only server to deliver to, see `server_of`; None for all stores.
        only: the journals to deliver; None for all, including those of later programs.
        own: whether this process belongs to delivery.
    """

    def __init__(
        self, spool: Path, *, server: str | None = None, only: Collection[Path] | None = None, own: bool = False
    ) -> None:
        self._spool = spool
        self._own = own
        self._server = server
        self._only = only
        self._streams: dict[Path, Stream] = {}
        self._others: dict[Path, str] = {}
        self._unreadable: set[Path] = set()
        self._refused = False
        self._sampler = Sampler()
        self._shared: dict[str, Shared] = {}
        #: Servers that an earlier process has left root runs for, until this time on the monotonic clock.
        self._left: set[str] = set()
        self._left_until: float | None = None

    def __iter__(self) -> Iterator[Stream]:
        return iter(list(self._streams.values()))

    def __len__(self) -> int:
        return len(self._streams)

    def others(self) -> list[str]:
        """The servers of journals that this worker does not deliver, as of the last call of `find`."""
        if self._left and time.monotonic() > (self._left_until or 0.0):
            self._left.clear()
        return list(dict.fromkeys([*self._others.values(), *self._left]))

    def what_changed(self) -> list[WhatChanged]:
        """The root runs whose changes are still to be written, of each server."""
        return [shared.what_changed for shared in self._shared.values()]

    def awaits_of(self, program: str) -> bool:
        """Whether something is left to read of the processes that a program has started, by the prefix of its ids."""
        return any(program in stream.origin.ancestors and stream.behind() for stream in self._streams.values())

    def living(self) -> bool:
        """Whether a program writes to one of the journals, of any store."""
        return any(is_written(directory) for directory in [*self._streams, *self._others])

    def many(self) -> bool:
        """Whether there are so many journals that each opens its files only while it is delivered."""
        return len(self._streams) > _MOST_OPEN

    def retry_now(self) -> None:
        """Try everything again at once that waits for its next attempt."""
        for shared in self._shared.values():
            shared.tables.retry_now()
            shared.remote_runs.retry_now()
        for stream in self._streams.values():
            stream.retry_now()

    def remove(self, stream: Stream) -> None:
        """Forget a journal that is gone."""
        del self._streams[stream.directory]
        self._shared_of(stream.origin).remote_runs.remove(stream)

    def close(self) -> None:
        """Close all files."""
        self._sampler.stop()
        for shared in self._shared.values():
            shared.what_changed.close()
        for stream in self._streams.values():
            stream.close()
        self._streams.clear()

    def find(self) -> None:
        """Open the journals that are new, and forget those that are gone."""
        if not self._is_safe():
            return
        if self._left_until is None:
            self._left_until = time.monotonic() + _NOTICED
            self._find_left()
        scanned = list(scan_journals(self._spool))
        present = {directory for directory, _ in scanned}
        self._others = {directory: server for directory, server in self._others.items() if directory in present}
        for directory in [each for each in self._streams if each not in present and not each.is_dir()]:
            self._forget_journal(directory)  # A user has removed it.
        for directory, problem in scanned:
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
                _folder_for(
                    self._spool, server
                )  # If this folder is unusable, its worker would end at once, every time.
            self._others[directory] = server
            return
        shared = self._shared_of(origin)
        stream = self._streams[directory] = Stream(directory, origin, shared)
        if self.many():
            stream.close()
        shared.remote_runs.add(stream)

    def _find_left(self) -> None:
        """Find the root runs that an earlier process has left."""
        if self._only is not None:
            return
        for folder in folders(self._spool):
            roots = left_in(folder)
            if not roots:
                continue
            server = server_of(roots[0].origin.uri)
            if self._server in (None, server):
                self._shared_for(server)
            elif self._server == LOCAL:
                self._left.add(server)

    def _is_safe(self) -> bool:
        """Whether only this user can use the spool; otherwise nothing of it is touched."""
        try:
            check_spool(self._spool)
        except FileNotFoundError:  # The spool was removed; the lock shows whether another one has replaced it.
            return True
        except OSError as error:
            if not self._refused:
                logger.warning("trackdsl: delivery from the spool %s stops: %s", self._spool, error)
            self._refused = True
            for stream in self._streams.values():
                stream.close()
                self._shared_of(stream.origin).remote_runs.remove(stream)
            self._streams.clear()
            return False
        self._refused = False
        return True

    def carry_out_requests(self) -> None:
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
            wake(self._spool)  # Another worker may have to deliver it now.
        self.find()

    def _carry_out_unclaimed(self, directory: Path) -> None:
        """Carry out the request for a journal that no process delivers. A child that delivers it does so itself."""
        origin = read_origin(directory)
        server = LOCAL if origin is None else server_of(origin.uri)
        if self._server is None or server == LOCAL:
            carry_out(directory)
            return
        # While this lock is held, no child starts to deliver the journal to its old store.
        lock = FileLock(lock_of(self._spool, server))
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

    def _shared_of(self, origin: Origin) -> Shared:
        return self._shared_for(server_of(origin.uri))

    def _shared_for(self, server: str) -> Shared:
        shared = self._shared.get(server)
        if shared is None:
            folder = _folder_for(self._spool, server)
            ledger = server_ledger(folder)
            shared = self._shared[server] = Shared(
                RemoteRuns(ledger, self.find),
                SharedPoints(ledger, self._spool, self._reached),
                Tables(self._spool, folder),
                ModelPoints(),
                self._sampler,
                OwnTags(self._spool),
                WhatChanged(self._spool, ledger, own=self._own),
            )
        return shared

    def _reached(self, names: set[str]) -> int:
        """The time up to which some journals have all been read, in milliseconds since 1970."""
        streams = (stream for stream in self._streams.values() if stream.directory.name in names)
        return min((stream.reached() for stream in streams), default=time.time_ns() // 1_000_000)


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

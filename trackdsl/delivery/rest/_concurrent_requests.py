"""Sends requests for different runs concurrently, and requests for the same run in their order."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import TypeVar

from trackdsl.delivery.rest._concurrency_limit import MOST, ConcurrencyLimit
from trackdsl.delivery.store._errors import Refused, RefusedTogether

#: How many requests may wait, so that what is collected does not fill the memory.
_MOST_WAITING = 1000

T = TypeVar("T")


class ConcurrentRequests:
    """Sends requests from a few threads, at the pace that the server bears.

    After the first error, nothing more is sent by `send` until `finish`.

    Args:
        prepare: called in each thread before its first request.
    """

    def __init__(self, prepare: Callable[[], object] = lambda: None) -> None:
        self._prepare = prepare
        self._pool: ThreadPoolExecutor | None = None
        self._concurrency = ConcurrencyLimit()
        self._chains: dict[str, deque[Callable[[], None]]] = {}
        self._running: set[Future[None]] = set()
        self._error: Exception | None = None
        self._lock = threading.Lock()
        self._room = threading.Semaphore(_MOST_WAITING)

    def submit(self, request: Callable[[], T]) -> Future[T]:
        """Send a request that belongs to no run; its answer, or its error, is that of the future."""
        return self._threads().submit(self._concurrency.send, request)

    def send(self, run_id: str, request: Callable[[], None]) -> None:
        """Send a request, after all earlier ones for its run.

        Args:
            run_id: the store's id of the run.
            request: sends it.

        Raises:
            Unavailable: an earlier request failed.
        """
        if self._error is not None:
            self.finish()
        self._room.acquire()
        with self._lock:
            chain = self._chains.get(run_id)
            if chain is not None:
                chain.append(request)
                return
            self._chains[run_id] = deque([request])
        future = self._threads().submit(self._work, run_id)
        self._running.add(future)
        future.add_done_callback(self._running.discard)

    def settle(self, run_id: str) -> None:
        """Wait for the answers to a run's requests, so that a read of the run afterwards is complete.

        Raises:
            RefusedTogether: the server refused a request, for this run or another one.
            Unavailable: it could not be reached, or did not answer one of them.
        """
        if run_id in self._chains or self._error is not None:
            self.finish()

    def finish(self) -> None:
        """Wait until all requests are answered.

        Raises:
            RefusedTogether: the server refused one of them.
            Unavailable: it could not be reached, or did not answer one of them.
        """
        wait(list(self._running))
        error, self._error = self._error, None
        if isinstance(error, Refused):
            raise RefusedTogether(str(error)) from None
        if error is not None:
            raise error

    def close(self) -> None:
        """End the threads."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
            self._pool = None

    def _threads(self) -> ThreadPoolExecutor:
        if self._pool is None:
            self._pool = ThreadPoolExecutor(MOST, "trackdsl-requests", self._prepare)
        return self._pool

    def _work(self, run_id: str) -> None:
        """Send what was collected for one run, until nothing is left."""
        while True:
            with self._lock:
                chain = self._chains[run_id]
                if not chain:
                    del self._chains[run_id]
                    return
                request = chain.popleft()
            try:
                if self._error is None:
                    self._concurrency.send(request, lambda: self._error is not None)
            except Exception as error:
                self._error = self._error or error
            finally:
                self._room.release()

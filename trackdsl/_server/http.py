"""HTTP requests that always end: with a deadline for the whole answer, and a limit for its size.

The timeouts of `requests` limit only the wait for each piece of an answer. If a server sends one byte per second, or
sends without end, such a request never ends. `bound_requests` makes every request of this process end; it is for the
delivery process, in which all requests are ours. In other programs, `session` returns a session with a deadline for
each request.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

import requests
import urllib3
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection

from trackdsl._core import runtime
from trackdsl._core.runtime import Phase
from trackdsl._server._deadlines import deadlines
from trackdsl._server.redirects import origin_of, target_of_lossy_redirect

#: The whole answer may take this many times the timeout for one piece.
_PIECES = 3
#: The deadline of a request without a timeout, in seconds.
_LONGEST = 600.0
#: The lowest speed of an upload that is waited for, in bytes per second.
_SLOWEST_UPLOAD = 50_000
#: The limit for an answer of a tracking server, in bytes; a page of a thousand large runs has some ten million.
_LARGEST_ANSWER = 128 << 20
#: The limit for answers that are read in pieces, such as the file of an artifact.
_LARGEST_DOWNLOAD = 4 << 30
_CHUNK = 1 << 16
#: The answers of a server, or of a proxy before it, that is busy or being started.
MOMENTARY = (408, 425, 429, 502, 503, 504)


class TooSlow(requests.exceptions.ReadTimeout):
    """The answer was not complete at its deadline."""


class TooLarge(requests.exceptions.RequestException):
    """The answer is larger than any expected one."""


class Redirected(requests.exceptions.RequestException):
    """The server redirects a request that `requests` would repeat without its content."""


class _Expired(Exception):
    """No connection may be opened after the deadline. Not a connection error, since urllib3 would try again."""


class _Exchange:
    """A request and its answer, which end at a deadline."""

    def __init__(self, seconds: float, piece: float | None) -> None:
        self.seconds = seconds
        #: The timeout for each piece of an answer, and of what is sent.
        self.piece = piece
        self.expired = False
        self._lock = threading.Lock()
        self._descriptor: int | None = None
        deadlines.begin(self, seconds)

    def uses(self, connection: socket.socket | None) -> None:
        """Remember the connection, to shut it down at the deadline.

        Raises:
            _Expired: the deadline has passed.
        """
        if connection is None:
            return
        with self._lock:
            if self.expired:
                connection.close()
                raise _Expired
            self._forget_connection()
            # A copy of the descriptor: it stays valid if the original is closed and its number is used again.
            self._descriptor = os.dup(connection.fileno())

    def end(self) -> None:
        """Forget the connection."""
        deadlines.over(self)
        with self._lock:
            self._forget_connection()

    def expire(self) -> None:
        """Shut the connection down: the deadline has passed."""
        with self._lock:
            self.expired = True
            if self._descriptor is not None:
                with contextlib.suppress(OSError), socket.socket(fileno=os.dup(self._descriptor)) as copy:
                    copy.shutdown(socket.SHUT_RDWR)
            self._forget_connection()

    def _forget_connection(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


class _Current(threading.local):
    exchange: _Exchange | None = None
    bounded = False


_current = _Current()


def _register(connection: Any) -> None:
    if _current.exchange is not None:
        _current.exchange.uses(connection)


class _WatchedConnection(HTTPConnection):
    """A connection that the current exchange can shut down from the first moment."""

    def _new_conn(self) -> socket.socket:
        connection = super()._new_conn()
        _register(connection)
        return connection

    def request(self, *args: Any, **kwargs: Any) -> None:
        """See `urllib3.connection.HTTPConnection`. While it sends, urllib3 uses the timeout for connecting."""
        if self.sock is None:
            self.connect()
        _register(self.sock)
        if _current.exchange is not None and _current.exchange.piece:
            self.timeout = _current.exchange.piece
        super().request(*args, **kwargs)

    def getresponse(self) -> Any:
        """See `urllib3.connection.HTTPConnection`."""
        response = super().getresponse()
        if _current.exchange is not None:
            # Don't read the rest of an answer into memory only to reuse the connection.
            response.drain_conn = response.close  # type: ignore[method-assign]
        return response


class _WatchedTLSConnection(_WatchedConnection, HTTPSConnection):
    """A TLS connection that the current exchange can shut down from the first moment."""


# Users read these class names in urllib3's errors.
_WatchedConnection.__name__ = HTTPConnection.__name__
_WatchedTLSConnection.__name__ = HTTPSConnection.__name__


class _Pool(urllib3.HTTPConnectionPool):
    ConnectionCls = _WatchedConnection


class _TLSPool(urllib3.HTTPSConnectionPool):
    ConnectionCls = _WatchedTLSConnection


_Pool.__name__ = urllib3.HTTPConnectionPool.__name__
_TLSPool.__name__ = urllib3.HTTPSConnectionPool.__name__


class _BoundedAdapter(HTTPAdapter):
    """An adapter of `requests` with a deadline for each request, and a limit for the size of its answer."""

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        """See `HTTPAdapter`."""
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = {"http": _Pool, "https": _TLSPool}

    def proxy_manager_for(self, proxy: str, **kwargs: Any) -> Any:
        """See `HTTPAdapter`."""
        found = super().proxy_manager_for(proxy, **kwargs)
        if not proxy.lower().startswith("socks"):  # SOCKS proxies have their own connection classes.
            found.pool_classes_by_scheme = {"http": _Pool, "https": _TLSPool}
        return found

    def send(self, request: Any, stream: bool = False, timeout: Any = None, *args: Any, **kwargs: Any) -> Any:
        """See `HTTPAdapter`."""
        return _send(super().send, request, stream, timeout, _named(args, kwargs))


def session(retries: int = 0) -> requests.Session:
    """A session whose requests end, even if the server never stops sending.

    Args:
        retries: how often a request is repeated, of any method, after an answer of `MOMENTARY` or none.
    """
    made = requests.Session()
    adapter = _BoundedAdapter()
    if retries:
        adapter.max_retries = urllib3.Retry(
            retries, status_forcelist=MOMENTARY, allowed_methods=None, backoff_factor=0.2, raise_on_status=False
        )
    made.mount("http://", adapter)
    made.mount("https://", adapter)
    return made


def bound_requests(on_answer: Callable[[], None] | None = None, *, of_thread: bool = False) -> None:
    """Give each request of MLflow, and of artifact stores that use `requests`, a deadline and a limit.

    Args:
        on_answer: called after each answered request, from now on.
        of_thread: only requests of the calling thread, instead of all in this process.
    """
    if on_answer is not None:
        _on_answer.append(on_answer)
    if of_thread:
        _current.bounded = True
    else:
        _process.bounded = True
    if HTTPAdapter.send is _bounded_send:
        return
    HTTPAdapter.send = _bounded_send  # type: ignore[method-assign, assignment]
    urllib3.HTTPConnectionPool.ConnectionCls = _WatchedConnection
    urllib3.HTTPSConnectionPool.ConnectionCls = _WatchedTLSConnection


_plain_send = HTTPAdapter.send
_on_answer: list[Callable[[], None]] = []


class _Process:
    """Whether the requests of all threads are bounded."""

    bounded = False


_process = _Process()


def _reset() -> None:
    _on_answer.clear()
    _process.bounded = _current.bounded = False


runtime.register("bounded requests", Phase.MEMORY, reset=_reset)


def _bounded_send(
    adapter: HTTPAdapter, request: Any, stream: bool = False, timeout: Any = None, *args: Any, **kwargs: Any
) -> Any:
    if not (_process.bounded or _current.bounded):
        return _plain_send(adapter, request, stream, timeout, *args, **kwargs)
    retries = adapter.max_retries
    if retries.total == 0 and retries.status_forcelist:
        # The answer of a busy server says more than urllib3's error, which is for several attempts.
        adapter.max_retries = retries.new(status_forcelist=())
    return _send(partial(_plain_send, adapter), request, stream, timeout, _named(args, kwargs))


def _named(args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    return {**dict(zip(("verify", "cert", "proxies"), args, strict=False)), **kwargs}


def _send(send: Callable[..., Any], request: Any, stream: bool, timeout: Any, kwargs: dict[str, Any]) -> Any:
    if _current.exchange is not None:  # An adapter around this one has begun it.
        return send(request, stream=stream, timeout=timeout, **kwargs)
    exchange = _Exchange(_seconds(request, stream, timeout), _piece(timeout))
    _current.exchange = exchange
    kept = False
    try:
        response = send(request, stream=True, timeout=timeout, **kwargs)
        _refuse_lossy_redirect(request, response)
        if stream:
            _limit_stream(response, exchange)
            kept = True
        else:
            response._content = _content(response, exchange)
            response._content_consumed = True
        for call in _on_answer:
            call()
        return response
    except TooLarge:
        raise
    except Exception as error:
        if exchange.expired:
            raise _too_slow(exchange, request) from error
        raise
    finally:
        _current.exchange = None
        if not kept:
            exchange.end()


def _refuse_lossy_redirect(request: Any, response: Any) -> None:
    """Raise an error with the server's new address, instead of repeating the request there without its content."""
    target = target_of_lossy_redirect(request, response)
    if target is not None:
        response.close()
        raise Redirected(f"{origin_of(request.url)} redirects to {target}: use that address in the tracking URI")


def _seconds(request: Any, stream: bool, timeout: Any) -> float:
    """The deadline of an exchange, in seconds."""
    single = _piece(timeout)
    if single is None or stream:
        return _LONGEST
    length = request.headers.get("Content-Length", "") if request.headers else ""
    upload = int(length) / _SLOWEST_UPLOAD if str(length).isdecimal() else 0.0
    return _PIECES * single + upload


def _piece(timeout: Any) -> float | None:
    """The timeout for a piece of an answer, in seconds."""
    single = timeout[1] if isinstance(timeout, tuple) else timeout
    return single if isinstance(single, (int, float)) else None


def _content(response: Any, exchange: _Exchange) -> bytes:
    content = b"".join(_limited(response.iter_content(_CHUNK), _LARGEST_ANSWER, response))
    if exchange.expired:  # The answer ends with its connection, which was shut down.
        raise _too_slow(exchange, response.request)
    return content


def _limit_stream(response: Any, exchange: _Exchange) -> None:
    read, close = response.iter_content, response.close

    def iter_content(*args: Any, **kwargs: Any) -> Iterator[bytes]:
        try:
            yield from _limited(read(*args, **kwargs), _LARGEST_DOWNLOAD, response)
        finally:  # MLflow does not close answers that it has read completely.
            exchange.end()
        if exchange.expired:
            raise _too_slow(exchange, response.request)

    def close_and_end() -> None:
        exchange.end()
        close()

    response.iter_content, response.close = iter_content, close_and_end


def _limited(chunks: Iterable[bytes], most: int, response: Any) -> Iterator[bytes]:
    size = 0
    for chunk in chunks:
        size += len(chunk)
        if size > most:
            response.close()
            raise TooLarge(f"{origin_of(response.url)} sends more than {most >> 20} MiB", request=response.request)
        yield chunk


def _too_slow(exchange: _Exchange, request: Any) -> TooSlow:
    message = f"{origin_of(request.url)} timed out: its answer was not complete after {exchange.seconds:.0f} s"
    return TooSlow(message, request=request)

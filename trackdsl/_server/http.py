"""HTTP requests that come to an end: with a deadline for the whole answer and a limit for its size.

The timeouts of `requests` limit the wait for each piece of an answer. A server that sends one byte per second, or sends
without an end, keeps such a request going for ever. `bound_requests` makes every request of this process end; it is for
the delivery process, where all requests are ours. `session` gives a session whose requests end, for any other program.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any
from urllib.parse import urljoin, urlsplit

import requests
import urllib3
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection

#: An answer may take this many times the timeout for a single piece of it, in all.
_PIECES = 3
#: Where a request has no timeout, in seconds.
_LONGEST = 600.0
#: The slowest upload that is waited for, in bytes per second.
_SLOWEST_UPLOAD = 50_000
#: No answer of a tracking server is larger, in bytes; a page of a thousand large runs has some ten million.
_LARGEST_ANSWER = 128 << 20
#: The same for what is read piece by piece, such as the file of an artifact.
_LARGEST_DOWNLOAD = 4 << 30
_CHUNK = 1 << 16
#: `requests` follows these with a GET.
LOSSY_REDIRECTS = (301, 302, 303)


class TooSlow(requests.exceptions.ReadTimeout):
    """The answer was not complete at its deadline."""


class TooLarge(requests.exceptions.RequestException):
    """The answer was larger than any that is expected."""


class Redirected(requests.exceptions.RequestException):
    """The server names another address for a request that `requests` would send there without its content."""


class _Expired(Exception):
    """No further connection is opened after the deadline. It is no error of a connection: urllib3 would try again."""


class _Exchange:
    """A request and its answer, which end at a deadline."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.expired = False
        self._lock = threading.Lock()
        self._descriptor: int | None = None
        self._timer = threading.Timer(seconds, self._expire)
        self._timer.daemon = True
        self._timer.start()

    def uses(self, connection: socket.socket | None) -> None:
        """Note the connection that is shut down at the deadline.

        Raises:
            _Expired: that is over.
        """
        if connection is None:
            return
        with self._lock:
            if self.expired:
                connection.close()
                raise _Expired
            self._forget_connection()
            # A copy: it leads to this connection even where the original is closed, and its number used again.
            self._descriptor = os.dup(connection.fileno())

    def end(self) -> None:
        """Let go of the connection."""
        self._timer.cancel()
        with self._lock:
            self._forget_connection()

    def _expire(self) -> None:
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


def _note(connection: Any) -> None:
    if _current.exchange is not None:
        _current.exchange.uses(connection)


class _WatchedConnection(HTTPConnection):
    """A connection that the current exchange can shut down from its first moment on."""

    def _new_conn(self) -> socket.socket:
        connection = super()._new_conn()
        _note(connection)
        return connection

    def request(self, *args: Any, **kwargs: Any) -> None:
        """See `urllib3.connection.HTTPConnection`."""
        _note(self.sock)
        super().request(*args, **kwargs)

    def getresponse(self) -> Any:
        """See `urllib3.connection.HTTPConnection`."""
        response = super().getresponse()
        if _current.exchange is not None:
            # What is not read to its end is not read on in memory only to use the connection again.
            response.drain_conn = response.close  # type: ignore[method-assign]
        return response


class _WatchedTLSConnection(_WatchedConnection, HTTPSConnection):
    """The same for TLS."""


# The errors of urllib3, which users read, show the names of these classes.
_WatchedConnection.__name__ = HTTPConnection.__name__
_WatchedTLSConnection.__name__ = HTTPSConnection.__name__


class _Pool(urllib3.HTTPConnectionPool):
    ConnectionCls = _WatchedConnection


class _TLSPool(urllib3.HTTPSConnectionPool):
    ConnectionCls = _WatchedTLSConnection


class _BoundedAdapter(HTTPAdapter):
    """Sends requests that come to an end."""

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        """See `HTTPAdapter`."""
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = {"http": _Pool, "https": _TLSPool}

    def proxy_manager_for(self, proxy: str, **kwargs: Any) -> Any:
        """See `HTTPAdapter`."""
        found = super().proxy_manager_for(proxy, **kwargs)
        if not proxy.lower().startswith("socks"):  # These have connections of their own.
            found.pool_classes_by_scheme = {"http": _Pool, "https": _TLSPool}
        return found

    def send(self, request: Any, stream: bool = False, timeout: Any = None, *args: Any, **kwargs: Any) -> Any:
        """See `HTTPAdapter`."""
        return _send(super().send, request, stream, timeout, _named(args, kwargs))


def session() -> requests.Session:
    """A session whose requests end, also where the server goes on sending."""
    made = requests.Session()
    adapter = _BoundedAdapter()
    made.mount("http://", adapter)
    made.mount("https://", adapter)
    return made


def bound_requests(on_answer: Callable[[], None] | None = None, *, of_thread: bool = False) -> None:
    """Make requests end: those of MLflow, and of the artifact stores that use `requests`.

    Args:
        on_answer: called after each request that was answered; it stays in force.
        of_thread: those of the calling thread only, instead of all of this process.
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
    """Whether requests of all threads are bounded."""

    bounded = False


_process = _Process()


def _bounded_send(
    adapter: HTTPAdapter, request: Any, stream: bool = False, timeout: Any = None, *args: Any, **kwargs: Any
) -> Any:
    if not (_process.bounded or _current.bounded):
        return _plain_send(adapter, request, stream, timeout, *args, **kwargs)
    return _send(partial(_plain_send, adapter), request, stream, timeout, _named(args, kwargs))


def _named(args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    return {**dict(zip(("verify", "cert", "proxies"), args, strict=False)), **kwargs}


def _send(send: Callable[..., Any], request: Any, stream: bool, timeout: Any, kwargs: dict[str, Any]) -> Any:
    if _current.exchange is not None:  # Of an adapter around this one.
        return send(request, stream=stream, timeout=timeout, **kwargs)
    exchange = _Exchange(_seconds(request, stream, timeout))
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


def _seconds(request: Any, stream: bool, timeout: Any) -> float:
    """How long an exchange may take in all."""
    single = timeout[1] if isinstance(timeout, tuple) else timeout
    if not isinstance(single, (int, float)) or stream:
        return _LONGEST
    length = request.headers.get("Content-Length", "") if request.headers else ""
    upload = int(length) / _SLOWEST_UPLOAD if str(length).isdecimal() else 0.0
    return _PIECES * single + upload


def _content(response: Any, exchange: _Exchange) -> bytes:
    content = b"".join(_limited(response.iter_content(_CHUNK), _LARGEST_ANSWER, response))
    if exchange.expired:  # Where the end of the connection is the end of the answer.
        raise _too_slow(exchange, response.request)
    return content


def _limit_stream(response: Any, exchange: _Exchange) -> None:
    read, close = response.iter_content, response.close

    def iter_content(*args: Any, **kwargs: Any) -> Iterator[bytes]:
        try:
            yield from _limited(read(*args, **kwargs), _LARGEST_DOWNLOAD, response)
        finally:  # MLflow does not close the answers that it has read to their end.
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
            raise TooLarge(f"{_place(response.url)} sends more than {most >> 20} MiB", request=response.request)
        yield chunk


def _refuse_lossy_redirect(request: Any, response: Any) -> None:
    """Name the new address of a server instead of asking there without the content of the request."""
    if response.status_code not in LOSSY_REDIRECTS or request.method in ("GET", "HEAD"):
        return
    target = _redirect_target(response)
    if target is not None:
        response.close()
        raise Redirected(f"{_place(request.url)} redirects to {target}: use that address in the tracking URI")


def _redirect_target(response: Any) -> str | None:
    """Where an answer redirects to, without the path and without credentials; None where it does not."""
    location = response.headers.get("location")
    if not response.is_redirect or not location:
        return None
    return _place(urljoin(response.url, location))


def _too_slow(exchange: _Exchange, request: Any) -> TooSlow:
    message = f"{_place(request.url)} timed out: its answer was not complete after {exchange.seconds:.0f} s"
    return TooSlow(message, request=request)


def _place(url: str) -> str:
    """Scheme, host and port of a URL, safe to be shown."""
    try:
        parts = urlsplit(url)
        shown = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"
    except ValueError:
        return "another address"
    return "".join(c for c in shown if c.isprintable())[:200]

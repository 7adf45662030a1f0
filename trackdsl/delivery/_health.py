"""A quick look whether a store answers, before seconds are spent on importing MLflow.

It only spares work. Where it finds nothing, delivery waits a little longer and then lets MLflow's client try, which may
reach a store that this look does not.
"""

from __future__ import annotations

import socket
import sys
from collections.abc import Callable
from urllib.parse import SplitResult, urlsplit

from trackdsl._server.reachable import check
from trackdsl._server.tracking_server import answers
from trackdsl.errors import TrackingServerError

_TIMEOUT = 2.0
#: Where databases listen unless their URI says it, by the first part of its scheme.
_PORTS = {"postgresql": 5432, "mysql": 3306, "mssql": 1433}
_DRIVER_TIMEOUT = 10.0
#: After this many failures in a row MLflow's client is let try in any case.
_LOOKS_AT_SERVER = 3
#: Of so many looks at a database that does not answer, one asks its driver.
_DATABASE_TRIES = 5


def why_unreachable(uri: str, failures: int = 0) -> str | None:
    """What keeps a tracking server or a database from answering.

    Args:
        uri: the tracking URI.
        failures: how often in a row the store could not be reached.

    Returns:
        the reason; None where it answers, is no server, or is to be asked by MLflow's client in any case.
    """
    try:
        parts = urlsplit(uri)
        _ = parts.port
    except ValueError:
        return None  # It is for MLflow to say what is wrong with it.
    if parts.scheme.split("+")[0] in _PORTS:
        reason = _why_no_connection(parts)
        asks_driver = reason is not None and failures % _DATABASE_TRIES == _DATABASE_TRIES - 1
        if not asks_driver:
            return reason
        answer = _why_driver_fails(uri)
        return None if answer is None else f"{reason}. Its driver says: {answer}"
    if parts.scheme not in ("http", "https") or not parts.hostname:
        return None
    if "mlflow" in sys.modules or failures >= _LOOKS_AT_SERVER:
        return None  # MLflow's own client answers as quickly.
    return _reason(lambda: answers(uri), slow_is_fine=True)


def _why_driver_fails(uri: str) -> str | None:
    """The answer of the database's own driver. MLflow, which has the same, goes on for 100 s to connect."""
    return _reason(lambda: check(uri, patience=_DRIVER_TIMEOUT))


def _reason(ask: Callable[[], object], *, slow_is_fine: bool = False) -> str | None:
    try:
        ask()
    except TrackingServerError as error:
        if slow_is_fine and "timed out" in str(error).lower():
            return None  # MLflow's client waits longer.
        return str(getattr(error, "reason", "") or error)
    return None


def _why_no_connection(parts: SplitResult) -> str | None:
    if not parts.hostname or "host=" in parts.query or "," in parts.netloc:
        return None  # A socket of its own, or several servers: the driver knows.
    address = (parts.hostname, parts.port or _PORTS[parts.scheme.split("+")[0]])
    try:
        socket.create_connection(address, timeout=_TIMEOUT).close()
    except OSError as error:
        reason = "no answer" if isinstance(error, TimeoutError) else error.strerror or str(error)
        return f"the database at {address[0]}:{address[1]} cannot be reached: {reason}"
    return None

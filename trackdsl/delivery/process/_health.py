"""A quick check whether a store answers, before seconds are spent on importing MLflow.

The check only saves work. If it fails, delivery waits a little longer, and then lets MLflow's client try, which may
reach a store that the check does not.
"""

from __future__ import annotations

import socket
import sys
from collections.abc import Callable
from urllib.parse import SplitResult, urlsplit

from trackdsl.errors import TrackingServerError

_TIMEOUT = 2.0
#: Default ports of databases, by the first part of the URI's scheme.
_PORTS = {"postgresql": 5432, "mysql": 3306, "mssql": 1433}
_DRIVER_TIMEOUT = 10.0
#: After this many failures in a row, MLflow's client tries in any case.
_LOOKS_AT_SERVER = 3
#: After this many checks of a database that does not answer, its driver is asked once.
_DATABASE_TRIES = 5


def why_unreachable(uri: str, failures: int = 0) -> str | None:
    """Why a tracking server or a database does not answer.

    Args:
        uri: the tracking URI.
        failures: how often in a row it could not be reached.

    Returns:
        the reason; None if it answers, is not a server, or if MLflow's client is to try in any case.
    """
    try:
        parts = urlsplit(uri)
        _ = parts.port
    except ValueError:
        return None  # MLflow reports what is wrong with it.
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
        return None  # MLflow's client is as quick.
    from trackdsl._server.tracking_server import answers  # It imports `requests`, which databases do not need.

    return _reason(lambda: answers(uri), slow_is_fine=True)


def _why_driver_fails(uri: str) -> str | None:
    """The answer of the database's driver. MLflow uses the same driver, but keeps connecting for 100 s."""
    from trackdsl._server.reachable import check

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
        return None  # A socket, or several servers: only the driver knows.
    address = (parts.hostname, parts.port or _PORTS[parts.scheme.split("+")[0]])
    try:
        socket.create_connection(address, timeout=_TIMEOUT).close()
    except OSError as error:
        reason = "no answer" if isinstance(error, TimeoutError) else error.strerror or str(error)
        return f"the database at {address[0]}:{address[1]} cannot be reached: {reason}"
    return None

"""A quick look whether a store answers, before seconds are spent on importing MLflow.

MLflow goes on for 100 s to connect to a database that is away, and other stores would have to wait for it.
"""

from __future__ import annotations

import http.client
import socket
from urllib.parse import SplitResult, urlsplit

_TIMEOUT = 2.0
#: Where databases listen unless their URI says it, by the first part of its scheme.
_PORTS = {"postgresql": 5432, "mysql": 3306, "mssql": 1433}


def why_unreachable(uri: str) -> str | None:
    """What keeps a tracking server or a database from answering, or None where it answers or is no server.

    A server is asked what MLflow's client would ask, as a server whose database hangs still says that it is healthy.
    Any HTTP answer will do: what it says is for MLflow's client to judge.
    """
    try:
        parts = urlsplit(uri)
        port = parts.port
    except ValueError:
        return None  # It is for MLflow to say what is wrong with it.
    if parts.scheme.split("+")[0] in _PORTS:
        return _why_no_connection(parts)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        return None
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = kind(parts.hostname, port, timeout=_TIMEOUT)
    try:
        connection.request("GET", f"{parts.path.rstrip('/')}/api/2.0/mlflow/experiments/search?max_results=1")
        connection.getresponse().read(100)
    except (OSError, http.client.HTTPException) as error:
        reason = "no answer" if isinstance(error, TimeoutError) else str(error) or type(error).__name__
        return f"the tracking server at {parts.hostname}:{parts.port or ''} cannot be reached: {reason}"
    finally:
        connection.close()
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

"""A quick look whether a tracking server answers, before seconds are spent on importing MLflow."""

from __future__ import annotations

import http.client
from urllib.parse import urlsplit

_TIMEOUT = 2.0


def why_unreachable(uri: str) -> str | None:
    """What keeps a tracking server from answering, or None where it answers or is no server.

    It is asked what MLflow's client would ask, as a server whose database hangs still says that it is healthy. Any HTTP
    answer will do: what it says is for MLflow's client to judge.
    """
    parts = urlsplit(uri)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        return None
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = kind(parts.hostname, parts.port, timeout=_TIMEOUT)
    try:
        connection.request("GET", f"{parts.path.rstrip('/')}/api/2.0/mlflow/experiments/search?max_results=1")
        connection.getresponse().read(100)
    except (OSError, http.client.HTTPException) as error:
        reason = "no answer" if isinstance(error, TimeoutError) else str(error) or type(error).__name__
        return f"the tracking server at {parts.hostname}:{parts.port or ''} cannot be reached: {reason}"
    finally:
        connection.close()
    return None

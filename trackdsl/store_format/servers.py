"""Which stores share a delivery process: all local ones do, and each remote server or database has its own."""

from __future__ import annotations

import contextlib
import hashlib
import time
from pathlib import Path

from trackdsl.journal._files import touch
from trackdsl.journal._lock import is_held
from trackdsl.journal._spool import LOCK

#: All stores on this machine's disks: none of them hangs, and one process that imports MLflow is enough for them.
LOCAL = "local"
_LOCAL_SCHEMES = ("file", "sqlite", "trackdsl-capture")
#: MLflow accepts this name instead of a server's address.
_DATABRICKS = "databricks"
#: Touched when the delivery process starts.
STARTED = "delivery.started"
_ANSWERED = "answered"
#: How long a start may take, in seconds: until the process holds its lock, and until it has imported MLflow.
_SHORT_START = 10
_LONGEST_START = 120


def server_of(uri: str) -> str:
    """The server that a tracking URI leads to, without credentials, or `LOCAL`.

    >>> server_of("http://me:pw@tracking:5000/mlflow"), server_of("postgresql+psycopg2://me:pw@db/runs")
    ('http://tracking:5000', 'postgresql://db')
    >>> server_of("sqlite:////data/mlflow.db"), server_of("/data/mlruns"), server_of("databricks")
    ('local', 'local', 'databricks://')
    """
    scheme, colon, rest = uri.partition(":")
    scheme = scheme.lower().split("+")[0]
    if scheme in _LOCAL_SCHEMES or (not colon and scheme != _DATABRICKS) or not scheme.replace("-", "").isalnum():
        return LOCAL
    address = rest[2:].partition("/")[0].partition("?")[0].rpartition("@")[2] if rest.startswith("//") else ""
    return f"{scheme}://{''.join(c for c in address.lower() if c.isprintable() and not c.isspace())}"


def folder_of(spool: Path, server: str) -> Path:
    """The folder for what concerns all journals of a server; the spool itself for local stores."""
    if server == LOCAL:
        return spool
    return spool / "servers" / hashlib.sha256(server.encode()).hexdigest()[:16]


def lock_of(spool: Path, server: str) -> Path:
    """The lock of the only process that delivers to a server."""
    return spool / (LOCK if server == LOCAL else f"{folder_of(spool, server).name}.lock")


def note_answer(spool: Path, server: str) -> None:
    """Note that a server has just answered, so that waiting programs can tell a slow server from a dead one."""
    with contextlib.suppress(OSError):
        touch(folder_of(spool, server) / _ANSWERED)


def is_starting(spool: Path, uri: str) -> bool:
    """Whether the delivery process is still importing MLflow for a store, which takes long on a busy machine."""
    try:
        started = (spool / STARTED).stat().st_mtime_ns
        if last_answer(spool, uri) >= started:
            return False
        age = (time.time_ns() - started) / 1e9
        return age < _SHORT_START or (age < _LONGEST_START and is_held(lock_of(spool, server_of(uri))))
    except OSError:
        return False


def last_answer(spool: Path, uri: str) -> int:
    """When the server of a tracking URI last answered, in nanoseconds since 1970; 0 if unknown."""
    try:
        return (folder_of(spool, server_of(uri)) / _ANSWERED).lstat().st_mtime_ns
    except OSError:
        return 0

"""Which stores share a delivery process: all local ones do, and each remote server or database has its own."""

from __future__ import annotations

import hashlib
from pathlib import Path

from trackdsl.journal._spool import LOCK, SERVERS

#: All stores on this machine's disks: none of them hangs, and one process that imports MLflow is enough for them.
LOCAL = "local"
_LOCAL_SCHEMES = ("file", "sqlite", "trackdsl-capture")
#: MLflow accepts this name instead of a server's address.
_DATABRICKS = "databricks"


def server_of(uri: str) -> str:
    """The server that a tracking URI leads to, without credentials, or `LOCAL`.

    >>> server_of("http://me:pw@tracking:5000/mlflow"), server_of("postgresql+psycopg2://me:pw@db/runs")
    ('http://tracking:5000', 'postgresql://db')
    >>> server_of("http://tracking:5000/team@home"), server_of("mysql://me:p/w@db:3306/runs")
    ('http://tracking:5000', 'mysql://db:3306')
    >>> server_of("sqlite:////data/mlflow.db"), server_of("/data/mlruns"), server_of("databricks")
    ('local', 'local', 'databricks://')
    """
    scheme, colon, rest = uri.partition(":")
    scheme = scheme.lower().split("+")[0]
    if scheme in _LOCAL_SCHEMES or (not colon and scheme != _DATABRICKS) or not scheme.replace("-", "").isalnum():
        return LOCAL
    if not rest.startswith("//"):
        return f"{scheme}://"
    # The password of a database may contain `/`; the host of a web server ends at the first one.
    address = rest[2:].partition("?")[0]
    if scheme not in ("http", "https"):
        address = address.rpartition("@")[2]
    address = address.partition("/")[0].rpartition("@")[2]
    return f"{scheme}://{''.join(c for c in address.lower() if c.isprintable() and not c.isspace())}"


def folder_of(spool: Path, server: str) -> Path:
    """The folder for what concerns all journals of a server; the spool itself for local stores."""
    if server == LOCAL:
        return spool
    return spool / SERVERS / hashlib.sha256(server.encode()).hexdigest()[:16]


def lock_of(spool: Path, server: str) -> Path:
    """The lock of the only process that delivers to a server."""
    return spool / (LOCK if server == LOCAL else f"{folder_of(spool, server).name}.lock")

"""The environment variables with which a program reaches its store, and those of processes that only deliver or ask.

`environment_pipe` passes the former to delivery.
"""

from __future__ import annotations

import gc
import json
import os
import re
import zlib
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from trackdsl._core.redaction import is_secret_name

#: The environment variable with the minimum time that the user wants to wait for an upload, in seconds.
UPLOAD_TIMEOUT = "TRACKDSL_UPLOAD_TIMEOUT"
#: Prefixes of variables that MLflow, the clients of clouds, database drivers and Kerberos read.
_PREFIX = re.compile(
    r"(?:MLFLOW|AWS|BOTO|S3|AZURE|ARM|GOOGLE|GCLOUD|CLOUDSDK|GCE|STORAGE_EMULATOR|DATABRICKS|MYSQL|SSL_CERT|OCI|ALIBABA"
    r"|OSS)_|PG|KRB5"
)
_NAMES = frozenset(["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "NETRC", "KUBECONFIG", "HOME", UPLOAD_TIMEOUT])
#: Variables that concern only the program, or that delivery sets itself.
_EXCLUDED = frozenset(
    [
        *("MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_ID", "MLFLOW_EXPERIMENT_NAME", "MLFLOW_TRACKING_URI"),
        *("MLFLOW_REGISTRY_URI", "MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING", "MLFLOW_ACTIVE_MODEL_ID", "PWD", "OLDPWD"),
    ]
)
#: The largest message when decompressed, in bytes.
_LARGEST = 1 << 20

#: MLflow's own retries could hang for minutes, and repeat requests that were carried out. PostgreSQL's client would
#: wait forever for a server that accepts the connection and does not answer.
ENVIRONMENT = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_ENABLE_ASYNC_LOGGING": "false",
    "PGCONNECT_TIMEOUT": "10",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "GIT_PYTHON_REFRESH": "quiet",
}


class ProgramEnvironment(NamedTuple):
    """The environment of a program.

    Attributes:
        prefix: the first bytes of the ids of its runs, in hexadecimal.
        variables: name to value.
        for_all: whether to use it for the records of other programs too, as with `trackdsl sync`.
    """

    prefix: str
    variables: Mapping[str, str]
    for_all: bool = False

    def encode(self) -> bytes:
        """The content of a message."""
        return zlib.compress(json.dumps([self.prefix, dict(self.variables), self.for_all]).encode())

    @classmethod
    def decode(cls, content: bytes) -> ProgramEnvironment:
        """Read the content of a message.

        Raises:
            ValueError: it is not an environment.
        """
        try:
            unpacked = zlib.decompressobj().decompress(content, _LARGEST)
            sender, variables, for_all = json.loads(unpacked)
        except (zlib.error, TypeError, RecursionError) as error:
            raise ValueError(str(error)) from None
        if not isinstance(sender, str) or not isinstance(variables, dict):
            raise ValueError("no environment")
        usable = {name: value for name, value in variables.items() if _can_be_set(name, value)}
        return cls(sender, usable, bool(for_all))


@lru_cache(maxsize=4096)
def concerns_store(name: str) -> bool:
    """Whether a variable may decide whether, and as which user, a store is reached.

    >>> concerns_store("MLFLOW_TRACKING_TOKEN"), concerns_store("https_proxy"), concerns_store("PATH")
    (True, True, False)
    """
    if name in _EXCLUDED:
        return False
    return (
        _PREFIX.match(name) is not None
        or name in _NAMES
        or name.lower().endswith("_proxy")
        or bool(is_secret_name(name))
    )


def _can_be_set(name: str, value: object) -> bool:
    """Whether the system accepts a name and a value for an environment variable."""
    if not isinstance(value, str) or not name or "=" in name or "\0" in name + value:
        return False
    try:
        os.fsencode(name + value)
    except UnicodeEncodeError:
        return False
    return True


def current() -> dict[str, str]:
    """The variables of this process that concern stores."""
    return {name: value for name, value in os.environ.items() if concerns_store(name)}


def of_program(pid: int, lock: Path) -> dict[str, str] | None:
    """The variables with which a running program was started, as far as they concern stores.

    Args:
        pid: its process id.
        lock: a file that it keeps open. This distinguishes it from a process of another namespace with the same id.

    Returns:
        name to value; None if the system does not say.
    """
    import psutil

    try:
        process = psutil.Process(pid)
        if not any(_is_same(opened.path, lock) for opened in process.open_files()):
            return None
        return {name: value for name, value in process.environ().items() if concerns_store(name)}
    except (psutil.Error, OSError):
        return None


def _is_same(path: str, lock: Path) -> bool:
    try:
        return os.path.samefile(path, lock)
    except OSError:  # Meanwhile it was removed, as segments are that are delivered.
        return False


def of_child() -> dict[str, str]:
    """The environment for a Python process that imports this same package, wherever it is installed."""
    package = str(Path(__file__).resolve().parents[2])
    path = [package, *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(dict.fromkeys(path))}


def prepare_environment() -> None:
    """Prepare this process for delivery or a command, before MLflow is imported; never call it in a user's program."""
    # Collect garbage rarely: a stretch is hundreds of thousands of tuples without cycles.
    gc.set_threshold(200_000, 20, 20)
    os.environ.setdefault(UPLOAD_TIMEOUT, os.environ.get("MLFLOW_HTTP_REQUEST_TIMEOUT", "0"))
    os.environ.update(ENVIRONMENT)
    # These variables are for processes that the program starts, not for this one.
    for name in ("MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_ID", "MLFLOW_EXPERIMENT_NAME", "TRACKDSL_CONTEXT"):
        os.environ.pop(name, None)

"""Waiting until the run of a scope exists in MLflow, as long as its delivery is alive and does not fail."""

from __future__ import annotations

import contextlib
import functools
import os
import time
from typing import NamedTuple
from urllib.parse import urlsplit

from trackdsl._core import runtime
from trackdsl._core.runtime import Phase
from trackdsl._core.uris import absolute_uri, is_path
from trackdsl._runs.run import AdoptedRun, Run
from trackdsl.errors import RunNotReady
from trackdsl.journal._store_target import Target
from trackdsl.journal._waiters import Waiter
from trackdsl.journal._writer import Writer

#: For how many seconds no call waits for a store that did not answer in time.
_AWAY = 60.0
#: How many seconds to wait for what was recorded before, as a run's own parameters go before those of plain MLflow.
_SETTLE = 2.0
_POLL = 0.005
_PORTS = {"http": 80, "https": 443, "postgresql": 5432, "mysql": 3306}
_LOOPBACK = ("localhost", "127.0.0.1", "::1")

#: The stores that did not answer in time, by tracking URI and folder, with the time until which no call waits.
_unavailable: dict[tuple[str, str], float] = {}
runtime.register("stores that did not answer", Phase.MEMORY, reset=_unavailable.clear)


class Ids(NamedTuple):
    """MLflow's ids of a run and its experiment."""

    run_id: str
    experiment_id: str


def wait_for(run: Run) -> Ids:
    """Wait until a run exists in MLflow, with what was recorded on it so far.

    Raises:
        RunNotReady: the run cannot be created now.
    """
    if isinstance(run, AdoptedRun):
        return Ids(run.mlflow_run_id, run.mlflow_experiment_id)
    target = run.target
    run.request_lookup()
    writer = target.writer
    position = writer.position() if writer is not None else (0, 0)
    away = is_unavailable(target)
    try:
        found = run.wait_for_mlflow(0.0 if away else None)
    except RunNotReady:
        if not away:
            _unavailable[target.uri, target.cwd] = time.monotonic() + _AWAY
        raise
    _unavailable.pop((target.uri, target.cwd), None)
    if writer is not None:
        _settle(writer, position)
    return Ids(found.run_id, found.experiment_id)


def is_unavailable(target: Target) -> bool:
    """Whether a store has recently failed to answer in time."""
    return time.monotonic() < _unavailable.get((target.uri, target.cwd), 0.0)


@functools.lru_cache(maxsize=64)
def same_store(uri: str, other: str, cwd: str) -> bool:
    """Whether two tracking URIs lead to the same store. Credentials do not matter.

    >>> same_store("http://me:pw@localhost/", "http://127.0.0.1:80", "/"), same_store("/runs", "file:///runs", "/")
    (True, True)
    >>> same_store("http://127.0.0.1:5000", "http://127.0.0.1:5001", "/")
    False
    """
    return uri == other or _address(absolute_uri(uri, cwd)) == _address(absolute_uri(other, cwd))


def _address(uri: str) -> tuple[str, str, str, str]:
    try:
        parts = urlsplit(f"file://{uri}" if is_path(uri) else uri)
        scheme = parts.scheme.partition("+")[0]
        port = parts.port or _PORTS.get(scheme, 0)
        host = (parts.hostname or "").lower()
    except ValueError:
        return uri, "", "", ""
    path = parts.path.rstrip("/")
    if scheme in ("file", "sqlite"):
        path = os.path.realpath(path)
    return scheme, f"{'127.0.0.1' if host in _LOOPBACK else host}:{port}", path, parts.query


def _settle(writer: Writer, position: tuple[int, int]) -> None:
    from trackdsl.store_format.progress import read_progress

    give_up = time.monotonic() + _SETTLE
    with contextlib.closing(Waiter([writer.directory.parent.parent])) as waiter:
        while time.monotonic() < give_up:
            progress = read_progress(writer.directory)
            if progress is None or progress.position >= position:
                return
            waiter.show()
            time.sleep(_POLL)

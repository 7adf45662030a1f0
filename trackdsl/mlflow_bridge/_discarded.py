"""Plain MLflow in processes that record nothing: it writes to a temporary store, which is removed with the process.

So every call works as in a process that records: runs exist, and models can be logged and loaded. What the temporary
store does not have is read from the real one. Experiments are created in the real one, as they belong to no run.
"""

from __future__ import annotations

import atexit
import functools
import inspect
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from typing import Any

from mlflow.exceptions import MlflowException
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

from trackdsl._core import runtime
from trackdsl._core.runtime import ForkSafeLock, Phase
from trackdsl._runs.run import Run
from trackdsl.mlflow_bridge._wait_for_run import Ids

_EXPERIMENT = "0"
_READING = ("get_", "list_", "download_", "load_")
#: Calls that concern more than one run go to the real store.
_OF_REAL = ("search_", "get_experiment", "create_experiment")

_lock = ForkSafeLock()

#: The temporary store, once it exists.
_stores: list[SqlAlchemyStore] = []
#: The ids of runs in that store, by our ids.
_made: dict[str, str] = {}


def ids_of(run: Run) -> Ids:
    """MLflow's ids of a run that is not recorded."""
    with _lock.current:
        if run.id not in _made:
            now = time.time_ns() // 1_000_000
            made = _own().create_run(_EXPERIMENT, "", now, [], run.name)  # type: ignore[no-untyped-call]
            _made[run.id] = made.info.run_id
        return Ids(_made[run.id], _EXPERIMENT)


class Discarding:
    """Replaces a store of MLflow.

    Args:
        real: that store.
    """

    def __init__(self, real: Any) -> None:
        self._real = real

    def __getattr__(self, name: str) -> Any:
        real = getattr(self._real, name)
        if not callable(real) or name.startswith(_OF_REAL):
            return real
        with _lock.current:
            own = getattr(_own(), name, None)
        return real if own is None else functools.partial(_call, name, own, real)


def _call(name: str, own: Callable[..., Any], real: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    call = inspect.signature(own).bind(*args, **kwargs)
    for argument, value in call.arguments.items():
        if argument == "experiment_id":
            call.arguments[argument] = _EXPERIMENT
        elif isinstance(value, str) and value in _made:
            call.arguments[argument] = _made[value]
    try:
        return own(*call.args, **call.kwargs)
    except MlflowException:
        if name.startswith(_READING):
            return real(*args, **kwargs)
        raise


def _own() -> SqlAlchemyStore:
    if not _stores:
        from trackdsl.store_format.empty_database import artifact_root, copy_empty

        folder = tempfile.mkdtemp(prefix="trackdsl-")
        atexit.register(_remove, folder, os.getpid())
        copy_empty(os.path.join(folder, "mlflow.db"), artifact_root(folder))
        uri = f"sqlite:///{folder}/mlflow.db"
        _stores.append(SqlAlchemyStore(uri, artifact_root(folder)))  # type: ignore[no-untyped-call]
    return _stores[0]


def _remove(folder: str, pid: int) -> None:
    if os.getpid() == pid:
        shutil.rmtree(folder, ignore_errors=True)


def _after_fork() -> None:
    for store in _stores:
        store.engine.dispose(close=False)  # A connection belongs to one process.


runtime.register("the store for runs that are not recorded", Phase.FILES, after_fork=_after_fork)

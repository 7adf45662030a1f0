"""The engines that run work elsewhere: threads, processes, greenlets and clusters, one module for each.

A module of ours is imported once a library that it patches has been imported, and then registers its patches.
"""

from __future__ import annotations

import functools
import importlib
import sys
from types import ModuleType
from typing import NamedTuple

from trackdsl._core import patching
from trackdsl.distributed._task_context import Task, task_inside
from trackdsl.errors import TrackdslError, format_error, report, reraise_from_signal


class _Engine(NamedTuple):
    """One of our modules, which has `PATCHES`, and may have `HOOKS` by the names of modules.

    Attributes:
        module: its name in this package.
        libraries: the packages that it patches.
        workers: the module that is imported wherever a cluster engine runs tasks; empty for other engines. Our module
            has `current_task() -> Task | None` then. It returns None quickly outside of any task.
    """

    module: str
    libraries: tuple[str, ...]
    workers: str = ""


_ENGINES = (
    _Engine("_threads", ("threading",)),
    _Engine("_processes", ("threading",)),  # Every program may start processes.
    _Engine("_greenlets", ("gevent", "eventlet")),
    _Engine("_joblib", ("joblib", "loky")),
    _Engine("_torch", ("torch",)),
    _Engine("dask", ("distributed",), "distributed.worker"),
    _Engine("ray", ("ray",), "ray._private.worker"),
    _Engine("spark", ("py4j", "pyspark"), "pyspark.taskcontext"),
)
#: The cluster engines, by the module that is imported wherever they run tasks.
_CLUSTERS = {engine.workers: engine for engine in _ENGINES if engine.workers}
#: The engines whose patches are registered.
_registered: set[str] = set()


def _load(engine: _Engine) -> ModuleType:
    return importlib.import_module(f"{__package__}.{engine.module}")


def _wait_for_libraries() -> None:
    for engine in _ENGINES:
        for library in engine.libraries:
            patching.when_imported(library, functools.partial(_register, engine))


def _register(engine: _Engine, _library: ModuleType) -> None:
    if engine.module in _registered:
        return
    _registered.add(engine.module)
    try:
        module = _load(engine)
        for name, hook in getattr(module, "HOOKS", {}).items():
            patching.when_imported(name, hook)
        patching.add_patches(module.PATCHES)
    except TrackdslError:
        raise
    except Exception as error:  # The program is importing the library, and needs it without us too.
        reraise_from_signal(error)
        report("patching", f"trackdsl cannot follow {engine.module} to where it runs: {format_error(error)}")


patching.before_first_scope(_wait_for_libraries)


def current_task() -> Task | None:
    """The cluster task that this code runs in; None outside of one."""
    task = task_inside()
    if task is not None:
        return task
    for workers, engine in _CLUSTERS.items():
        if workers in sys.modules:
            try:
                found: Task | None = _load(engine).current_task()
            except TrackdslError:
                raise
            except Exception as error:  # Another version of the engine: user code must not notice.
                reraise_from_signal(error)
                report(
                    "cluster",
                    f"trackdsl cannot find out which task of {engine.module} this is: {format_error(error)}",
                    key=engine.module,
                )
                continue
            if found is not None:
                return found
    return None

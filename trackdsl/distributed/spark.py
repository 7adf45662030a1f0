"""Spark: what runs in a task belongs to the run in which the action was called that Spark runs the task for.

The context travels as a local property of the thread that talks to the JVM: Spark keeps those with each job, and shows
them to its tasks (`TaskContext.getLocalProperty`). It is set when that thread next calls the JVM from another scope
than before, so a program that does not call Spark inside a scope pays nothing.
"""

from __future__ import annotations

import functools
import inspect
import os
import sys
import threading
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from trackdsl._core import context as _context
from trackdsl.distributed._contexts import Context
from trackdsl.distributed._patching import Patch, closed, opened
from trackdsl.distributed._sending import text_here
from trackdsl.distributed._task_context import Task, inside
from trackdsl.errors import format_error, logger, report, reraise_from_signal

if TYPE_CHECKING:
    from trackdsl._core.context import Scope

#: The local property that holds the context.
PROPERTY = "trackdsl.context"
_NOTHING = Context(None)
_current = _context.current


class Told:
    """What the JVM has been told of a thread; the patches stand until it is told that no run is current there.

    Args:
        spark: the `SparkContext`.
        scope: the scope.
    """

    __slots__ = ("_token", "scope", "spark", "step")

    def __init__(self, spark: Any, scope: Scope) -> None:
        self.spark = weakref.ref(spark)
        self.scope = scope
        self.step = scope.step
        self._token = object()
        opened(self._token)

    def holds(self, spark: Any, scope: Scope | None) -> bool:
        """Whether it is still so."""
        return self.scope is scope and scope.step == self.step and self.spark() is spark

    def __del__(self) -> None:
        # Also at the end of a thread, whose end the JVM sees too.
        closed(self._token)


class _Here(threading.local):
    told: Told | None = None
    #: Whether the thread is in a call back whose scope it has entered.
    in_batch = False
    #: The scope of the task that the thread of a worker is about.
    around: inside | None = None


_here = _Here()


def _call(original: Callable[..., Any]) -> Callable[..., Any]:
    """Every call of a method in the JVM: which of them begin a job is known to Spark alone."""

    def __call__(self: Any, *args: Any) -> Any:  # noqa: N807 - the name of what it stands for
        scope, known = _current(), _here.told
        if scope is not None or known is not None:
            spark = _active()
            if spark is not None and (known is None or not known.holds(spark, scope)):
                _tell(spark, scope)
        return original(self, *args)

    return __call__


def _active() -> Any:
    """The `SparkContext` of this process, once it is ready."""
    spark = sys.modules["pyspark"].SparkContext._active_spark_context
    return spark if getattr(spark, "_jsc", None) is not None else None


def _tell(spark: Any, scope: Scope | None) -> None:
    # First of all: what follows is a call of the JVM itself.
    known, _here.told = _here.told, None if scope is None else Told(spark, scope)
    try:
        if not _pinned():
            return
        text = "" if scope is None else text_here("Spark")
        if text or (known is not None and known.spark() is spark):
            spark.setLocalProperty(PROPERTY, text or None)
    except Exception as error:
        reraise_from_signal(error)
        report(
            "spark", f"trackdsl cannot hand a run over to Spark, so runs begin there as roots: {format_error(error)}"
        )


def _pinned() -> bool:
    """Whether each thread has a thread of its own in the JVM: others would see the property too otherwise."""
    pinned = os.environ.get("PYSPARK_PIN_THREAD", "true").lower() == "true"
    if not pinned:
        report("spark-pinned", "With PYSPARK_PIN_THREAD=false what runs in tasks of Spark begins as roots.")
    return pinned


def _stop(original: Callable[..., Any]) -> Callable[..., Any]:
    def stop(self: Any) -> Any:
        try:
            return original(self)
        finally:
            _here.told = None

    return stop


class InBatch:
    """A function for `foreachBatch`, which Spark calls back in the driver, in a thread of its own.

    Args:
        fn: the function.
    """

    def __init__(self, fn: Callable[..., Any]) -> None:
        functools.update_wrapper(self, fn, updated=())
        self._fn = fn

    def __call__(self, frame: Any, batch_id: int) -> Any:
        """Do as the function does."""
        if _here.in_batch:
            return self._fn(frame, batch_id)
        # The stream has outlived all scopes, and with them the patch of what calls this.
        return _call_in_batch(frame.sparkSession.sparkContext, self._fn, frame, batch_id)


def _call_in_batch(spark: Any, fn: Callable[..., Any], *args: Any) -> Any:
    """Call a function in the scope that the stream was started in, as the thread of the JVM has inherited it."""
    # What this thread was started in is the scope of whoever came first.
    with inside(Task(_NOTHING)):
        text = None
        try:
            text = spark.getLocalProperty(PROPERTY)
        except Exception as error:
            reraise_from_signal(error)
            logger.warning(
                "trackdsl cannot tell whose batch this is, so its runs begin as roots: %s", format_error(error)
            )
        _here.in_batch = True
        try:
            with inside(Task(_received(text))):
                return fn(*args)
        finally:
            _here.in_batch = False
            _untell(spark, text)


def _untell(spark: Any, text: str | None) -> None:
    """Let the thread of the JVM have again what it had before the batch, for those that come."""
    if _here.told is not None:
        _here.told = None
        try:
            spark.setLocalProperty(PROPERTY, text)
        except Exception as error:
            reraise_from_signal(error)
            report("spark", f"trackdsl cannot tell Spark whose batches follow: {format_error(error)}")


def _foreach_batch(original: Callable[..., Any]) -> Callable[..., Any]:
    def foreachBatch(self: Any, func: Any) -> Any:  # noqa: N802 - the name of what it stands for
        return original(self, InBatch(func) if callable(func) else func)

    return foreachBatch


def _call_back(original: Callable[..., Any]) -> Callable[..., Any]:
    def call(self: Any, *args: Any) -> Any:
        return _call_in_batch(self.session.sparkContext, original, self, *args)

    return call


def _create_udf(original: Callable[..., Any]) -> Callable[..., Any]:
    """Spark counts a function's parameters without looking behind a wrapper, here and in the worker."""

    def _create_vectorized_udf(f: Any, *args: Any, **kwargs: Any) -> Any:
        if inspect.isfunction(f) and hasattr(f, "__trackdsl__") and not hasattr(f, "__signature__"):
            f = _showing_signature(f)
        return original(f, *args, **kwargs)

    return _create_vectorized_udf


def _showing_signature(fn: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(fn)
    def shown(*args: Any, **kwargs: Any) -> Any:
        return fn(*args, **kwargs)

    shown.__signature__ = inspect.signature(fn)  # type: ignore[attr-defined]
    return shown


PATCHES = [
    Patch("py4j.java_gateway", "JavaMember.__call__", _call),
    Patch("pyspark.core.context", "SparkContext.stop", _stop),
    Patch("pyspark.sql.streaming.readwriter", "DataStreamWriter.foreachBatch", _foreach_batch),
    Patch("pyspark.sql.utils", "ForeachBatchFunction.call", _call_back),
    Patch("pyspark.sql.pandas.functions", "_create_vectorized_udf", _create_udf),
    Patch("pyspark.sql.pandas.functions", "_create_pandas_udf", _create_udf),  # Up to 4.0
]


def follow() -> None:
    """Stand around the tasks of this worker, from the one on that has imported trackdsl.

    Without it only what asks for the task would know of it, and plain MLflow does not. It never raises: the engine is
    left alone where it is another than expected.
    """
    try:
        worker, kind = sys.modules["pyspark.worker"], sys.modules["pyspark.taskcontext"].TaskContext
        if kind.get() is None or hasattr(worker.read_command, "trackdsl"):
            return
        worker.read_command = _begin(worker.read_command)  # type: ignore[attr-defined]
        kind._setTaskContext = classmethod(_end(kind._setTaskContext.__func__))
        _enter()
    except Exception as error:
        reraise_from_signal(error)
        logger.warning("trackdsl cannot stand around the tasks of this worker of Spark: %s", format_error(error))


def _begin(original: Callable[..., Any]) -> Callable[..., Any]:
    """What Spark reads a task's function with; the task is known by then."""

    @functools.wraps(original)
    def read_command(*args: Any, **kwargs: Any) -> Any:
        try:
            _enter()
        except Exception as error:
            reraise_from_signal(error)
            logger.warning(
                "trackdsl cannot follow a task of Spark, so plain MLflow misses its run: %s", format_error(error)
            )
        return original(*args, **kwargs)

    read_command.trackdsl = True  # type: ignore[attr-defined]
    return read_command


def _end(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def _setTaskContext(kind: Any, context: Any) -> Any:  # noqa: N802 - the name of what it stands for
        _leave()
        return original(kind, context)

    return _setTaskContext


def _enter() -> None:
    _leave()  # Frames are read with more than one function.
    task = current_task()
    if task is not None:
        _here.around = inside(task)
        _here.around.__enter__()


def _leave() -> None:
    around, _here.around = _here.around, None
    if around is not None:
        around.__exit__()


def current_task() -> Task | None:
    """The task of Spark that this code runs in."""
    task: Any = sys.modules["pyspark.taskcontext"].TaskContext.get()
    if task is None:
        return None
    # The id that Spark gives is one of the attempt.
    tags = {
        "trackdsl.task": f"{task.stageId()}.{task.partitionId()}",
        "trackdsl.attempt": str(task.attemptNumber() + 1),
    }
    return Task(_received(task.getLocalProperty(PROPERTY)), tags)


def _received(text: str | None) -> Context:
    try:
        return Context.from_text(text) if text else _NOTHING
    except Exception as error:
        reraise_from_signal(error)
        logger.warning(
            "trackdsl cannot read the context of a task, so its runs begin as roots: %s", format_error(error)
        )
        return _NOTHING

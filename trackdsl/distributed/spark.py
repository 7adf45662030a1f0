"""Spark: a task belongs to the run that was current where its action was called.

The context travels as a local property of the thread that calls the JVM. Spark keeps these properties with each job,
and tasks can read them (`TaskContext.getLocalProperty`). The property is set when the thread calls the JVM in another
scope than before, so programs that do not call Spark inside a scope have no cost.
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
from trackdsl._core.patching import Patch, closed, opened
from trackdsl.distributed._contexts import Context
from trackdsl.distributed._sending import text_here
from trackdsl.distributed._task_context import Task, inside
from trackdsl.errors import format_error, logger, report, reraise_from_signal
from trackdsl.store_format.tags import ATTEMPT_TAG, TASK_TAG

if TYPE_CHECKING:
    from trackdsl._core.context import Scope

#: The local property that holds the context.
PROPERTY = "trackdsl.context"
_NOTHING = Context(None)
_current = _context.current


class Sent:
    """The scope whose context the JVM has for a thread. The patches stay installed until that property is removed.

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
        """Whether the JVM still has the right context."""
        return self.scope is scope and scope.step == self.step and self.spark() is spark

    def __del__(self) -> None:
        # This also happens when a thread ends.
        closed(self._token)


class _ThreadState(threading.local):
    sent: Sent | None = None
    #: Whether the thread runs a batch function, whose scope it has entered.
    in_batch = False
    #: The scope of the task that this thread of a worker runs.
    around: inside | None = None


_here = _ThreadState()


def _call(original: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap every call of a method in the JVM, as only Spark knows which of them start a job."""

    def __call__(self: Any, *args: Any) -> Any:  # noqa: N807 - it replaces the method of this name
        scope, known = _current(), _here.sent
        if scope is not None or known is not None:
            spark = _active()
            if spark is not None and (known is None or not known.holds(spark, scope)):
                _send(spark, scope)
        return original(self, *args)

    return __call__


def _active() -> Any:
    """The `SparkContext` of this process, once it is ready."""
    spark = sys.modules["pyspark"].SparkContext._active_spark_context
    return spark if getattr(spark, "_jsc", None) is not None else None


def _send(spark: Any, scope: Scope | None) -> None:
    # First: the code below calls the JVM too.
    known, _here.sent = _here.sent, None if scope is None else Sent(spark, scope)
    try:
        if not _pinned():
            return
        text = "" if scope is None else text_here("Spark")
        if text or (known is not None and known.spark() is spark):
            spark.setLocalProperty(PROPERTY, text or None)
    except Exception as error:
        reraise_from_signal(error)
        report(
            "spark", f"trackdsl cannot send its context to Spark, so runs there begin as roots: {format_error(error)}"
        )


def _pinned() -> bool:
    """Whether each thread has its own thread in the JVM. Otherwise other threads would see the property too."""
    pinned = os.environ.get("PYSPARK_PIN_THREAD", "true").lower() == "true"
    if not pinned:
        report("spark-pinned", "With PYSPARK_PIN_THREAD=false, runs in tasks of Spark begin as roots.")
    return pinned


def _stop(original: Callable[..., Any]) -> Callable[..., Any]:
    def stop(self: Any) -> Any:
        try:
            return original(self)
        finally:
            _here.sent = None

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
        """Call the function."""
        if _here.in_batch:
            return self._fn(frame, batch_id)
        # All scopes are closed, so the function that calls this is no longer patched.
        return _call_in_batch(frame.sparkSession.sparkContext, self._fn, frame, batch_id)


def _call_in_batch(spark: Any, fn: Callable[..., Any], *args: Any) -> Any:
    """Call a function in the scope that started the stream: the JVM's thread has inherited its context."""
    # This thread may have started in the scope of another stream.
    with inside(Task(_NOTHING)):
        text = None
        try:
            text = spark.getLocalProperty(PROPERTY)
        except Exception as error:
            reraise_from_signal(error)
            logger.warning(
                "trackdsl cannot find out which run started this stream, so its runs begin as roots: %s",
                format_error(error),
            )
        _here.in_batch = True
        try:
            with inside(Task(_received(text))):
                return fn(*args)
        finally:
            _here.in_batch = False
            _send_back(spark, text)


def _send_back(spark: Any, text: str | None) -> None:
    """Give the JVM's thread its context from before the batch, for the next batches."""
    if _here.sent is not None:
        _here.sent = None
        try:
            spark.setLocalProperty(PROPERTY, text)
        except Exception as error:
            reraise_from_signal(error)
            report("spark", f"trackdsl cannot set the context of the batches that follow: {format_error(error)}")


def _foreach_batch(original: Callable[..., Any]) -> Callable[..., Any]:
    def foreachBatch(self: Any, func: Any) -> Any:  # noqa: N802 - it replaces the method of this name
        return original(self, InBatch(func) if callable(func) else func)

    return foreachBatch


def _call_back(original: Callable[..., Any]) -> Callable[..., Any]:
    def call(self: Any, *args: Any) -> Any:
        return _call_in_batch(self.session.sparkContext, original, self, *args)

    return call


def _create_udf(original: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap the function that makes a vectorised UDF: Spark counts the parameters of a wrapper, not of what it wraps."""

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
    """Follow the tasks of this worker, from the task that has imported trackdsl on.

    Otherwise plain MLflow in a task would not know its run. It never raises: if this version of Spark is not as
    expected, it is left unchanged.
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
        logger.warning("trackdsl cannot follow the tasks of this worker of Spark: %s", format_error(error))


def _begin(original: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap what reads a task's function. Spark knows the task by then."""

    @functools.wraps(original)
    def read_command(*args: Any, **kwargs: Any) -> Any:
        try:
            _enter()
        except Exception as error:
            reraise_from_signal(error)
            logger.warning(
                "trackdsl cannot follow a task of Spark, so plain MLflow does not know its run: %s", format_error(error)
            )
        return original(*args, **kwargs)

    read_command.trackdsl = True  # type: ignore[attr-defined]
    return read_command


def _end(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def _setTaskContext(kind: Any, context: Any) -> Any:  # noqa: N802 - it replaces the method of this name
        _leave()
        return original(kind, context)

    return _setTaskContext


def _enter() -> None:
    _leave()  # One task may read several functions.
    task = current_task()
    if task is not None:
        _here.around = inside(task)
        _here.around.__enter__()


def _leave() -> None:
    around, _here.around = _here.around, None
    if around is not None:
        around.__exit__()


def current_task() -> Task | None:
    """The Spark task that this code runs in."""
    task: Any = sys.modules["pyspark.taskcontext"].TaskContext.get()
    if task is None:
        return None
    # Spark's own id belongs to the attempt, not to the task.
    tags = {
        TASK_TAG: f"{task.stageId()}.{task.partitionId()}",
        ATTEMPT_TAG: str(task.attemptNumber() + 1),
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

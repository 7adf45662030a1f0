"""Processes, process pools and other programs: what runs in them belongs to the scope that started it."""

from __future__ import annotations

import os
import sys
from inspect import signature
from typing import TYPE_CHECKING, Any

from trackdsl._core import context as _context
from trackdsl._core import runtime
from trackdsl._core.patching import Patch, opened
from trackdsl._core.runtime import Phase
from trackdsl.distributed._contexts import VARIABLE, Context, attach
from trackdsl.distributed._frames import hide_frame
from trackdsl.distributed._threads import InThread
from trackdsl.errors import format_error, report, reraise_from_signal
from trackdsl.journal import _delivery_hooks

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from multiprocessing.process import BaseProcess

    from trackdsl._core.context import Scope

_current, _enter = _context.current, _context.enter

#: The index of `env` among the arguments of `Popen`, without `self`.
_ENV = 10


#: What prepares a worker process by being unpickled there, before anything else of its task; see `prepare_workers`.
_preparations: list[object] = []
runtime.register("the preparations of workers", Phase.MEMORY, reset=_preparations.clear)


def prepare_workers(preparation: object) -> None:
    """Have the processes prepared that this one starts by `spawn` or `forkserver`; forked ones inherit what we did.

    Args:
        preparation: an object that prepares a process when it is unpickled there. It may be unpickled many times.
    """
    _preparations.append(preparation)


class InProcess:
    """A function that runs in a context, in any process or thread of a pool.

    Args:
        fn: the function.
        context: the context.
    """

    __slots__ = ("_context", "_fn")

    def __init__(self, fn: Callable[..., Any], context: Context) -> None:
        self._fn = fn
        self._context = context

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        with attach(self._context):
            try:
                return self._fn(*args, **kwargs)
            except BaseException as error:
                hide_frame(error)
                raise

    def __reduce__(self) -> tuple[Any, ...]:
        if _preparations:  # First: a function is found by its name, and may be another one once they are unpickled.
            return _unpickled_prepared, (tuple(_preparations), self._fn, self._context)
        return _unpickled, (self._fn, self._context)


def _unpickled(fn: Callable[..., Any], context: Context) -> InProcess:
    _serve()
    return InProcess(fn, context)


def _unpickled_prepared(_preparations: object, fn: Callable[..., Any], context: Context) -> InProcess:
    return _unpickled(fn, context)


def _serve() -> None:
    """Prepare a child of `multiprocessing` that works for its parent."""
    processes = sys.modules.get("multiprocessing.process")
    if processes is not None and processes.parent_process() is not None:
        # A parent that joins this process would wait for its delivery too.
        _delivery_hooks.leave_delivery_to_parent()
        # The patches stay: only tasks run in a worker, and each of them would install the patches again.
        opened(InProcess)


class InScopeIterable:
    """An iterable from which a pool takes its tasks, in any thread and at any time.

    Its code runs in the scope that passed it to the pool, or in a scope that it has opened itself.

    Args:
        iterable: the iterable.
        scope: the scope.
    """

    __slots__ = ("_iterable", "_scope")

    def __init__(self, iterable: Iterable[Any], scope: Scope) -> None:
        self._iterable = iterable
        self._scope = scope

    def __iter__(self) -> Iterator[Any]:
        return InScopeIterator(iter(self._iterable), self._scope)


class InScopeIterator:
    """See `InScopeIterable`.

    Args:
        iterator: of the iterable.
        scope: the scope.
    """

    __slots__ = ("_iterator", "scope")

    def __init__(self, iterator: Iterator[Any], scope: Scope) -> None:
        self._iterator = iterator
        self.scope: Scope | None = scope

    def __iter__(self) -> InScopeIterator:
        return self

    def __next__(self) -> Any:
        before = _current()
        try:
            _enter(self.scope)
            item = next(self._iterator)
        finally:
            self.scope = _current()
            _enter(before)
        return self.item_for_pool(item)

    def item_for_pool(self, item: Any) -> Any:
        """The task that the pool gets for an item of the iterable."""
        return item


class ProcessBody:
    """Replaces the `run` of a process until it is called, which happens in the child.

    Args:
        process: the process.
        context: of the scope that starts it.
    """

    __slots__ = ("_before", "_context", "_own", "_process")

    def __init__(self, process: BaseProcess, context: Context) -> None:
        # Unpickled first, as it is the first slot.
        self._before = tuple(_preparations)
        self._process = process
        self._context = context
        #: A `run` that the program has set on this process alone.
        self._own = vars(process).get("run")

    def __call__(self) -> None:
        self.restore()
        _serve()
        with attach(self._context):
            try:
                self._process.run()
            except BaseException as error:  # `multiprocessing` prints it.
                hide_frame(error)
                raise

    def restore(self) -> None:
        """Put the process's own `run` back."""
        process = self._process
        if vars(process).get("run") is self:
            if self._own is None:
                del process.run
            else:
                process.run = self._own  # type: ignore[method-assign]


def _start(original: Callable[..., None]) -> Callable[..., None]:
    def start(self: BaseProcess, *args: Any, **kwargs: Any) -> None:
        scope = _current()
        if scope is None:
            return original(self, *args, **kwargs)
        # The attribute reaches the child: a forked child inherits it, and a spawned child unpickles it.
        body = ProcessBody(self, Context(scope))
        if _preparations:  # The first attribute is unpickled before the others, such as the target.
            attributes = dict(vars(self))
            vars(self).clear()
            vars(self).update({"run": body, **attributes})
        self.run = body  # type: ignore[method-assign]
        try:
            return original(self, *args, **kwargs)
        finally:
            body.restore()

    return start


def make_pool(original: Callable[..., None]) -> Callable[..., None]:
    """Wrap the `__init__` of a pool: its workers belong to no scope, and their `initializer` runs in ours."""
    names = list(signature(original).parameters)
    index = names.index("initializer") if "initializer" in names else len(names)

    def make(*args: Any, **kwargs: Any) -> None:
        scope = _current()
        if scope is None:
            return original(*args, **kwargs)
        if len(args) > index and callable(args[index]):
            args = (*args[:index], InProcess(args[index], Context(scope)), *args[index + 1 :])
        elif callable(kwargs.get("initializer")):
            kwargs["initializer"] = InProcess(kwargs["initializer"], Context(scope))
        try:
            _enter(None)
            return original(*args, **kwargs)
        finally:
            _enter(scope)

    return make


def submit_to_pool(original: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap the `submit` of an executor. Workers that it starts belong to no scope."""

    def submit(self: Any, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        scope = _current()
        if scope is None:
            return original(self, fn, *args, **kwargs)
        task = InProcess(fn, Context(scope))
        try:
            _enter(None)
            return original(self, task, *args, **kwargs)
        finally:
            _enter(scope)

    return submit


def _apply(original: Callable[..., Any]) -> Callable[..., Any]:
    def apply(self: Any, func: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        scope = _current()
        return original(self, func if scope is None else InProcess(func, Context(scope)), *args, **kwargs)

    return apply


def _make_result(original: Callable[..., None]) -> Callable[..., None]:
    """Wrap the `__init__` of a pool's result, whose callbacks run in a thread of the pool."""

    def make(self: Any, pool: Any, callback: Any, error_callback: Any) -> None:
        scope = _current()
        if scope is not None:
            callback, error_callback = (fn and InThread(fn, scope) for fn in (callback, error_callback))
        return original(self, pool, callback, error_callback)

    return make


def _imap(original: Callable[..., Any]) -> Callable[..., Any]:
    def imap(self: Any, func: Callable[..., Any], iterable: Iterable[Any], *args: Any, **kwargs: Any) -> Any:
        scope = _current()
        if scope is not None:
            func, iterable = InProcess(func, Context(scope)), InScopeIterable(iterable, scope)
        return original(self, func, iterable, *args, **kwargs)

    return imap


def _run_sync(original: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap `anyio.to_process.run_sync`, whose worker is a program that serves other scopes later."""

    async def run_sync(func: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        scope = _current()
        if scope is None:
            return await original(func, *args, **kwargs)
        task = InProcess(func, Context(scope))
        try:
            _enter(None)
            return await original(task, *args, **kwargs)
        finally:
            _enter(scope)

    return run_sync


def _popen(original: Callable[..., None]) -> Callable[..., None]:
    def start(*args: Any, **kwargs: Any) -> None:
        scope = _current()
        if scope is None:
            return original(*args, **kwargs)
        if len(args) > _ENV + 1:
            args = (*args[: _ENV + 1], _environment(args[_ENV + 1], scope), *args[_ENV + 2 :])
        else:
            kwargs["env"] = _environment(kwargs.get("env"), scope)
        return original(*args, **kwargs)

    return start


def _environment(given: Any, scope: Scope) -> Any:
    """The environment for another program: the given one, and the context."""
    try:
        text = Context(scope).to_text()
        if given is None:
            return {**os.environ, VARIABLE: text}
        environment = dict(given.items())
        chosen = environment.pop(os.fsencode(VARIABLE), environment.get(VARIABLE))
        if chosen is not None and os.fsdecode(chosen) != os.environ.get(VARIABLE):
            return given  # The user chose a context for this program; it is not a copy of ours.
        environment[VARIABLE] = text
    except Exception as error:
        # If it is not a mapping, `Popen` itself raises.
        if given is None or hasattr(given, "items"):
            reraise_from_signal(error)
            report("context", f"trackdsl cannot pass its context to another program: {format_error(error)}")
        return given
    return environment


PATCHES = [
    Patch("multiprocessing.process", "BaseProcess.start", _start),
    Patch("multiprocessing.pool", "Pool.__init__", make_pool),
    Patch("multiprocessing.pool", "Pool.apply_async", _apply),
    Patch("multiprocessing.pool", "Pool._map_async", _apply),
    Patch("multiprocessing.pool", "ApplyResult.__init__", _make_result),
    Patch("multiprocessing.pool", "Pool.imap", _imap),
    Patch("multiprocessing.pool", "Pool.imap_unordered", _imap),
    Patch("concurrent.futures.thread", "ThreadPoolExecutor.__init__", make_pool),
    Patch("concurrent.futures.process", "ProcessPoolExecutor.__init__", make_pool),
    Patch("concurrent.futures.process", "ProcessPoolExecutor.submit", submit_to_pool),
    Patch("anyio.to_process", "run_sync", _run_sync),
    Patch("subprocess", "Popen.__init__", _popen),
]

"""How a function is wrapped: the one place that tells plain functions, coroutines and generators apart.

A wrapper adds one frame to a traceback and nothing else: `inspect` answers, names and annotations are the function's.
Wrappers hold only what pickles by reference or by value, so a function of `__main__` travels with cloudpickle.
"""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from trackdsl import _context
from trackdsl._state import state

if TYPE_CHECKING:
    from trackdsl._call import Call
    from trackdsl._context import Scope


def wrap(fn: Callable[..., Any], call: Call) -> Callable[..., Any]:
    """Wrap `fn` so that each call is recorded as `call` says."""
    called = fn if inspect.isroutine(fn) or isinstance(fn, functools.partial) else type(fn).__call__
    if inspect.isgeneratorfunction(called):
        shape = _generator
    elif inspect.isasyncgenfunction(called):
        shape = _async_generator
    else:
        shape = _coroutine if inspect.iscoroutinefunction(called) else _plain
    wrapper = functools.wraps(fn)(shape(fn, call))
    wrapper.__trackdsl__ = call  # type: ignore[attr-defined]
    return wrapper


def _plain(fn: Callable[..., Any], call: Call) -> Callable[..., Any]:
    enter, leave = call.enter, call.leave

    def wrapper(*args: Any, **kwargs: Any) -> Any:
        if state.disabled:
            return fn(*args, **kwargs)
        scope = enter(args, kwargs)
        try:
            result = fn(*args, **kwargs)
        except BaseException as error:
            leave(scope, None, error, args, kwargs)
            raise
        leave(scope, result, None, args, kwargs)
        return result

    return wrapper


def _coroutine(fn: Callable[..., Any], call: Call) -> Callable[..., Any]:
    enter, leave = call.enter, call.leave

    async def wrapper(*args: Any, **kwargs: Any) -> Any:
        if state.disabled:
            return await fn(*args, **kwargs)
        scope = enter(args, kwargs)
        try:
            result = await fn(*args, **kwargs)
        except BaseException as error:
            leave(scope, None, error, args, kwargs)
            raise
        leave(scope, result, None, args, kwargs)
        return result

    return wrapper


def _generator(fn: Callable[..., Any], call: Call) -> Callable[..., Any]:
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        body = Unrecorded(args, kwargs) if state.disabled else Body(call, args, kwargs)
        del args, kwargs
        inner = body.begin(fn)
        # What passes through is held here alone, and let go at once: it may be a batch of gigabytes.
        resume: Any = inner.send
        passing: list[Any] = [None]
        while True:
            try:
                passing.append(resume(passing.pop()))
            except StopIteration as stop:
                body.end(stop.value, None)
                return stop.value
            except BaseException as error:
                body.end(None, error)
                raise
            body.suspend(passing[0])
            try:
                passing.append((yield passing.pop()))
                resume = inner.send
            except BaseException as thrown:
                resume = inner.throw
                passing.append(thrown)
            body.resume(passing[0])

    return wrapper


def _async_generator(fn: Callable[..., Any], call: Call) -> Callable[..., Any]:
    async def wrapper(*args: Any, **kwargs: Any) -> Any:
        body = Unrecorded(args, kwargs) if state.disabled else Body(call, args, kwargs)
        del args, kwargs
        inner = body.begin(fn)
        resume: Any = _unhooked(inner)
        passing: list[Any] = [None]
        while True:
            try:
                passing.append(await resume(passing.pop()))
            except StopAsyncIteration:
                body.end(None, None)
                return
            except BaseException as error:
                body.end(None, error)
                raise
            body.suspend(passing[0])
            try:
                passing.append((yield passing.pop()))
                resume = inner.asend
            except BaseException as thrown:
                resume = inner.athrow
                passing.append(thrown)
            body.resume(passing[0])

    return wrapper


def _unhooked(inner: Any) -> Callable[[Any], Any]:
    """The first `asend`, by which an async generator makes itself known to the event loop.

    At its end the loop would close the inner and the outer one at once; it is the outer one's to close.
    """

    def asend(value: Any) -> Any:
        hooks = sys.get_asyncgen_hooks()
        sys.set_asyncgen_hooks(None, None)
        try:
            return inner.asend(value)
        finally:
            sys.set_asyncgen_hooks(*hooks)

    return asend


class Unrecorded:
    """The body of a generator while nothing is recorded.

    Args:
        args: its arguments; they are let go when it is made.
        kwargs: those given by name.
    """

    __slots__ = ("_args", "_kwargs")

    def __init__(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._args = args
        self._kwargs = kwargs

    def begin(self, fn: Callable[..., Any]) -> Any:
        """Make the generator."""
        args, kwargs = self._args, self._kwargs
        self._args, self._kwargs = (), {}
        return fn(*args, **kwargs)

    def suspend(self, item: Any) -> None:
        """It has yielded."""

    def resume(self, sent: Any) -> None:
        """It goes on, with what was sent or thrown."""

    def end(self, result: Any, error: BaseException | None) -> None:
        """It has ended."""


class Body(Unrecorded):
    """The body of one generator, which runs in pieces: its scope is current while it runs, never for its caller.

    Args:
        call: how it is recorded.
        args: its arguments; they are let go when it is made, unless what it returns is recorded.
        kwargs: those given by name.
    """

    __slots__ = ("_call", "_closing", "_count", "_inside", "_outer", "_scope")

    def __init__(self, call: Call, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        super().__init__(args, kwargs)
        self._call = call
        self._closing = False
        self._count = 0
        self._outer = _context.current()
        self._inside: Scope | None = None
        self._scope: Scope | None = None

    def begin(self, fn: Callable[..., Any]) -> Any:
        """Enter the call and make the generator, which refuses wrong arguments."""
        args, kwargs = self._args, self._kwargs
        self._scope = self._call.enter(args, kwargs)
        try:
            inner = fn(*args, **kwargs)
        except BaseException as error:
            self.end(None, error)
            raise
        if self._call.returns is None:
            self._args, self._kwargs = (), {}
        return inner

    def suspend(self, item: Any) -> None:
        """Record what was yielded, and give the context back to the caller."""
        self._call.record_yield(self._scope, item, self._count)
        self._count += 1
        if self._call.options is not None:
            if self._scope is not None:
                self._scope.step = self._count
            self._inside = _context.current()
            _context.enter(self._outer)

    def resume(self, sent: Any) -> None:
        """Take the context from whoever asks for the next item, or wants no more."""
        self._closing = isinstance(sent, GeneratorExit)
        if self._call.options is not None:
            self._outer = _context.current()
            _context.enter(self._inside)

    def end(self, result: Any, error: BaseException | None) -> None:
        """Leave the call. A body that its caller closes has not failed."""
        if self._closing and (error is None or isinstance(error, GeneratorExit)):
            self._call.note_closed_early(self._scope)
            error = None
        try:
            self._call.leave(self._scope, result, error, self._args, self._kwargs)
        finally:
            if self._call.options is not None:
                _context.enter(self._outer)


_SHAPES = (_plain, _coroutine, _generator, _async_generator)
_WRAPPERS = {const for shape in _SHAPES for const in shape.__code__.co_consts if inspect.iscode(const)}


def call_of(fn: Any) -> Call | None:
    """The call behind one of our own wrappers; None for any other function, also one that wraps ours."""
    found: Call | None = getattr(fn, "__trackdsl__", None)
    return found if found is not None and getattr(fn, "__code__", None) in _WRAPPERS else None


def call_behind(fn: Any) -> Call | None:
    """The call of the nearest run-making wrapper that `fn`, a decorator of somebody else's, wraps."""
    while fn is not None:
        found = call_of(fn)
        if found is not None and found.options is not None:
            return found
        fn = getattr(fn, "__wrapped__", None)
    return None

"""How a function is wrapped: the one place that tells plain functions, coroutines and generators apart.

A wrapper adds one frame to a traceback and nothing else: `inspect` answers, names and annotations are the function's.
Wrappers hold only what pickles by reference or by value, so a function of `__main__` travels with cloudpickle.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from trackdsl import _context
from trackdsl._state import state

if TYPE_CHECKING:
    from trackdsl._call import Call
    from trackdsl._context import Scope


def wrap(fn: Callable[..., Any], call: Call) -> Callable[..., Any]:
    """Wrap `fn` so that each call is recorded as `call` says."""
    if inspect.isgeneratorfunction(fn):
        shape = _generator
    elif inspect.isasyncgenfunction(fn):
        shape = _async_generator
    else:
        shape = _coroutine if inspect.iscoroutinefunction(fn) else _plain
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
        inner = body.begin(fn)
        resume, value = inner.send, None
        while True:
            try:
                item = resume(value)
            except StopIteration as stop:
                body.end(stop.value, None)
                return stop.value
            except BaseException as error:
                body.end(None, error)
                raise
            body.suspend(item)
            try:
                resume, value = inner.send, (yield item)
            except GeneratorExit:
                body.resume()
                with body.closing():
                    inner.close()
                raise
            except BaseException as thrown:
                resume, value = inner.throw, thrown
            body.resume()

    return wrapper


def _async_generator(fn: Callable[..., Any], call: Call) -> Callable[..., Any]:
    async def wrapper(*args: Any, **kwargs: Any) -> Any:
        body = Unrecorded(args, kwargs) if state.disabled else Body(call, args, kwargs)
        inner = body.begin(fn)
        resume, value = inner.asend, None
        while True:
            try:
                item = await resume(value)
            except StopAsyncIteration:
                body.end(None, None)
                return
            except BaseException as error:
                body.end(None, error)
                raise
            body.suspend(item)
            try:
                resume, value = inner.asend, (yield item)
            except GeneratorExit:
                body.resume()
                with body.closing():
                    await inner.aclose()
                raise
            except BaseException as thrown:
                resume, value = inner.athrow, thrown
            body.resume()

    return wrapper


class Unrecorded:
    """The body of a generator while nothing is recorded."""

    __slots__ = ("_args", "_kwargs")

    def __init__(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._args = args
        self._kwargs = kwargs

    def begin(self, fn: Callable[..., Any]) -> Any:
        """Make the generator."""
        return fn(*self._args, **self._kwargs)

    def suspend(self, item: Any) -> None:
        """It has yielded."""

    def resume(self) -> None:
        """It goes on."""

    def end(self, result: Any, error: BaseException | None) -> None:
        """It has ended."""

    def closing(self) -> contextlib.AbstractContextManager[None]:
        """It is closed before its end."""
        return contextlib.nullcontext()


class Body(Unrecorded):
    """The body of one generator, which runs in pieces: its scope is current while it runs, never for its caller.

    Args:
        call: how it is recorded.
        args, kwargs: its arguments.
    """

    __slots__ = ("_call", "_count", "_inside", "_outer", "_scope")

    def __init__(self, call: Call, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        super().__init__(args, kwargs)
        self._call = call
        self._count = 0
        self._outer = _context.current()
        self._inside: Scope | None = None
        self._scope: Scope | None = None

    def begin(self, fn: Callable[..., Any]) -> Any:
        """Enter the call and make the generator, which refuses wrong arguments."""
        self._scope = self._call.enter(self._args, self._kwargs)
        try:
            return fn(*self._args, **self._kwargs)
        except BaseException as error:
            self.end(None, error)
            raise

    def suspend(self, item: Any) -> None:
        """Record what was yielded, and give the context back to the caller."""
        self._call.record_yield(self._scope, item, self._count)
        self._count += 1
        if self._call.options is not None:
            if self._scope is not None:
                self._scope.step = self._count
            self._inside = _context.current()
            _context.enter(self._outer)

    def resume(self) -> None:
        """Take the context from whoever asks for the next item."""
        if self._call.options is not None:
            self._outer = _context.current()
            _context.enter(self._inside)

    def end(self, result: Any, error: BaseException | None) -> None:
        """Leave the call."""
        try:
            self._call.leave(self._scope, result, error, self._args, self._kwargs)
        finally:
            if self._call.options is not None:
                _context.enter(self._outer)

    @contextlib.contextmanager
    def closing(self) -> Iterator[None]:
        """While the generator is closed before its end: what it raises there is its end, nothing is an early one."""
        try:
            yield
        except BaseException as error:
            self.end(None, error)
            raise
        self._call.note_closed_early(self._scope)
        self.end(None, None)


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

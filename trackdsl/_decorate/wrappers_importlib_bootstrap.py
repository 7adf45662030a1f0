"""How a function is wrapped: the only module that distinguishes plain functions, coroutines and generators.

A wrapper adds one frame to a traceback. Everything else, such as names, annotations and the answers of `inspect`, is
that of the function. Wrappers only refer to what can be pickled, so cloudpickle can send a function of `__main__`.

The name of this file is for `warnings` and, from Python 3.11 on, `logging`: their `stacklevel` skips frames whose file
has `importlib` and `_bootstrap` in its name (`_is_internal_frame` in CPython's Lib/warnings.py and
Lib/logging/__init__.py). So a warning of a decorated function for its caller points at the caller, not at the wrapper.
"""

from __future__ import annotations

import functools
import inspect
import os
import sys
import types
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from trackdsl._core.recursion_limit import register_wrappers, stack
from trackdsl._core.suppression import suppression
from trackdsl._decorate.deferred import Deferred, is_future
from trackdsl._decorate.generators import Body, Unrecorded
from trackdsl._decorate.last_run import forget_last_run
from trackdsl._decorate.signature_wrappers import wrapper_like

if TYPE_CHECKING:
    from trackdsl._decorate.call import Call


def wrap(fn: Callable[..., Any], call: Call) -> Callable[..., Any]:
    """Wrap a function so that `call` records each of its calls."""
    kind = _kind_of(fn)
    if kind is not None:
        wrapper = wrapper_like(fn, _FACTORIES[kind], fn, call)
    elif any(_kind_of(inner) is not None for inner in _wrapped_functions(fn)):
        wrapper = _deferring(fn, call)
    else:
        wrapper = _plain(fn, call)
        _show_signature(wrapper, fn)
    functools.update_wrapper(wrapper, fn)
    if isinstance(fn, functools.partial) or not hasattr(type(fn), "__get__"):
        from trackdsl._decorate.callable_proxy import decorated_object

        stand_in: Callable[..., Any] = decorated_object(fn, call, wrapper, wrap)
        return stand_in
    _copy_methods(wrapper, fn)
    wrapper.__trackdsl__ = call
    flags: int = getattr(getattr(fn, "__code__", None), "co_flags", 0)
    made: Callable[..., Any] = types.coroutine(wrapper) if flags & inspect.CO_ITERABLE_COROUTINE else wrapper
    call.wrapper = made
    forget_last_run(made)
    return made


def _show_signature(wrapper: Any, fn: Any) -> None:
    """Show the parameters to code that does not follow `__wrapped__`, such as `inspect.getfullargspec`."""
    if not inspect.isfunction(fn) or hasattr(fn, "__wrapped__"):
        return
    # `inspect.signature(eval_str=True)` only evaluates annotations that it finds itself, so strings stay there.
    if not any(isinstance(annotation, str) for annotation in fn.__annotations__.values()):
        wrapper.__signature__ = inspect.signature(fn)


def _kind_of(fn: Callable[..., Any]) -> type | None:
    """The type of the coroutine or generator that a function returns; None for a plain function."""
    called = fn if inspect.isroutine(fn) or isinstance(fn, functools.partial) else type(fn).__call__
    if inspect.isgeneratorfunction(called):
        return types.GeneratorType
    if inspect.isasyncgenfunction(called):
        return types.AsyncGeneratorType
    return types.CoroutineType if inspect.iscoroutinefunction(called) or inspect.iscoroutinefunction(fn) else None


def _wrapped_functions(fn: Any) -> Iterator[Any]:
    """The functions that `fn`, a wrapper of another library, wraps, from the outermost to the innermost."""
    seen = {id(fn)}
    while True:
        fn = fn.func if isinstance(fn, functools.partial) else getattr(fn, "__wrapped__", None)
        if fn is None or id(fn) in seen:
            return
        seen.add(id(fn))
        yield fn


def _copy_methods(wrapper: Any, fn: Any) -> None:
    """Copy the methods of an object to its wrapper, such as `cache_clear`. `functools` only copies attributes."""
    if not isinstance(fn, (types.FunctionType, types.MethodType)):
        for name in dir(type(fn)):
            attribute = inspect.getattr_static(type(fn), name)
            method = inspect.isroutine(attribute) or isinstance(attribute, (classmethod, staticmethod))
            if method and not name.startswith("__") and name not in wrapper.__dict__:
                setattr(wrapper, name, getattr(fn, name))


def _plain(fn: Callable[..., Any], call: Call) -> Callable[..., Any]:
    enter, leave, abandon = call.enter, call.leave, call.abandon
    # If the arguments are not needed at the end, the wrapper drops its references to them as it passes them on: then
    # the function can free an argument of gigabytes. Up to Python 3.11, Python itself keeps them.
    keeps = call.returns is not None

    def wrapper(*args: Any, **kwargs: Any) -> Any:
        if suppression.on and (suppression.off or suppression.here()):
            if stack.shallow():
                if not kwargs:  # `**kwargs` makes Python copy even an empty dictionary, which takes time.
                    return fn(*(args if keeps else (args, args := ())[0]))
                return fn(*args, **(kwargs if keeps else (kwargs, args := ())[0]))
            with stack.deeper():
                return fn(*args, **kwargs)
        scope = None
        try:
            scope = enter(args, kwargs)
            try:
                result = fn(*args, **(kwargs if keeps else (kwargs, args := ())[0]))
            except BaseException as error:
                leave(scope, None, error, args, kwargs)
                raise
            leave(scope, result, None, args, kwargs)
        except BaseException as error:
            abandon(scope, error)
            raise
        return result

    return wrapper


def _deferring(fn: Callable[..., Any], call: Call) -> Callable[..., Any]:
    """Wrap a function that returns a coroutine, generator or future: when that runs, it continues the same run."""
    enter, leave = call.enter, call.leave

    def wrapper(*args: Any, **kwargs: Any) -> Any:
        if suppression.on and suppression.here():
            return fn(*args, **kwargs)
        scope = enter(args, kwargs)
        try:
            result = fn(*args, **kwargs)
        except BaseException as error:
            leave(scope, None, error, args, kwargs)
            raise
        factory = _FACTORIES.get(type(result))
        if factory is not None:
            return _named_like(result, factory(lambda: result, Deferred(call, scope, args, kwargs))())
        if is_future(result):
            result.add_done_callback(Deferred(call, scope, args, kwargs).when_done)
        else:
            leave(scope, result, None, args, kwargs)
        return result

    return wrapper


def _named_like(inner: Any, outer: Any) -> Any:
    outer.__name__, outer.__qualname__ = inner.__name__, inner.__qualname__
    return outer


def _coroutine(fn: Callable[..., Any], call: Call | Deferred) -> Callable[..., Any]:
    enter, leave, abandon = call.enter, call.leave, call.abandon
    keeps = call.returns is not None

    async def wrapper(*args: Any, **kwargs: Any) -> Any:
        if suppression.on and suppression.here():
            if stack.shallow():
                return await fn(*args, **kwargs)
            with stack.deeper():
                return await fn(*args, **kwargs)
        scope = None
        try:
            scope = enter(args, kwargs)
            try:
                awaited = fn(*args, **kwargs)
                if not keeps:
                    args, kwargs = (), {}
                result = await awaited
            except BaseException as error:
                leave(scope, None, error, args, kwargs)
                raise
            leave(scope, result, None, args, kwargs)
        except BaseException as error:
            abandon(scope, error)
            raise
        return result

    return wrapper


def _generator(fn: Callable[..., Any], call: Call | Deferred) -> Callable[..., Any]:
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        body = Unrecorded(args, kwargs) if suppression.on and suppression.here() else Body(call, args, kwargs)
        del args, kwargs
        inner = body.begin(fn)
        resume: Any = inner.send
        # This list is the only reference to an item, and drops it at once: an item may be a batch of gigabytes.
        passing: list[Any] = []
        while True:
            try:
                # `next` needs less of the C stack, which matters if hundreds of generators are nested.
                passing.append(resume(passing.pop()) if passing else next(inner))
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
            if passing[0] is None:
                passing.clear()

    return wrapper


def _async_generator(fn: Callable[..., Any], call: Call | Deferred) -> Callable[..., Any]:
    async def wrapper(*args: Any, **kwargs: Any) -> Any:
        body = Unrecorded(args, kwargs) if suppression.on and suppression.here() else Body(call, args, kwargs)
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


# Pickles of wrappers refer to this function by its name.
def _unhooked(inner: Any) -> Callable[[Any], Any]:
    """The first `asend` of the inner async generator, without registering that generator with the event loop.

    Otherwise the loop would close both generators at its end. The outer generator closes the inner one.
    """

    def asend(value: Any) -> Any:
        hooks = sys.get_asyncgen_hooks()
        sys.set_asyncgen_hooks(None, None)
        try:
            return inner.asend(value)
        finally:
            sys.set_asyncgen_hooks(*hooks)

    return asend


#: What a function returns → the function that makes its wrapper.
_FACTORIES: dict[type, Callable[..., Any]] = {
    types.CoroutineType: _coroutine,
    types.GeneratorType: _generator,
    types.AsyncGeneratorType: _async_generator,
}
#: The end of this file's path, which also identifies wrappers from other machines.
_FILE = os.sep.join(_plain.__code__.co_filename.split(os.sep)[-2:])


def call_of(fn: Any) -> Call | None:
    """The call of one of our own wrappers; None for any other function, also for one that wraps ours."""
    call: Call | None = vars(type(fn)).get("__trackdsl__")
    if call is not None:  # The proxy of an object.
        return call
    call = getattr(fn, "__trackdsl__", None)
    code = getattr(fn, "__code__", None)
    if call is None or code is None:
        return None
    return call if code.co_name == "wrapper" and code.co_filename.endswith(_FILE) else None


def call_behind(fn: Any) -> Call | None:
    """The call of the nearest wrapper of ours that begins runs, if `fn` is a wrapper of another library around it."""
    while fn is not None:
        call = call_of(fn)
        if call is not None and call.options is not None:
            return call
        fn = getattr(fn, "__wrapped__", None)
    return None


register_wrappers(wrap.__code__)

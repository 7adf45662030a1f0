"""Ray: a task, and a call of an actor's method, belongs to the run that was current where it was submitted.

Ray gets the program's functions and classes unchanged, so names, signatures and exports stay what they were. The
context travels with each call as one more argument, after those that Ray has checked. The worker removes it before the
function is called. Ray's own tracing passes its context in the same way, but has to change the functions
(ray/util/tracing/tracing_helper.py).
"""

from __future__ import annotations

import functools
import pickle
import sys
import threading
from collections.abc import Callable
from typing import Any

from trackdsl._core.patching import Patch, opened
from trackdsl.distributed._contexts import Context
from trackdsl.distributed._sending import by_value, text_here
from trackdsl.distributed._task_context import Task, inside
from trackdsl.errors import format_error, logger, report, reraise_from_signal
from trackdsl.store_format.tags import ATTEMPT_TAG, TASK_TAG

_WORKER = "ray._private.worker"
#: The modules in which Ray flattens and recovers the arguments of a call; the second is that of older versions.
_SIGNATURES = ("ray._common.signature", "ray._private.signature")
#: Comes before the context in the list of a call's arguments. No argument can have this name.
MARK = "trackdsl:context"
_NOTHING = Context(None)


class Arguments(tuple[Any, ...]):
    """The positional arguments of a call, before Ray checks them, with the context of the call.

    Ray skips the check if there are no arguments, so this is true even if it is empty.
    """

    text: str

    def __bool__(self) -> bool:
        return True


def _prepare_worker() -> str:
    """Prepare a worker to receive contexts. Runs when a worker unpickles the arguments of a call.

    It is pickled by value, as the worker may not have trackdsl. Then it makes Ray drop the context.
    """
    try:
        from trackdsl.distributed.ray import prepare

        return prepare()
    except Exception:
        import sys

        mark = "trackdsl:context"
        for name in ("ray._common.signature", "ray._private.signature"):
            module: Any = sys.modules.get(name)
            if module is not None and not hasattr(module.recover_args, "trackdsl"):
                original = module.recover_args

                def recover_args(flattened_args, original=original):  # type: ignore[no-untyped-def]
                    if flattened_args and flattened_args[-2] == mark:
                        flattened_args = flattened_args[:-2]
                    return original(flattened_args)

                recover_args.trackdsl = True  # type: ignore[attr-defined]
                module.recover_args = recover_args
        return mark


class _Preparation:
    """Pickles to a call of `_prepare_worker`."""

    def __reduce__(self) -> tuple[Any, ...]:
        return by_value(_prepare_worker), ()


class _Mark:
    """The mark on the wire. Unpickling it prepares the worker for the context that follows."""

    def __reduce__(self) -> tuple[Any, ...]:
        return pickle.loads, (_pickled_preparation(),)


_mark = _Mark()


@functools.lru_cache(maxsize=1)
def _pickled_preparation() -> bytes:
    pickled: bytes = sys.modules["ray"].cloudpickle.dumps(_Preparation())
    return pickled


@functools.lru_cache(maxsize=1)
def _can_follow() -> bool:
    """Whether this version of Ray, which the workers have too, recovers arguments in a function that we know."""
    worker = getattr(sys.modules[_WORKER], "Worker", None)
    found = any(hasattr(sys.modules.get(name), "recover_args") for name in _SIGNATURES)
    found = found and hasattr(worker, "record_task_log_start") and hasattr(worker, "record_task_log_end")
    if not found:
        report("ray", "trackdsl does not know this version of Ray, so runs in its tasks begin as roots.")
    return found


def _with_context(args: Any) -> Any:
    """The arguments of a call, with the current context if there is one."""
    text = text_here("Ray")
    if not text or not _can_follow():
        return args
    arguments = Arguments(args or ())
    arguments.text = text
    return arguments


def _submit(original: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap the method that submits a task or creates an actor."""

    def _remote(self: Any, args: Any = None, kwargs: Any = None, *rest: Any, **options: Any) -> Any:
        return original(self, _with_context(args), kwargs, *rest, **options)

    return _remote


def _call_method(original: Callable[..., Any]) -> Callable[..., Any]:
    def _actor_method_call(self: Any, method_name: str, args: Any = None, *rest: Any, **options: Any) -> Any:
        return original(self, method_name, _with_context(args), *rest, **options)

    return _actor_method_call


def _flatten(original: Callable[..., Any]) -> Callable[..., Any]:
    def flatten_args(signature_parameters: Any, args: Any, kwargs: Any) -> Any:
        flattened = original(signature_parameters, args, kwargs)
        return [*flattened, _mark, args.text] if type(args) is Arguments else flattened

    return flatten_args


PATCHES = [
    Patch("ray.remote_function", "RemoteFunction._remote", _submit),
    Patch("ray.actor", "ActorClass._remote", _submit),
    Patch("ray.actor", "ActorHandle._actor_method_call", _call_method),
    *(Patch(name, "flatten_args", _flatten) for name in _SIGNATURES),
]


class _ThreadState(threading.local):
    """The state of a thread in a worker."""

    #: The context from the arguments of the task that begins next.
    text = ""
    #: The scope that it runs in.
    inside: inside | None = None
    #: The id of the last task, and the task: generators of `num_returns="dynamic"` run after its end.
    last: tuple[str, Task] | None = None


_here = _ThreadState()
_followed = False


def prepare() -> str:
    """Prepare this worker to take contexts out of arguments.

    Raises:
        ImportError: this version of Ray is unknown.
    """
    follow()
    if not _followed:
        raise ImportError("this version of Ray is unknown")
    return MARK


def follow() -> None:
    """Follow every task of this worker from now on. The patches stay installed, as tasks open and close many scopes."""
    global _followed
    opened(_WORKER)
    modules = [module for module in map(sys.modules.get, _SIGNATURES) if hasattr(module, "recover_args")]
    if _followed or not modules or not _can_follow():
        return
    worker: Any = sys.modules[_WORKER].Worker
    for module in modules:
        _replace(module, "recover_args", _recover)
    _replace(worker, "record_task_log_start", _begin)
    _replace(worker, "record_task_log_end", _end)
    _followed = True


def _replace(owner: Any, name: str, wrapper: Callable[..., Any]) -> None:
    original = getattr(owner, name)
    wrapped = functools.wraps(original)(wrapper(original))
    wrapped.trackdsl = True  # type: ignore[attr-defined]
    setattr(owner, name, wrapped)


def _recover(original: Callable[..., Any]) -> Callable[..., Any]:
    def recover_args(flattened_args: Any) -> Any:
        if flattened_args and flattened_args[-2] == MARK:
            _here.text = flattened_args[-1]
            flattened_args = flattened_args[:-2]
        return original(flattened_args)

    return recover_args


def _begin(original: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap what Ray calls right before a task's function, in its thread, with the id and the number of the attempt."""

    def record_task_log_start(self: Any, task_id: Any, attempt_number: int) -> Any:
        text, _here.text = _here.text, ""
        try:
            _leave()
            tags = {TASK_TAG: task_id.hex(), ATTEMPT_TAG: str(attempt_number + 1)}
            task = Task(_received(text), tags)
            _here.last = task_id.hex(), task
            # An asynchronous actor runs the call in its event loop, with a copy of the context that this thread has
            # now.
            # After that, the thread begins the next call.
            _here.inside = inside(task)
            _here.inside.__enter__()
        except Exception as error:
            reraise_from_signal(error)
            logger.warning("trackdsl cannot follow a task of Ray, so its runs begin as roots: %s", format_error(error))
        return original(self, task_id, attempt_number)

    return record_task_log_start


def _end(original: Callable[..., Any]) -> Callable[..., Any]:
    def record_task_log_end(self: Any, task_id: Any, attempt_number: int) -> Any:
        _leave()
        return original(self, task_id, attempt_number)

    return record_task_log_end


def _leave() -> None:
    """Leave the scope of a task that has ended, was cancelled before it began, or continues in an event loop."""
    around, _here.inside = _here.inside, None
    if around is not None:
        around.__exit__()


def _received(text: str) -> Context:
    try:
        return _read(text)
    except Exception as error:
        reraise_from_signal(error)
        logger.warning(
            "trackdsl cannot read the context of a task, so its runs begin as roots: %s", format_error(error)
        )
        return _NOTHING


@functools.lru_cache(maxsize=256)
def _read(text: str) -> Context:
    return Context.from_text(text)


def current_task() -> Task | None:
    """The Ray task that this code runs in, if no scope was entered for it."""
    ray: Any = sys.modules["ray"]
    worker = ray._private.worker.global_worker
    if worker.mode != ray.WORKER_MODE:
        return None
    follow()
    id_ = ray.get_runtime_context().get_task_id()
    if _here.last is not None and _here.last[0] == id_:
        return _here.last[1]
    # This task has imported trackdsl, or another thread asks, for which Ray invents an id.
    if id_ is None or threading.current_thread() is not threading.main_thread():
        return Task(_NOTHING)
    attempt = worker.core_worker.get_current_task_attempt_number()
    return Task(_NOTHING, {TASK_TAG: id_, ATTEMPT_TAG: str(attempt + 1)})

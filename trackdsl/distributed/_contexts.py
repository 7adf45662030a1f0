"""Contexts: the current run, to make it current in other threads, processes and machines."""

from __future__ import annotations

import contextlib
import errno
import functools
import os
from collections.abc import Callable, Mapping
from contextvars import Token
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

from trackdsl._config import resolve as settings
from trackdsl._config.state import state
from trackdsl._core import context as _context
from trackdsl._core import runtime
from trackdsl._core.context import Scope, TaskScope
from trackdsl._core.ids import begins_with, prefix, prefix_of
from trackdsl._core.patching import closed, opened
from trackdsl._core.runtime import Phase
from trackdsl._runs.lifecycle import adopt_run
from trackdsl._runs.run import NULL_RUN, Run, adoption_of
from trackdsl.distributed._wire import Chosen, WireContext, decode, encode, is_same_spool, public, take_settings, uri_of
from trackdsl.errors import ContextError, OptionError, TrackdslError, format_error, report, reraise_from_signal
from trackdsl.journal import _target
from trackdsl.journal._origin import ancestors, work_for
from trackdsl.journal._spool import is_spool, locate
from trackdsl.journal._store_target import CAPTURED, UNDELIVERED, Target
from trackdsl.journal._writer import Writer

#: The environment variable with the current run, for the programs that this one starts.
VARIABLE = "TRACKDSL_CONTEXT"

_MAX_REMOTE_RUNS = 1000
#: On Linux an environment variable has room for 128 KiB.
_MAX_PATH = 4000


class Context:
    """The run that was current when `capture` was called: a small object that can be pickled and used on any machine.

    Enter it with `attach`. It is false if no run was current.
    """

    __slots__ = ("_scope", "_wire")

    def __init__(self, scope: Scope | None, wire: WireContext | None = None) -> None:
        self._scope = scope
        self._wire = wire

    @classmethod
    def from_text(cls, text: str) -> Context:
        """The context of a text that `to_text` made.

        Raises:
            ContextError: the text is not a context.
        """
        return cls(None, decode(text)) if text else cls(None)

    def to_text(self) -> str:
        """The context as JSON, for example for a message queue, or for the variable `TRACKDSL_CONTEXT`."""
        if self._wire is not None:
            return encode(self._wire)
        return "" if self._scope is None else _text_of(self._scope)

    def scope(self) -> Scope | None:
        """The scope to enter; None if no run was current."""
        wire, scope = self._wire, self._scope
        if wire is not None and (scope is None or not _fits(scope.run, wire)):
            scope = self._scope = Scope(_remote_run(wire), None, self, wire.step)
        elif scope is not None and _is_from_before_fork(scope.run):
            adopted = adopt_run(*(adoption_of(scope.run) or ("", "")), scope.run.target)
            scope = self._scope = Scope(adopted, None, self, scope.step)
        return scope

    def __bool__(self) -> bool:
        return self._scope is not None or self._wire is not None

    def __reduce__(self) -> tuple[Any, ...]:
        return _arrived, (self.to_text(),)

    def __repr__(self) -> str:
        known = self._scope.run if self._scope is not None else self._wire
        return f"<Context of {known.path!r}>" if known is not None else "<Context of no run>"


class attach:  # noqa: N801 - it is used as a function: `with attach(...)`
    """Enter a captured context: everything recorded inside belongs to its run.

    Threads and processes that are started inside belong to the run too. Leaving the block does not end the run.

    Args:
        context: what `capture` returned, or the text from its `to_text`.

    Raises:
        OptionError: the argument is not a context.
        ContextError: the text is not a context.

    Example:
        >>> from trackdsl import attach, capture
        >>> with attach(capture()) as run:
        ...     run.log_metric("rows", 10)
    """

    __slots__ = ("_context", "_open", "_tokens")

    def __init__(self, context: Context | str) -> None:
        if isinstance(context, str):
            context = Context.from_text(context)
        if not isinstance(context, Context):
            raise OptionError(
                f"attach() takes what capture() returned, not {type(context).__name__}.", option="context"
            )
        self._context = context
        self._open: list[Scope] = []
        # For entries without a run, which have no scope.
        self._tokens: list[Token[Scope | None]] = []

    def __enter__(self) -> Run:
        captured = None if state.disabled else _resolved(self._context)
        if state.disabled:  # The context may have brought a setting that disables trackdsl.
            return NULL_RUN
        if captured is None:
            self._tokens.append(_context.enter(None))
            return NULL_RUN
        # Each entry has its own scope, as several threads may enter the same context at once.
        outer = _context.current()
        scope = Scope(captured.run, outer, self, captured.step)
        if outer is not None and outer.tags and outer.run is captured.run:
            scope = TaskScope(captured.run, outer, self, captured.step, outer.tags)  # It belongs to the same task.
        self._open.append(scope)
        opened(scope)
        _context.enter(scope)
        run: Run = scope.run
        return run

    def __exit__(self, *_: object) -> None:
        scope = _context.find(self)
        if scope is None and self._open:
            scope = self._open[-1]
        if scope is not None:
            with contextlib.suppress(ValueError):
                self._open.remove(scope)
            closed(scope)
            _context.leave(scope)
        elif self._tokens:
            token = self._tokens.pop()
            with contextlib.suppress(ValueError):  # It was entered in another context of `contextvars`.
                token.var.reset(token)


class InScope:
    """A function that runs in a captured context, for example in another process. It can be pickled if `fn` can.

    Args:
        fn: the function.
        context: the context.
    """

    def __init__(self, fn: Callable[..., Any], context: Context) -> None:
        functools.update_wrapper(self, fn, updated=())
        self._fn = fn
        self._context = context

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        with attach(self._context):
            return self._fn(*args, **kwargs)

    def __reduce__(self) -> tuple[Any, ...]:
        return InScope, (self._fn, self._context)


def inherited() -> Run | None:
    """The run in `TRACKDSL_CONTEXT`, which was current where this program was started; None without one."""
    text = os.environ.get(VARIABLE)
    if not text or _target.overridden():  # A test captures runs, and should see the program's own.
        return None
    try:
        context = _from_environment(text)
    except ContextError as error:
        report("context", f"trackdsl cannot read {VARIABLE}: {error} Runs begin as roots.")
        return None
    scope = _resolved(context)
    return None if scope is None else scope.run


@functools.lru_cache(maxsize=8)
def _from_environment(text: str) -> Context:
    return Context.from_text(text)


def _take_inherited_settings() -> None:
    """Use the settings of the program that started this one, from the first run on."""
    with contextlib.suppress(Exception):  # The first run reports it.
        take_settings(decode(os.environ[VARIABLE]))


if os.environ.get(VARIABLE):
    _take_inherited_settings()


def _resolved(context: Context) -> Scope | None:
    try:
        return context.scope()
    except TrackdslError:
        raise
    except Exception as error:
        reraise_from_signal(error)
        report("context", f"trackdsl cannot enter {context!r}, so runs begin as roots: {format_error(error)}")
        return None


def _arrived(text: str) -> Context:
    """Unpickle a context. A context of another version is replaced by an empty one, so that the task still runs."""
    try:
        return Context.from_text(text)
    except ContextError as error:
        report("context", f"trackdsl cannot read a context, so runs begin as roots: {error}")
        return Context(None)


#: The last text that was made, with what it depends on: thousands of tasks may be submitted in one scope.
_last: list[tuple[tuple[Run, int, Mapping[str, Any], Writer | None], str]] = []
#: The runs of this process that other processes know, in case one of their contexts comes back.
_sent: WeakValueDictionary[str, Run] = WeakValueDictionary()


def _text_of(scope: Scope) -> str:
    key = (scope.run, scope.step, settings.configured(), scope.run.target.writer)
    for known, text in _last:
        if known == key:
            return text
    _sent[scope.run.key.hex()] = scope.run
    text = encode(_wire_of(scope))
    _last[:] = [(key, text)]
    return text


def _wire_of(scope: Scope) -> WireContext:
    run = scope.run
    target = run.target
    path = run.path if len(run.path) <= _MAX_PATH else f"…{run.path[-_MAX_PATH:]}"
    if target.writer is not None:
        spool, journal = str(target.writer.directory.parent.parent), target.writer.directory.name
    else:
        spool, journal = _spool_of(target), ""
    return WireContext(
        run=run.key.hex(),
        name=run.name[:_MAX_PATH],
        path=path,
        experiment=run.experiment,
        uri=public(target.uri),
        cwd=target.cwd,
        host=os.uname().nodename,
        spool=spool,
        journal=journal,
        step=scope.step,
        ancestors=ancestors(),
        mlflow=adoption_of(run),
        settings=Chosen(**{name: settings.explicit(name) for name in Chosen.__struct_fields__}),
    )


def _spool_of(target: Target) -> str:
    """The spool in which a target would make its journal; empty for the default, which other processes know."""
    named = target.spool or settings.spool()
    if named is None:
        return ""
    try:
        return str(locate(named))
    except OSError:  # The folder cannot be used, so this process will use another.
        return ""


#: The runs of other processes, one handle for each run, so that the indices of its children continue.
_remote_runs: dict[str, Run] = {}


def _reset() -> None:
    _last.clear()
    _sent.clear()
    _remote_runs.clear()


runtime.register("contexts that were sent", Phase.RUNS, reset=_reset)


def _is_from_before_fork(run: Run) -> bool:
    """Whether the handle of a resumed or plain MLflow run was made before this process was forked.

    Then this process needs its own handle, as its own journal has to name the run.
    """
    return adoption_of(run) is not None and not begins_with(run.key, prefix())


def _fits(run: Run, wire: WireContext) -> bool:
    """Whether the handle that was made for a context still belongs to the store that runs go to now."""
    if _target.overridden():
        return run.target is _target.target_for()
    # A handle that delivers nothing was made while a test captured runs.
    return not _is_from_before_fork(run) and (run.target.delivers or wire.uri in UNDELIVERED)


def _remote_run(wire: WireContext) -> Run:
    run = _sent.get(wire.run) or _remote_runs.get(wire.run)
    if run is None or not _fits(run, wire):
        _remote_runs.pop(wire.run, None)
        if wire.uri == CAPTURED:
            if not is_spool(Path(wire.spool)):
                raise PermissionError(
                    errno.EPERM, "the folder of a test's runs is not a spool of this user", wire.spool
                )
            target = Target(wire.uri, wire.cwd, spool=Path(wire.spool), deliver=False)
        else:
            take_settings(wire)
            target = _target.target_for(uri_of(wire), wire.cwd)
        started_by = prefix_of(bytes.fromhex(wire.run)).hex()
        work_for((*wire.ancestors, started_by), (started_by,) if is_same_spool(wire) else ())
        if wire.mlflow is not None:
            return adopt_run(*wire.mlflow, target)
        if len(_remote_runs) >= _MAX_REMOTE_RUNS:
            _remote_runs.clear()
        run = Run(bytes.fromhex(wire.run), wire.name, None, wire.path, wire.experiment, target)
        run = _remote_runs.setdefault(wire.run, run)  # Another thread may have been first.
    return run

"""Context propagation: the run that is current here, carried to other threads, processes and machines."""

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
from trackdsl._core.runtime import Phase
from trackdsl._runs.lifecycle import adopt_run
from trackdsl._runs.run import NULL_RUN, Run, adoption_of
from trackdsl.distributed._patching import closed, opened
from trackdsl.distributed._wire import Carried, Chosen, decode, encode, is_beside, public, take_settings, uri_of
from trackdsl.errors import ContextError, OptionError, TrackdslError, format_error, report, reraise_from_signal
from trackdsl.journal import _target
from trackdsl.journal._origin import within, work_within
from trackdsl.journal._spool import is_spool, locate
from trackdsl.journal._writer import Writer

#: The variable of the environment by which a program hands its current run to programs that it starts.
VARIABLE = "TRACKDSL_CONTEXT"

_MAX_FOREIGN = 1000
#: A variable of the environment has room for 128 KiB on Linux.
_MAX_PATH = 4000


class Context:
    """The run that was current where `capture` was called: small, picklable, and good on any machine.

    It is false where no run was current. `attach` enters it.
    """

    __slots__ = ("_carried", "_scope")

    def __init__(self, scope: Scope | None, carried: Carried | None = None) -> None:
        self._scope = scope
        self._carried = carried

    @classmethod
    def from_text(cls, text: str) -> Context:
        """The context that `to_text` was asked for.

        Raises:
            ContextError: the text is none of a context.
        """
        return cls(None, decode(text)) if text else cls(None)

    def to_text(self) -> str:
        """The context as JSON, for a message queue or the environment: `TRACKDSL_CONTEXT` is read by itself."""
        if self._carried is not None:
            return encode(self._carried)
        return "" if self._scope is None else _text_of(self._scope)

    def scope(self) -> Scope | None:
        """The scope to be entered; None where there is none."""
        carried, scope = self._carried, self._scope
        if carried is not None and (scope is None or not _fits(scope.run, carried)):
            scope = self._scope = Scope(_foreign_run(carried), None, self, carried.step)
        elif scope is not None and _is_of_others(scope.run):
            adopted = adopt_run(*(adoption_of(scope.run) or ("", "")), scope.run.target)
            scope = self._scope = Scope(adopted, None, self, scope.step)
        return scope

    def __bool__(self) -> bool:
        return self._scope is not None or self._carried is not None

    def __reduce__(self) -> tuple[Any, ...]:
        return _arrived, (self.to_text(),)

    def __repr__(self) -> str:
        told_of = self._scope.run if self._scope is not None else self._carried
        return f"<Context of {told_of.path!r}>" if told_of is not None else "<Context of no run>"


class attach:  # noqa: N801 - reads as a word in `with attach(...)`
    """Enter a captured context: what is recorded inside belongs to the run that was current where it was captured.

    The run is never ended by this. Inside, threads and processes are started under it as under any scope.

    Args:
        context: from `capture`, or the text that its `to_text` gave.

    Raises:
        OptionError: something that is no context.
        ContextError: a text that is none of a context.

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
            raise OptionError(f"attach() takes what capture() gave, not {type(context).__name__}.", option="context")
        self._context = context
        self._open: list[Scope] = []
        # Of entries into no run at all, which no scope stands for.
        self._tokens: list[Token[Scope | None]] = []

    def __enter__(self) -> Run:
        captured = None if state.disabled else _resolved(self._context)
        if state.disabled:  # Perhaps since the settings have arrived with the context.
            return NULL_RUN
        if captured is None:
            self._tokens.append(_context.enter(None))
            return NULL_RUN
        # A scope of its own, as the same context may be entered in many places at once.
        outer = _context.current()
        scope = Scope(captured.run, outer, self, captured.step)
        if outer is not None and outer.tags and outer.run is captured.run:
            scope = TaskScope(captured.run, outer, self, captured.step, outer.tags)  # It is about the same task.
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
            with contextlib.suppress(ValueError):  # Left in another context than it was entered in.
                token.var.reset(token)


class InScope:
    """A function to be called in a captured context, in another process perhaps; pickles where the function does.

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
    """The run that whoever started this program handed over in `TRACKDSL_CONTEXT`, if any."""
    text = os.environ.get(VARIABLE)
    if not text or _target.overridden():  # A test of a program's wants to see what that does by itself.
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
    """Do as the program was told to that started this one, from its first run on."""
    with contextlib.suppress(Exception):  # The first run tells of it.
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
    """What a pickled context becomes: nothing where another version wrote it, as what came with it must go on."""
    try:
        return Context.from_text(text)
    except ContextError as error:
        report("context", f"trackdsl cannot read a context, so runs begin as roots: {error}")
        return Context(None)


#: What was made last: thousands of tasks are handed out from one scope.
_last: list[tuple[tuple[Run, int, Mapping[str, Any], Writer | None], str]] = []
#: The runs of this process that are known elsewhere, in case one of their contexts comes back.
_sent: WeakValueDictionary[str, Run] = WeakValueDictionary()


def _text_of(scope: Scope) -> str:
    key = (scope.run, scope.step, settings.configured(), scope.run.target.writer)
    for known, text in _last:
        if known == key:
            return text
    _sent[scope.run.key.hex()] = scope.run
    text = encode(_carry(scope))
    _last[:] = [(key, text)]
    return text


def _carry(scope: Scope) -> Carried:
    run = scope.run
    target = run.target
    path = run.path if len(run.path) <= _MAX_PATH else f"…{run.path[-_MAX_PATH:]}"
    if target.writer is not None:
        spool, journal = str(target.writer.directory.parent.parent), target.writer.directory.name
    else:
        spool, journal = _spool_of(target), ""
    return Carried(
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
        within=within(),
        mlflow=adoption_of(run),
        settings=Chosen(**{name: settings.explicit(name) for name in Chosen.__struct_fields__}),
    )


def _spool_of(target: _target.Target) -> str:
    """Where a target's journal would be made; empty for the usual place, which the other process knows."""
    named = target.spool or settings.spool()
    if named is None:
        return ""
    try:
        return str(locate(named))
    except OSError:  # It cannot be used, and this process will find another.
        return ""


#: Handles on runs of other processes, one each, so that indices of children count on.
_foreign: dict[str, Run] = {}


def _reset() -> None:
    _last.clear()
    _sent.clear()
    _foreign.clear()


runtime.register("contexts that were sent", Phase.RUNS, reset=_reset)


def _is_of_others(run: Run) -> bool:
    """Whether a run that others know by another id was taken up before this process was forked.

    Then this process has to say in its own journal which run it is.
    """
    return adoption_of(run) is not None and not begins_with(run.key, prefix())


def _fits(run: Run, carried: Carried) -> bool:
    """Whether the handle that was made of a context leads to where runs go now."""
    if _target.overridden():
        return run.target is _target.target_for()
    # Otherwise it was made while a test has captured runs.
    return not _is_of_others(run) and (run.target.delivers or carried.uri in _target.UNDELIVERED)


def _foreign_run(carried: Carried) -> Run:
    run = _sent.get(carried.run) or _foreign.get(carried.run)
    if run is None or not _fits(run, carried):
        _foreign.pop(carried.run, None)
        if carried.uri == _target.CAPTURED:
            if not is_spool(Path(carried.spool)):
                raise PermissionError(
                    errno.EPERM, "the folder of a test's runs is no spool of this user's", carried.spool
                )
            target = _target.Target(carried.uri, carried.cwd, spool=Path(carried.spool), deliver=False)
        else:
            take_settings(carried)
            target = _target.target_for(uri_of(carried), carried.cwd)
        started_by = prefix_of(bytes.fromhex(carried.run)).hex()
        work_within((*carried.within, started_by), (started_by,) if is_beside(carried) else ())
        if carried.mlflow is not None:
            return adopt_run(*carried.mlflow, target)
        if len(_foreign) >= _MAX_FOREIGN:
            _foreign.clear()
        run = Run(bytes.fromhex(carried.run), carried.name, None, carried.path, carried.experiment, target)
        run = _foreign.setdefault(carried.run, run)  # Another thread may have made it meanwhile.
    return run

"""Context propagation: the run that is current here, carried to other threads, processes and machines."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Optional
from urllib.parse import urlsplit, urlunsplit

import msgspec

from trackdsl import _context, _target, settings
from trackdsl._context import Scope
from trackdsl._ids import begins_with, prefix
from trackdsl._lifecycle import adopt_run
from trackdsl._process import read_origin
from trackdsl._run import NULL_RUN, AdoptedRun, Run
from trackdsl._secrets import mask_text
from trackdsl._state import state
from trackdsl.distributed._patching import closed, opened
from trackdsl.errors import ContextError, OptionError, TrackdslError, report, told
from trackdsl.journal._spool import default_path, journals
from trackdsl.journal._spool import find as find_spool

#: The variable of the environment by which a program hands its current run to programs that it starts.
VARIABLE = "TRACKDSL_CONTEXT"

#: What `configure` set and must hold for the other process too; where runs go is told by the run itself.
_SETTINGS = ("mode", "strict", "delivery", "secret_names", "public_names")
_MAX_FOREIGN = 1000


class Carried(msgspec.Struct, frozen=True, omit_defaults=True):
    """The wire form of a context; all of it may be seen by others on the machine, so it holds no credentials."""

    run: str
    name: str
    path: str
    uri: str
    cwd: str
    host: str
    spool: str
    experiment: Optional[str] = None  # noqa: UP045 - msgspec reads it at run time
    step: int = 0
    mlflow: Optional[tuple[str, str]] = None  # noqa: UP045
    settings: dict[str, Any] = {}


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
        if not text:
            return cls(None)
        try:
            carried = msgspec.json.decode(text, type=Carried)
            if len(bytes.fromhex(carried.run)) != 16:
                raise ValueError("the run's id is none")
        except (msgspec.MsgspecError, ValueError, TypeError) as error:
            raise ContextError(
                f"this is no context of trackdsl's: {told(error)}", text=mask_text(str(text))[:200]
            ) from None
        return cls(None, carried)

    def to_text(self) -> str:
        """The context as JSON, for a message queue or the environment: `TRACKDSL_CONTEXT` is read by itself."""
        if self._scope is not None:
            return msgspec.json.encode(_carry(self._scope)).decode()
        return "" if self._carried is None else msgspec.json.encode(self._carried).decode()

    def scope(self) -> Scope | None:
        """The scope to be entered; None where there is none."""
        if self._scope is None and self._carried is not None:
            carried = self._carried
            self._scope = Scope(_foreign_run(carried), None, self, carried.step)
        return self._scope

    def __bool__(self) -> bool:
        return self._scope is not None or self._carried is not None

    def __reduce__(self) -> tuple[Any, ...]:
        return Context.from_text, (self.to_text(),)

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
        >>> with attach(capture()) as run:
        ...     run.log_metric("rows", 10)
    """

    __slots__ = ("_before", "_context", "_scope")

    def __init__(self, context: Context | str) -> None:
        if isinstance(context, str):
            context = Context.from_text(context)
        if not isinstance(context, Context):
            raise OptionError(f"attach() takes what capture() gave, not {type(context).__name__}.", option="context")
        self._context = context
        self._scope: Scope | None = None
        self._before: Scope | None = None

    def __enter__(self) -> Run:
        if state.disabled:
            return NULL_RUN
        self._before = _context.current()
        self._scope = scope = _resolved(self._context)
        if scope is not None:
            opened(self)
        _context.enter(scope)
        return NULL_RUN if scope is None else scope.run

    def __exit__(self, *_: object) -> None:
        scope = self._scope
        if scope is not None:
            closed(self)
        inside = _context.current()
        while inside is not None and inside is not scope:
            inside = inside.outer
        # Left in another context than it was entered in: that one has its own.
        if inside is scope:
            _context.enter(self._before)


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

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        with attach(self._context):
            return self._fn(*args, **kwargs)

    def __reduce__(self) -> tuple[Any, ...]:
        return InScope, (self._fn, self._context)


def inherited() -> Run | None:
    """The run that whoever started this program handed over in `TRACKDSL_CONTEXT`, if any."""
    text = os.environ.get(VARIABLE)
    if not text:
        return None
    try:
        scope = _from_environment(text).scope()
    except TrackdslError as error:
        report("context", f"trackdsl cannot read {VARIABLE}: {error} Runs begin as roots.")
        return None
    return None if scope is None else scope.run


@functools.lru_cache(maxsize=8)
def _from_environment(text: str) -> Context:
    return Context.from_text(text)


def _resolved(context: Context) -> Scope | None:
    try:
        return context.scope()
    except TrackdslError:
        raise
    except Exception as error:
        report("context", f"trackdsl cannot enter {context!r}, so runs begin as roots: {told(error)}")
        return None


def _carry(scope: Scope) -> Carried:
    run, configured = scope.run, settings.configured()
    target = run._target
    chosen = {name: value for name in _SETTINGS if (value := getattr(configured, name)) is not None}
    return Carried(
        run=run.id,
        name=run.name,
        path=run.path,
        experiment=run.experiment,
        uri=_public(target.uri),
        cwd=target.cwd,
        host=os.uname().nodename,
        spool=str(target.writer.directory.parent.parent) if target.writer is not None else "",
        step=scope.step,
        mlflow=(run.mlflow_run_id, run.mlflow_experiment_id) if isinstance(run, AdoptedRun) else None,
        settings=chosen,
    )


#: Handles on runs of other processes, one each, so that indices of children count on.
_foreign: dict[str, Run] = {}


def _foreign_run(carried: Carried) -> Run:
    run = _foreign.get(carried.run)
    if run is None:
        if carried.uri == _target.CAPTURED:
            target = _target.Target(carried.uri, carried.cwd, spool=Path(carried.spool), deliver=False)
        else:
            _take_settings(carried)
            target = _target.target_for(_with_credentials(carried), carried.cwd)
        if carried.mlflow is not None:
            return adopt_run(*carried.mlflow, target)
        if len(_foreign) >= _MAX_FOREIGN:
            _foreign.clear()
        id_ = bytes.fromhex(carried.run)
        run = _foreign[carried.run] = Run(id_, carried.name, None, carried.path, carried.experiment, target)
    return run


def _take_settings(carried: Carried) -> None:
    """Do as the other process was told to, where nobody has told this one anything."""
    if begins_with(bytes.fromhex(carried.run), prefix()):
        return
    chosen = dict(carried.settings)
    if _is_here(carried) and os.access(carried.spool, os.W_OK) and carried.spool != str(default_path()):
        chosen["spool"] = carried.spool
    configured = settings.configured()
    for name in list(chosen):
        if getattr(configured, name, None) is not None or os.environ.get(f"TRACKDSL_{name.upper()}"):
            del chosen[name]
    if chosen:
        settings.update(**chosen)
        if "spool" in chosen:
            _target.start_anew()
        state.refresh()


def _is_here(carried: Carried) -> bool:
    return carried.host == os.uname().nodename


def _with_credentials(carried: Carried) -> str:
    """The tracking URI, with the credentials that it had: from what this process, or this machine, knows of it."""
    known = [settings.tracking_uri(), *(target.uri for target in _target.targets())]
    for uri in known:
        if _public(uri) == carried.uri:
            return uri
    if _is_here(carried):
        for directory in journals(find_spool()):
            origin = read_origin(directory)
            if origin is not None and _public(origin.uri) == carried.uri:
                return origin.uri
    return carried.uri


def _public(uri: str) -> str:
    """A tracking URI without credentials."""
    try:
        parts = urlsplit(uri)
        if "@" in parts.netloc:
            host = parts.netloc.rpartition("@")[2]
            # The user of a database is part of its address; that of a server is half of a secret, or all of it.
            user = parts.netloc.partition(":")[0] if parts.password and not parts.scheme.startswith("http") else ""
            uri = urlunsplit(parts._replace(netloc=f"{user}@{host}" if user else host))
    except ValueError:
        pass
    return mask_text(uri)

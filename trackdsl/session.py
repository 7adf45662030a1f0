"""`start_logging` and `stop_logging`: a run that begins at one call and ends at another.

A session is current where it was started, and in what is started from there, as every scope. Where nothing is current,
such as in threads that were there before it, it is too, as long as it is the only one that is open.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import sys
import threading
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

from trackdsl import _context, _roots, settings
from trackdsl._call import close_scope, open_scope
from trackdsl._configure import configure
from trackdsl._context import Scope
from trackdsl._options import Options
from trackdsl._quiet import quiet
from trackdsl._record import fault
from trackdsl._run import NULL_RUN, Run
from trackdsl._secrets import mask_text
from trackdsl._state import state
from trackdsl._suggest import suggestion_for
from trackdsl._target import Target, overridden, target_for
from trackdsl.errors import OptionError, TrackdslError, TrackingServerUnreachable, as_mlflows, logger

if TYPE_CHECKING:
    from collections.abc import Callable

_KEYS = ("tracking_uri", "experiment_name", "run_name", "tags")
_OFFLINE = ("raise", "spool")
#: What settings say to the whole program, and not of a run.
_PROGRAM = tuple(name for name in settings.NAMES if name not in ("tracking_uri", "experiment_name"))


class SessionSettings(Protocol):
    """What `start_logging(settings=)` takes: a `trackdsl.Settings`, or a `TraceletSettings`."""

    def session(self) -> Mapping[str, Any]:
        """Any of `project`, `backend`, `tracking_uri`, `experiment_name`, and settings for the whole program."""


@dataclass
class _Choice:
    """Where a session goes and what it is called, from all that was given.

    Attributes:
        run_name: the name of its run.
        experiment: the MLflow experiment; None where nobody says.
        tracking_uri: None where nobody says.
        tags: of the run.
    """

    run_name: str
    experiment: str | None
    tracking_uri: str | None
    tags: dict[str, Any] = field(default_factory=dict)


class _Session:
    """An open session; the owner of its scope.

    Attributes:
        name: of its run.
        scope: the scope it opened.
        ended: it is open no more.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.scope: Scope | None = None
        self.ended = False
        self._pid = os.getpid()
        self._place = _place()
        self._handled = id(sys.exc_info()[1])
        self._last = id(_last_uncaught())

    def is_of_here(self) -> bool:
        """Whether it was started in this process, thread and task."""
        return self._pid == os.getpid() and self._place == _place()

    def what_ends_it(self) -> BaseException | None:
        """The exception on its way where `stop_logging` is called in a `finally`, or that has ended the program."""
        error = sys.exc_info()[1]
        if error is not None and id(error) != self._handled:
            return error
        if threading.main_thread().is_alive():
            return None
        error = _last_uncaught()
        return error if id(error) != self._last else None

    def end(self, error: BaseException | None) -> None:
        """End its run, and take it out of the scopes, also from within others."""
        self.ended = True
        with contextlib.suppress(ValueError):
            _open.remove(self)
        if self.scope is not None:
            _context.take_out(self.scope)
            close_scope(self.scope, error)


#: The sessions of this process that are open, the latest last.
_open: list[_Session] = []


def start_logging(
    exp_name: str,
    project: str | None = None,
    backend: str | Iterable[str] = "mlflow",
    config: Mapping[str, Any] | None = None,
    settings: SessionSettings | None = None,
    *,
    offline: Literal["raise", "spool"] = "raise",
) -> Run:
    """Begin a run that goes on until `stop_logging()`, for scripts that prefer calls to blocks.

    What is recorded meanwhile lands on it: by trackdsl's words, stages (as its children), plain MLflow and autologging.
    A session that this thread has still open is ended first; inside a stage the run is a child of that. If the program
    crashes it is `FAILED`, if it is killed `KILLED`; at the end of the program it ends by itself.

    Args:
        exp_name: the name of the run.
        project: what it belongs to: the tag `project`, and the MLflow experiment where nobody names one.
        backend: `"mlflow"`; there is no other.
        config: any of `tracking_uri`, `experiment_name` (the MLflow experiment, made if need be), `run_name` (instead
            of `exp_name`) and `tags`. It counts before everything else.
        settings: a `trackdsl.Settings`, or `TraceletSettings` of `trackdsl.compat.tracelet`. What they say besides
            where the run goes, such as `mode`, is for the rest of the program, as with `configure`.
        offline: what to do where the tracking server cannot be reached: `"raise"`, or `"spool"` to record now and
            deliver once it is there.

    Returns:
        the run.

    Raises:
        OptionError: a key of `config`, a backend or an option that does not exist.
        TrackingServerUnreachable: nobody answers at the tracking URI within five seconds; nothing is left behind.
        TrackingServerError: what answers there refuses, or is no MLflow server.
        ExperimentDeleted: the MLflow experiment is deleted.
        SettingsError: a setting has a value that it cannot have.

        Where the program has imported MLflow, the middle three are `mlflow.exceptions.MlflowException`s too.

    Example:
        >>> run = start_logging("resnet-baseline", project="vision", config={"tags": {"team": "cv"}})  # doctest: +SKIP
        >>> run.log_metric("loss", 0.25, iteration=3)  # doctest: +SKIP
        >>> stop_logging()  # doctest: +SKIP
    """
    if offline not in _OFFLINE:
        raise OptionError(f"start_logging(offline=...) takes 'raise' or 'spool', not {offline!r}.", option="offline")
    told = _told_by(settings)
    choice = _choice(exp_name, project, backend, _checked(config), told)
    with _configured({name: value for name, value in told.items() if name in _PROGRAM}):
        if quiet.on and quiet.here():
            return NULL_RUN
        options = Options.checked(
            "experiment",
            choice.experiment,
            {"run_name": choice.run_name, "tags": choice.tags, "tracking_uri": choice.tracking_uri},
        )
        previous = _previous()
        _check(choice, previous, offline)
        if previous is not None:
            _end_previous(previous, choice.run_name)
        return _begin(options)


def stop_logging() -> None:
    """End the session that was started last here; where there is none, nothing happens.

    In a `finally`, or in an `atexit` function of a program that crashes, the run is `FAILED`.

    Example:
        >>> stop_logging()
    """
    session = _current()
    if session is not None:
        session.end(session.what_ends_it())


def _begin(options: Options) -> Run:
    session = _Session(mask_text(options.run_name or "session"))
    experiment = None if options.name is None else mask_text(options.name)
    try:
        session.scope = open_scope(options, session.name, experiment, {}, options.static_tags(), None, session)
    except TrackdslError:
        raise
    except Exception as error:  # A fault in tracking is no reason not to go on.
        fault("starting a session", error)
        return NULL_RUN
    _open.append(session)
    return session.scope.run


@contextlib.contextmanager
def _configured(chosen: Mapping[str, Any]) -> Iterator[None]:
    """Configure the program, unless what follows fails."""
    before = settings.configured()
    if chosen:
        configure(**chosen)
    try:
        yield
    except BaseException:
        if chosen:
            settings.restore(before)
            state.refresh()
        raise


def _choice(
    exp_name: str,
    project: str | None,
    backend: str | Iterable[str],
    config: Mapping[str, Any],
    told: Mapping[str, Any],
) -> _Choice:
    _check_backend(told.get("backend") or backend if backend == "mlflow" else backend)
    project = project or told.get("project")
    for option, value in (("exp_name", exp_name), ("project", project)):
        if value is not None and not isinstance(value, str):
            raise OptionError(f"start_logging({option}=...) takes text, not {value!r}.", option=option)
    named = config.get("experiment_name") or told.get("experiment_name")
    tags = dict(config.get("tags") or {})
    if project is not None:
        tags.setdefault("project", project)
    return _Choice(
        run_name=config.get("run_name") or exp_name or "session",
        experiment=named or (project if _nobody_says_experiment() else None),
        tracking_uri=config.get("tracking_uri") or told.get("tracking_uri"),
        tags=tags,
    )


def _told_by(chosen: SessionSettings | None) -> Mapping[str, Any]:
    if chosen is None:
        return {}
    session: Callable[[], Mapping[str, Any]] | None = getattr(chosen, "session", None)
    if session is None:
        raise OptionError(
            f"start_logging(settings=...) takes a trackdsl.Settings or a TraceletSettings, not {chosen!r}; a dict is "
            "for config=...",
            option="settings",
        )
    return session()


def _checked(config: Mapping[str, Any] | None) -> Mapping[str, Any]:
    if config is None:
        return {}
    if not isinstance(config, Mapping):
        raise OptionError(f"start_logging(config=...) takes a dict, not {config!r}.", option="config")
    for key, value in config.items():
        if key not in _KEYS:
            hint = suggestion_for(str(key), _KEYS)
            raise OptionError(
                f"start_logging(config=...) has no key {key!r}{hint.text} Known: {', '.join(_KEYS)}.",
                option=str(key),
                suggestion=hint.name,
            )
        kind = Mapping if key == "tags" else str
        if value is not None and not isinstance(value, kind):
            raise OptionError(f"config[{key!r}] must be a {kind.__name__.lower()}, not {value!r}.", option=key)
    return config


def _check_backend(backend: str | Iterable[str]) -> None:
    named = [backend] if isinstance(backend, str) else list(backend)
    for name in named:
        if name != "mlflow":
            raise OptionError(
                f"start_logging(backend={name!r}): trackdsl records to MLflow alone. Write backend='mlflow', or leave "
                "it out.",
                option="backend",
            )


def _nobody_says_experiment() -> bool:
    return settings.look_up("experiment_name").source == "default" and settings.experiment_id() is None


def _check(choice: _Choice, previous: _Session | None, offline: str) -> None:
    """Ask the store, where a root run is to go to one now."""
    if overridden() or settings.mode() != "online":
        return
    target, experiment = _destination(choice, previous)
    if target is None:
        return
    from trackdsl._reachable import check  # It brings what programs without sessions need not wait for.

    try:
        check(target.uri, experiment)
    except TrackingServerUnreachable as error:
        if offline == "raise":
            raise as_mlflows(error) from None
        logger.warning("%s The run %r is recorded, and delivered once it answers.", error.reason, choice.run_name)
    except TrackdslError as error:
        raise as_mlflows(error) from None


def _destination(choice: _Choice, previous: _Session | None) -> tuple[Target | None, str | None]:
    """The target and the experiment of a root run; no target where it is to be a child."""
    outer = _context.current()
    while outer is not None and previous is not None and outer.owner is previous:
        outer = outer.outer
    if outer is None and previous is not None:
        return target_for(choice.tracking_uri), choice.experiment or settings.experiment_name()
    parent, target, experiment = _roots.place(outer, choice.tracking_uri, choice.experiment)
    return (None if parent is not None else target), experiment


def _current() -> _Session | None:
    """The session that is meant where no other word is said."""
    scope = _context.current()
    while scope is not None:
        if isinstance(scope.owner, _Session) and not scope.owner.ended:
            return scope.owner
        scope = scope.outer
    return _open[-1] if len(_open) == 1 or (_open and not threading.main_thread().is_alive()) else None


def _previous() -> _Session | None:
    """The session that the next one takes the place of."""
    scope = _context.current()
    before = scope.owner if scope is not None else _open[0] if len(_open) == 1 else None
    return before if isinstance(before, _Session) and not before.ended and before.is_of_here() else None


def _end_previous(previous: _Session, name: str) -> None:
    logger.warning(
        "start_logging(%r) ends the run %r, which was still open: call stop_logging() first, or put one inside the "
        "other by `with stage(...)`.",
        mask_text(name),
        previous.name,
    )
    previous.end(None)


def _place() -> tuple[int, int]:
    """The thread, and the task of asyncio where there is one."""
    asyncio = sys.modules.get("asyncio")
    task = None
    if asyncio is not None:
        with contextlib.suppress(RuntimeError):
            task = asyncio.current_task()
    return threading.get_ident(), id(task)


def _last_uncaught() -> BaseException | None:
    return getattr(sys, "last_exc", None) or getattr(sys, "last_value", None)


def _scope_of_only() -> Scope | None:
    return _open[0].scope if len(_open) == 1 else None


def _at_exit() -> None:
    for session in reversed(_open[:]):
        session.end(session.what_ends_it())


def _after_fork() -> None:
    """What the parent has started it ends itself."""
    _open.clear()


_roots.scope_of_session = _scope_of_only
# After that of `_target`, so it runs before it: the end of a run is to be delivered too.
atexit.register(_at_exit)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)

"""`start_logging` and `stop_logging`: a run that begins at one call and ends at another.

A session is current in the thread or task that started it, and in everything started from there, like any scope. In
other threads, such as those that ran before the session, the session of the main thread is current as long as no other
session is open.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal

from trackdsl._api.configure import configure
from trackdsl._api.open_sessions import Session, begin, leave_ended, session_to_end, session_to_replace
from trackdsl._api.session_options import KEYS, Choice, SessionSettings, checked, choose, given_by
from trackdsl._config import resolve as settings
from trackdsl._config.state import state
from trackdsl._core import context as _context
from trackdsl._core.missing_call import explained, explained_with_config
from trackdsl._core.redaction import mask_name
from trackdsl._core.suppression import suppression
from trackdsl._decorate import parentage as _parentage
from trackdsl._decorate.options import Options
from trackdsl._runs.exceptions import FINISHED, status_of
from trackdsl._runs.run import NULL_RUN, Run, checked_status
from trackdsl.errors import (
    OptionError,
    TrackdslError,
    TrackingServerError,
    TrackingServerUnreachable,
    as_mlflows,
    logger,
)
from trackdsl.journal._store_target import Target
from trackdsl.journal._target import overridden, target_for

_OFFLINE = ("raise", "spool")
#: The settings that apply to the whole program, rather than to one run.
_PROGRAM = tuple(name for name in settings.NAMES if name not in ("tracking_uri", "experiment_name"))


@explained_with_config(KEYS)
def start_logging(
    exp_name: str,
    project: str | None = None,
    backend: str | Iterable[str] = "mlflow",
    config: Mapping[str, Any] | None = None,
    settings: SessionSettings | None = None,
    *,
    offline: Literal["raise", "spool"] = "raise",
) -> Run:
    """Start a run that lasts until `stop_logging()`, for scripts that prefer calls to blocks.

    Everything recorded in between belongs to the run: values logged with trackdsl, stages (as child runs), plain MLflow
    and autologging. If this thread has an open session, that session ends first. Inside a stage the run is a child of
    the stage's run. A run that is open when the program ends is ended with it: as `FINISHED`, as `FAILED` if the
    program crashes, or as `KILLED` if it is killed.

    Args:
        exp_name: the name of the run.
        project: the run's project: the tag `project`, and the MLflow experiment if nothing else names one.
        backend: `"mlflow"`, the only one.
        config: any of `tracking_uri`, `experiment_name` (the MLflow experiment, created if it does not exist),
            `run_name` (instead of `exp_name`), `tags`, and `run_id` (a run to resume, instead of a new one). These
            values take precedence over all others.
        settings: a `trackdsl.Settings`, or `TraceletSettings` of `trackdsl.compat.tracelet`. Settings of the whole
            program, such as `mode`, stay in force after the run, as with `configure`.
        offline: what to do if the tracking server cannot be reached, is overloaded or fails (429, 5xx), or refuses the
            credentials (401, 403): `"raise"`, or `"spool"` to record now and deliver later.

    Returns:
        the run.

    Raises:
        OptionError: a key of `config`, the backend or an option does not exist.
        TrackingServerUnreachable: no server answers at the tracking URI within five seconds. No run has begun then.
        TrackingServerError: the server refuses the request, or is not an MLflow server.
        ExperimentDeleted: the MLflow experiment is deleted.
        RunNotFound: the run to resume is deleted, or does not exist.
        SettingsError: a setting cannot have the value that it has.

    If the program has imported MLflow, errors of the tracking server, the experiment and the run are also
    `mlflow.exceptions.MlflowException`s.

    Example:
        >>> run = start_logging("resnet-baseline", project="vision", config={"tags": {"team": "cv"}})  # doctest: +SKIP
        >>> run.log_metric("loss", 0.25, iteration=3)  # doctest: +SKIP
        >>> stop_logging()  # doctest: +SKIP
    """
    if offline not in _OFFLINE:
        raise OptionError(f"start_logging(offline=...) takes 'raise' or 'spool', not {offline!r}.", option="offline")
    given = given_by(settings)
    choice = choose(exp_name, project, backend, checked(config), given)
    with _configured({name: value for name, value in given.items() if name in _PROGRAM}):
        if suppression.on and suppression.here():
            return NULL_RUN
        options = Options.checked(
            "experiment",
            choice.experiment,
            {
                # A resumed run keeps its name, unless `config` has a `run_name`.
                "run_name": None if choice.run_id is not None and not choice.renames else choice.run_name,
                "tags": choice.tags,
                "tracking_uri": choice.tracking_uri,
                "run_id": choice.run_id,
            },
        )
        leave_ended()
        previous = session_to_replace()
        _check(choice, previous, offline)
        if previous is not None:
            _end_previous(previous, choice.run_name)
        return _begin(options, choice.run_name)


@explained
def stop_logging(status: str | None = None, reason: str | None = None) -> None:
    """End the run of the last `start_logging`. Without such a run, nothing happens.

    The run is `FAILED` if this is called in a `finally` block because of an exception, or by an `atexit` function of a
    program that crashed.

    Args:
        status: the status of the run, whatever happened: `FINISHED`, `FAILED` or `KILLED`.
        reason: why, in a sentence: the tag `trackdsl.ended`.

    Raises:
        OptionError: the status does not exist.

    Example:
        >>> stop_logging(status="FAILED", reason="the loss diverged")
    """
    status = None if status is None else checked_status(status, "stop_logging(status=...)")
    session = session_to_end()
    if session is not None:
        error = session.ending_exception()
        if reason is not None and status is None:
            status = FINISHED if error is None else status_of(error)
        session.end(error, status, reason)
    leave_ended()


def _begin(options: Options, name: str) -> Run:
    session = begin(options, Session(name))
    if session is None or session.scope is None:
        return NULL_RUN
    run: Run = session.scope.run
    return run


@contextlib.contextmanager
def _configured(chosen: Mapping[str, Any]) -> Iterator[None]:
    """Configure the program. If the block fails, its settings are put back."""
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


def _check(choice: Choice, previous: Session | None, offline: str) -> None:
    """Check that the store can take the run, if the run is a root and is delivered now."""
    if overridden() or settings.mode() != "online":
        return
    target, experiment = _destination(choice, previous)
    if target is None or target.discards:
        return
    from trackdsl._runs.resumable import check_run
    from trackdsl._server.reachable import check  # These take long to import, and only sessions need them.

    try:
        check(target.uri, experiment)
        if choice.run_id is not None:
            check_run(target.uri, choice.run_id if isinstance(choice.run_id, str) else choice.run_id.id)
    except TrackingServerError as error:
        # The user can correct credentials later, so these runs are worth keeping. Other errors stay.
        if offline == "raise" or not (isinstance(error, TrackingServerUnreachable) or error.status in (401, 403)):
            raise as_mlflows(error) from None
        reason = error.reason if isinstance(error, TrackingServerUnreachable) else str(error)
        logger.warning("%s The run %r is recorded now, and delivered once the server answers.", reason, choice.run_name)
    except TrackdslError as error:
        raise as_mlflows(error) from None


def _destination(choice: Choice, previous: Session | None) -> tuple[Target | None, str | None]:
    """The target and the experiment of a root run; no target if the run will be a child."""
    outer = _context.current()
    while outer is not None and previous is not None and outer.owner is previous:
        outer = outer.outer
    if outer is None and previous is not None:
        return target_for(choice.tracking_uri), choice.experiment or settings.experiment_name()
    parent, target, experiment = _parentage.destination(outer, choice.tracking_uri, choice.experiment)
    return (None if parent is not None else target), experiment


def _end_previous(previous: Session, name: str) -> None:
    logger.warning(
        "start_logging(%r) ends the run %r, which was still open: call stop_logging() first, or nest the runs "
        "with `with stage(...)`.",
        mask_name(name),
        previous.name,
    )
    previous.end(None)

"""Runs begin and end: one event each."""

from __future__ import annotations

import time
from collections.abc import Callable

import msgspec

from trackdsl._config import resolve as settings
from trackdsl._core import context as _context
from trackdsl._core import runtime
from trackdsl._core.events import EXPERIMENT_ID, Adopt, Close, Failure, Open, Rank, Scalar
from trackdsl._core.ids import begins_with, new_id, prefix
from trackdsl._core.runtime import Phase
from trackdsl._recording import artifacts as _artifacts
from trackdsl._recording.emit import LARGE, cut_texts, encode_safely
from trackdsl._runs import exceptions as _failure
from trackdsl._runs import run as _run
from trackdsl._runs.run import AdoptedRun, ContinuedRun, Run, adoption_of
from trackdsl._runs.show_url import show_url
from trackdsl.errors import format_error, logger, report, reraise_from_signal
from trackdsl.journal._target import WATCH, Target

_now = time.time_ns
#: The root run that this program has begun last.
newest_root: Run | None = None
#: A run that has ended may be kept by `last` and `fn.last_run`, but not what it counted of so many names.
_MOST_NAMES_KEPT = 1000
#: In bytes: a longer beginning of a run is not kept in memory when the run has ended.
_REPEATED = 1 << 14


def open_run(
    *,
    name: str,
    word: str,
    parent: Run | None,
    target: Target,
    experiment: str | None,
    params: dict[str, Scalar],
    tags: dict[str, str],
    site: tuple[str, str, str] | None,
    began: int | None = None,
    system_metrics: float = 0.0,
    rank: Rank | None = None,
) -> Run:
    """Begin a run: one event, and the handle. It may have begun earlier, at a time in nanoseconds.

    The parent of a `rank` is the run that the ranks of its launch have in common.
    """
    index = 0 if parent is None else parent.next_index(name)
    path = name if parent is None else f"{parent.path}/{name}"
    run = Run(new_id(), name, parent, path, experiment, target)
    now = _now()
    run._began = now if began is None else began
    parent_id = None if parent is None else parent._id
    if experiment is None and (parent is None or rank is not None):
        tags = {**tags, EXPERIMENT_ID: settings.experiment_id() or ""}
    event = Open(run._id, parent_id, experiment, name, word, path, index, run._began, params, tags, site, rank)
    _append_begin(run, event, now)
    if parent is None or rank is not None:
        _note_root(run)
    if system_metrics:
        _have_sampled(run, system_metrics)
    return run


def _note_root(run: Run) -> None:
    global newest_root
    newest_root = run
    show_url(run)


def go_on_run(
    goes_on: str | Run,
    *,
    name: str,
    word: str,
    parent: Run | None,
    target: Target,
    experiment: str | None,
    params: dict[str, Scalar],
    tags: dict[str, str],
    site: tuple[str, str, str] | None,
    system_metrics: float = 0.0,
) -> ContinuedRun:
    """Have a run go on that has ended, or whose program died: one event, and the handle."""
    path = name if parent is None else f"{parent.path}/{name}"
    run = ContinuedRun(new_id(), name, parent, path, experiment, target)
    if isinstance(goes_on, Run):
        run.name, run.path, run.experiment = goes_on.name, goes_on.path, goes_on.experiment
        run._children = goes_on._children
        goes_on = (adoption_of(goes_on) or (goes_on.id, ""))[0]
    run.goes_on = goes_on
    now = run._began = _now()
    named = experiment or run.experiment
    event = Open(run._id, None, named, run.name, word, run.path, 0, now, params, tags, site, goes_on=goes_on)
    _append_begin(run, event, now)
    if parent is None:
        _note_root(run)
    going_on[run._id] = goes_on
    before_end[run._id] = [lambda: going_on.pop(run._id, None)]
    if system_metrics:
        _have_sampled(run, system_metrics)
    return run


def _append_begin(run: Run, event: Open, now: int) -> None:
    params, tags, target = event.params, event.tags, run._target
    payload = encode_safely(event)
    large = len(payload) > LARGE
    if large:
        # Without this event everything else of the run would belong to nobody.
        payload = encode_safely(msgspec.structs.replace(event, params=cut_texts(params), tags=cut_texts(tags)))
    target.open_runs[run._id] = payload
    target.append(payload, run, True)
    if large:
        _artifacts.keep_long(run, {**params, **tags})
    if not 0 <= target.watch_at - now <= 2 * WATCH:  # Past it, or the clock was set back.
        target.watch(now)


def _have_sampled(run: Run, interval: float) -> None:
    """Tell the delivery process, beside the journal: it samples before it can deliver, and while it cannot."""
    id_ = run._id.hex()
    if run._target.note("sampled", f"o {id_} {interval}\n"):
        before_end.setdefault(run._id, []).append(lambda: run._target.note("sampled", f"c {id_}\n"))


#: Handles on runs that plain MLflow opened, by its ids; one handle each, so that indices count on.
_adopted: dict[str, AdoptedRun] = {}
_MAX_ADOPTED = 1000


def adopt_run(mlflow_run_id: str, experiment_id: str, target: Target) -> AdoptedRun:
    """A handle on a run that plain MLflow opened; trackdsl writes to it and never ends it."""
    run = _adopted.get(mlflow_run_id)
    if run is None or run._target is not target:
        run = AdoptedRun(new_id(), "mlflow", None, "mlflow", None, target)
        run.mlflow_run_id, run.mlflow_experiment_id = mlflow_run_id, experiment_id
        payload = target.open_runs[run._id] = _adoption(run)
        target.append(payload, run, True)
        if len(_adopted) >= _MAX_ADOPTED:
            for other in _adopted.values():
                other._target.open_runs.pop(other._id, None)
            _adopted.clear()
        _adopted[mlflow_run_id] = run
    return run


def is_named(mlflow_run_id: str) -> bool:
    """Whether this program records to a run that it knows by MLflow's id: plain MLflow's, or one that goes on."""
    return mlflow_run_id in _adopted or mlflow_run_id in list(going_on.values())


def _adoption(run: Run) -> bytes:
    return encode_safely(Adopt(run._id, *(adoption_of(run) or ("", ""))))


def _after_fork() -> None:
    """A child tells its own journal: nobody could find these by tag once the parent's is gone."""
    _adopted.clear()
    going_on.clear()
    _said.clear()
    scope, inherited = _context.current(), set()
    while scope is not None:
        if adoption_of(scope.run) is not None:
            inherited.add(scope.run)
        scope = scope.outer
    for run in inherited:
        run._target.open_runs[run._id] = _adoption(run)


def _reset() -> None:
    global newest_root
    newest_root = None
    for known in (_adopted, going_on, before_end, _said, _unended):
        known.clear()


runtime.register("runs", Phase.RUNS, after_fork=_after_fork, reset=_reset)


#: The runs that go on in this process, and how each was named.
going_on: dict[bytes, str] = {}
#: What is to be done before a run ends, by the run's id: a `watch` writes what it still holds, for example.
before_end: dict[bytes, list[Callable[[], object]]] = {}
#: Runs whose end could not be told, because the stack was full: with status and time.
_unended: list[tuple[Run, str, int]] = []


#: How runs that are open are to end where no exception ends them, by their ids; None for those that have ended.
_said: dict[bytes, str | None] = {}


def say_end(run: Run, status: str) -> None:
    """Have a run end with a status, where it ends by itself and without an exception."""
    known = status in _failure.STATUSES and run._id in run._target.open_runs
    if known and _said.get(run._id, "") is not None:
        _said[run._id] = status


def _end_early(run: Run, status: str) -> None:
    """See `Run.end`."""
    if isinstance(run, AdoptedRun) or not begins_with(run._id, prefix()):
        report(
            "end",
            f"run.end({status!r}) has no effect on {run.path!r}: a run is ended by the program that has begun it"
            + (", this one by mlflow.end_run." if isinstance(run, AdoptedRun) else "."),
            key=run.id,
        )
        return
    if run._id in run._target.open_runs:
        _said[run._id] = None
    _do_before_end(run)
    _append_end(run, status, _now(), None)


_run.end_early = _end_early


def close_run(run: Run, error: BaseException | None) -> None:
    """End a run, truthfully. A forked child leaves a run that it inherited open: it ends when the parent ends it."""
    if not begins_with(run._id, prefix()):
        return
    if before_end:
        _do_before_end(run)
    status, failure = _failure.FINISHED, None
    if _said:
        said = _said.pop(run._id, status)
        if said is None:
            return
        status = said
    try:
        if error is not None:
            status = _failure.FAILED
            status, failure = _failure.status_of(error), _failure.describe(error)
        _append_end(run, status, _now(), failure)
    except RecursionError:
        # Further out there is room again.
        _unended.append((run, status, _now()))
    else:
        while _unended:
            _append_end(*_unended.pop(), None)


def end_run(run: Run, status: str, ended: int) -> None:
    """End a run of something that was over before, at a time in nanoseconds."""
    _append_end(run, status, ended, None)


def _do_before_end(run: Run) -> None:
    for call in before_end.pop(run._id, ()):
        try:
            call()
        except Exception as error:
            reraise_from_signal(error)
            logger.warning("trackdsl: what belongs to %r could not be ended: %s", run.path, format_error(error))


def _append_end(run: Run, status: str, now: int, failure: Failure | None) -> None:
    # A run never ends before it began, also where the clock was set back.
    event = Close(run._id, status, max(now, run._began), failure, run._lost)
    if len(run._children) > _MOST_NAMES_KEPT:
        run._children = {}
    payload = encode_safely(event)
    target = run._target
    begun = target.open_runs.pop(run._id, None)
    if begun is not None and len(begun) < _REPEATED:
        target.ended.append((run._id, begun, payload))
    target.append(payload, run, True)

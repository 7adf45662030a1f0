"""How a run begins, continues, or is adopted from plain MLflow: one event each."""

from __future__ import annotations

import time

import msgspec

from trackdsl._config import resolve as settings
from trackdsl._core import context as _context
from trackdsl._core import runtime
from trackdsl._core.current_lane import lane_here
from trackdsl._core.events import EXPERIMENT_ID, Adopt, Open, Rank, Scalar, encode_safely
from trackdsl._core.ids import new_id
from trackdsl._core.runtime import Phase
from trackdsl._recording import artifacts as _artifacts
from trackdsl._recording.params import LARGE, cut_texts
from trackdsl._runs.ending import call_before_end
from trackdsl._runs.run import AdoptedRun, ContinuedRun, Run, adoption_of
from trackdsl._runs.show_url import show_url
from trackdsl.journal._store_target import WATCH, Target

_now = time.time_ns
#: The newest root run of this program.
_newest_root: list[Run] = []


def open_run(
    *,
    name: str,
    decorator: str,
    parent: Run | None,
    target: Target,
    experiment: str | None,
    params: dict[str, Scalar],
    tags: dict[str, str],
    site: tuple[str, str, str] | None,
    began: int | None = None,
    system_metrics: float = 0.0,
    rank: Rank | None = None,
    traces: bool | None = None,
) -> Run:
    """Begin a run: write one event and return the handle.

    `began` is in nanoseconds since 1970. The parent of a run with a `rank` is the common root of the ranks. `traces`
    is whether the tree of a root run becomes a trace; None if the setting decides.
    """
    index = 0 if parent is None else parent.next_index(name)
    path = name if parent is None else f"{parent.path}/{name}"
    run = Run(new_id(), name, parent, path, experiment, target)
    now = _now()
    run.began = now if began is None else began
    parent_id = None if parent is None else parent.key
    if experiment is None and (parent is None or rank is not None):
        tags = {**tags, EXPERIMENT_ID: settings.experiment_id() or ""}
    event = Open(
        run.key, parent_id, experiment, name, decorator, path, index, run.began, params, tags, site, rank,
        "", False, lane_here(),
    )  # fmt: skip
    if parent is None or rank is not None:
        event = _with_traces(event, traces)
    _append_begin(run, event, now)
    if parent is None or rank is not None:
        _set_newest_root(run)
    if system_metrics:
        _request_system_metrics(run, system_metrics)
    return run


def _with_traces(event: Open, traces: bool | None) -> Open:
    """The event of a root run, with whether its tree becomes a trace."""
    wanted = settings.traces() if traces is None else traces
    return msgspec.structs.replace(event, traces=True) if wanted else event


def _set_newest_root(run: Run) -> None:
    _newest_root[:] = [run]
    show_url(run)


def newest_root() -> Run | None:
    """The newest root run of this program."""
    return next(iter(_newest_root), None)


def continue_run(
    resumed: str | Run,
    *,
    name: str,
    decorator: str,
    parent: Run | None,
    target: Target,
    experiment: str | None,
    params: dict[str, Scalar],
    tags: dict[str, str],
    site: tuple[str, str, str] | None,
    system_metrics: float = 0.0,
    traces: bool | None = None,
) -> ContinuedRun:
    """Continue a run that has ended, or whose program died: write one event and return the handle."""
    path = name if parent is None else f"{parent.path}/{name}"
    run = ContinuedRun(new_id(), name, parent, path, experiment, target)
    if isinstance(resumed, Run):
        run.name, run.path, run.experiment = resumed.name, resumed.path, resumed.experiment
        run.children = resumed.children
        id_ = (adoption_of(resumed) or (resumed.id, ""))[0]
    else:
        id_ = resumed
    run.continued_id = id_
    now = run.began = _now()
    named = experiment or run.experiment
    event = Open(
        run.key, None, named, run.name, decorator, run.path, 0, now, params, tags, site,
        continued_id=id_, lane=lane_here(),
    )  # fmt: skip
    event = _with_traces(event, traces)
    _append_begin(run, event, now)
    if parent is None:
        _set_newest_root(run)
    continued_runs[run.key] = id_
    call_before_end(run, lambda: continued_runs.pop(run.key, None))
    if system_metrics:
        _request_system_metrics(run, system_metrics)
    return run


def _append_begin(run: Run, event: Open, now: int) -> None:
    params, tags, target = event.params, event.tags, run.target
    payload = encode_safely(event)
    large = len(payload) > LARGE
    if large:
        # Without this event, all other events of the run would be useless.
        payload = encode_safely(msgspec.structs.replace(event, params=cut_texts(params), tags=cut_texts(tags)))
    target.open_runs[run.key] = payload
    target.append(payload, run, True)
    if large:
        _artifacts.keep_long(run, {**params, **tags})
    if not 0 <= target.watch_at - now <= 2 * WATCH:  # The time has come, or the clock was set back.
        target.watch(now)


def _request_system_metrics(run: Run, interval: float) -> None:
    """Request system metrics in a file next to the journal, which delivery reads also while it cannot deliver."""
    id_ = run.key.hex()
    if run.target.append_line("sampled", f"o {id_} {interval}\n"):
        call_before_end(run, lambda: run.target.append_line("sampled", f"c {id_}\n"))


#: The runs that continue in this process → the id that the user gave for each.
continued_runs: dict[bytes, str] = {}
#: The handles of runs that plain MLflow began, by MLflow's ids. Each run has one handle, which counts its children.
_adopted: dict[str, AdoptedRun] = {}
_MAX_ADOPTED = 1000


def adopt_run(mlflow_run_id: str, experiment_id: str, target: Target) -> AdoptedRun:
    """The handle of a run that plain MLflow began. trackdsl records on it and never ends it."""
    run = _adopted.get(mlflow_run_id)
    if run is None or run.target is not target:
        run = AdoptedRun(new_id(), "mlflow", None, "mlflow", None, target)
        run.mlflow_run_id, run.mlflow_experiment_id = mlflow_run_id, experiment_id
        payload = target.open_runs[run.key] = _adoption(run)
        target.append(payload, run, True)
        if len(_adopted) >= _MAX_ADOPTED:
            for other in _adopted.values():
                other.target.open_runs.pop(other.key, None)
            _adopted.clear()
        _adopted[mlflow_run_id] = run
    return run


def is_named(mlflow_run_id: str) -> bool:
    """Whether this program records on a run that it knows by MLflow's id: an adopted or a continued one."""
    return mlflow_run_id in _adopted or mlflow_run_id in list(continued_runs.values())


def _adoption(run: Run) -> bytes:
    return encode_safely(Adopt(run.key, *(adoption_of(run) or ("", ""))))


def _after_fork() -> None:
    """Adopt the open runs in the child's own journal, because the parent's journal may be removed earlier."""
    _adopted.clear()
    continued_runs.clear()
    scope, inherited = _context.current(), set()
    while scope is not None:
        if adoption_of(scope.run) is not None:
            inherited.add(scope.run)
        scope = scope.outer
    for run in inherited:
        run.target.open_runs[run.key] = _adoption(run)


def _reset() -> None:
    for known in (_newest_root, _adopted, continued_runs):
        known.clear()


runtime.register("runs", Phase.RUNS, after_fork=_after_fork, reset=_reset)

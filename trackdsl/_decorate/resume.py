"""Resume a run that an earlier program or scope began: by `run_id=`, or by `MLFLOW_RUN_ID`."""

from __future__ import annotations

import contextlib
import os

from trackdsl._config import resolve as settings
from trackdsl._core import context as _context
from trackdsl._core.context import JoinedScope, Scope
from trackdsl._core.events import Scalar
from trackdsl._decorate import parentage as _parentage
from trackdsl._decorate.options import Options
from trackdsl._decorate.source import Site
from trackdsl._runs.lifecycle import continue_run, continued_runs
from trackdsl._runs.run import AdoptedRun, Run, adoption_of, checked_run_id
from trackdsl.distributed._engines import current_task
from trackdsl.errors import report
from trackdsl.journal._store_target import Target
from trackdsl.journal._target import overridden, target_for
from trackdsl.store_format.tags import RUN_NAME_TAG

#: MLflow's variable: the first root run of a program resumes the run that it names.
VARIABLE = "MLFLOW_RUN_ID"


def take_run_id(tracking_uri: str | None) -> str | None:
    """The run in `MLFLOW_RUN_ID`, for a root run that begins now. This removes the variable, as MLflow does.

    Args:
        tracking_uri: the store that the call names for the root run.

    Raises:
        OptionError: the variable has no id of a run.
    """
    text = os.environ.get(VARIABLE)
    if not text or overridden() or (tracking_uri and target_for(tracking_uri) is not target_for(None)):
        return None
    # The run around this one has used the variable, or it is for another process.
    if (
        _parentage.run_of_mlflow() is not None
        or current_task() is not None
        or _parentage.scope_of_session() is not None
    ):
        return None
    # Neither plain MLflow in the run nor a program that is started from here should resume the run again.
    with contextlib.suppress(KeyError):
        del os.environ[VARIABLE]
    return str(checked_run_id(text, VARIABLE))


def open_again(
    resumed: str | Run,
    options: Options,
    name: str,
    experiment: str | None,
    params: dict[str, Scalar],
    tags: dict[str, str],
    site: Site | None,
    owner: object,
) -> Scope:
    """Resume a run in a new scope, which the caller makes current.

    If this program has the run open already, the scope joins it, and does not end it.
    """
    outer = _context.current()
    target = _target_of(resumed, options.tracking_uri, outer)
    step = 0 if outer is None else outer.step
    if options.run_name is not None:
        tags = {**tags, RUN_NAME_TAG: name}
    joined = _open_here(resumed, target, name)
    if joined is not None:
        _report_open(joined)
        if params or tags:
            joined.log_params(params)
            joined.set_tags(tags)
        return JoinedScope(joined, outer, owner, step)
    sampled = options.system_metrics
    run = continue_run(
        resumed,
        name=name,
        decorator=options.decorator,
        parent=None if outer is None else outer.run,
        target=target,
        experiment=experiment,
        params=params,
        tags=tags,
        site=site,
        system_metrics=settings.system_metrics() if sampled is None else sampled,
        traces=options.traces,
    )
    return Scope(run, outer, owner, step)


def _target_of(resumed: str | Run, tracking_uri: str | None, outer: Scope | None) -> Target:
    """The target of the run: that of the call, of the run itself, of the scope around, or of the settings."""
    if tracking_uri is not None or overridden():
        return target_for(tracking_uri)
    if isinstance(resumed, Run):
        return resumed.target
    return target_for(None) if outer is None else outer.run.target


def _open_here(resumed: str | Run, target: Target, name: str) -> Run | None:
    """The handle of the run if this program has it open; None otherwise."""
    around = _parentage.run_of_mlflow()
    scope = _context.current()
    runs = [] if around is None else [around]
    while scope is not None:
        runs.append(scope.run)
        scope = scope.outer
    if isinstance(resumed, Run) and resumed.key in target.open_runs and not isinstance(resumed, AdoptedRun):
        return resumed
    names = _names_of(resumed)
    for run in runs:
        if names & _names_of(run):
            return run
    open_runs = {id_.hex(): id_ for id_ in list(target.open_runs)}
    id_ = next((open_runs[name] for name in names if name in open_runs), None)
    if id_ is None:
        id_ = next((id_ for id_, named in list(continued_runs.items()) if named in names), None)
    if id_ is None and target.writer is not None:
        # The run may be open under our id, while the call has MLflow's id.
        from trackdsl.delivery import ids_at_mlflow

        id_ = next((ours for ours in ids_at_mlflow(target, names) if ours in target.open_runs), None)
    return None if id_ is None else Run(id_, name, None, name, None, target)


def name_of(run: str | Run) -> str:
    """The id by which other processes know a run."""
    return run if isinstance(run, str) else (adoption_of(run) or (run.id,))[0]


def _names_of(run: str | Run) -> set[str]:
    """The ids that this program has for a run."""
    if isinstance(run, str):
        return {run}
    adopted = adoption_of(run)
    return {run.id, run.key.hex()} if adopted is None else {run.id, run.key.hex(), adopted[0]}


def _report_open(run: Run) -> None:
    report(
        "open-twice",
        f"the run {run.id} is open in this program already: what is recorded inside goes to that run, which ends "
        "where it began.",
        key=run.id,
    )

"""Optuna: records each trial as a child of the run in which the study is optimized.

`@track_trials` on the objective begins the run before the trial, so the objective logs to it. `TrackdslCallback` needs
no change to the objective, and records the run after the trial.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar, overload

from trackdsl._config.state import state
from trackdsl._core import context as _context
from trackdsl._core.context import Scope
from trackdsl._decorate import parentage as _roots
from trackdsl._decorate.options import Options
from trackdsl._decorate.scopes import close_scope, open_scope
from trackdsl._decorate.source import Site, site_of
from trackdsl._recording.emit import clean_tags, guarded
from trackdsl._runs import ending as _ending
from trackdsl._runs import lifecycle as _lifecycle
from trackdsl._runs.exceptions import FAILED, FINISHED
from trackdsl._runs.run import Run
from trackdsl.errors import OptionError
from trackdsl.errors._packages import explained

try:
    import optuna
    from optuna.trial import BaseTrial, FrozenTrial, TrialState

    from trackdsl.integrations import _optuna_study
except ModuleNotFoundError as error:
    raise explained(error, __name__) from None

__all__ = ["TrackdslCallback", "log_study", "track_trials"]

F = TypeVar("F", bound=Callable[..., Any])
_RUN_NAME = "trial-{number}"


class _LastTrial(threading.local):
    #: The last trial that `@track_trials` has recorded in this thread: study, number and start. Optuna calls the
    #: callbacks in the same thread.
    last: tuple[str, int, Any] | None = None


_here = _LastTrial()


@overload
def track_trials(objective: F, /) -> F: ...
@overload
def track_trials(
    *,
    name: str = _RUN_NAME,
    tags: Mapping[str, Any] | None = None,
    metric_name: str | Sequence[str] | None = None,
) -> Callable[[F], F]: ...
def track_trials(
    objective: Any = None,
    /,
    *,
    name: str = _RUN_NAME,
    tags: Mapping[str, Any] | None = None,
    metric_name: str | Sequence[str] | None = None,
) -> Any:
    """Record each trial of an objective as a run, a child of the run in which the study is optimized.

    The objective logs to the run of its trial. At the end of the trial, its run has:

    - the suggested parameters as parameters
    - the value of a complete trial as metric `value` (several values: `values.0`, `values.1`, …, or the study's names)
    - the reported intermediate values as metric `intermediate_value` by step
    - the user attributes, the distributions (`optuna.distribution.<name>`) and `optuna.state` as tags

    A pruned trial is `FINISHED` with `optuna.state = PRUNED`; a failed one is `FAILED`. The run around the study has a
    metric `best_value`, and at its end parameters `best.<name>`.

    Args:
        objective: a function with an `optuna.Trial` among its arguments.
        name: the run's name; `{number}` and `{study}` are replaced.
        tags: tags of each trial's run.
        metric_name: the name of the metric instead of `value`; several names for several values.

    Raises:
        OptionError: the name has another placeholder, or the objective is called without a trial.

    Example:
        >>> @track_trials
        ... def objective(trial):
        ...     return trial.suggest_float("x", -1, 1) ** 2
    """
    plan = _Plan(name, tags, metric_name)
    if objective is None:
        return functools.partial(_tracked, plan=plan)
    return _tracked(objective, plan)


class TrackdslCallback:
    """Records each trial as a run after its end: `study.optimize(objective, callbacks=[TrackdslCallback()])`.

    The run has the times of the trial, and the same content as with `track_trials`. The objective logs to the run
    around the study, because Optuna calls no callback when a trial begins. Decorate the objective with `@track_trials`
    to log to the trial's run; the callback then adds nothing.

    Args:
        name: the run's name; `{number}` and `{study}` are replaced.
        tags: tags of each trial's run.
        metric_name: the name of the metric instead of `value`; several names for several values.

    Raises:
        OptionError: the name has another placeholder.
    """

    def __init__(
        self,
        *,
        name: str = _RUN_NAME,
        tags: Mapping[str, Any] | None = None,
        metric_name: str | Sequence[str] | None = None,
    ) -> None:
        self._plan = _Plan(name, tags, metric_name)

    def __call__(self, study: optuna.Study, trial: FrozenTrial) -> None:
        """See `optuna.study.Study.optimize`."""
        last, _here.last = _here.last, None
        if state.disabled or last == (study.study_name, trial.number, trial.datetime_start):
            return
        with guarded("recording a trial"):
            outer = _context.current()
            parent, target, experiment = _roots.destination(outer, None, None)
            began, ended = (None if time is None else int(time.timestamp() * 1e9) for time in
                            (trial.datetime_start, trial.datetime_complete))  # fmt: skip
            run = _lifecycle.open_run(
                name=self._plan.name(study, trial.number), decorator="stage", parent=parent, target=target,
                experiment=experiment, params={}, tags=self._plan.tags, site=None, began=began,
            )  # fmt: skip
            self._plan.record(run, parent, study, trial, trial.state, trial.values)
            status = FAILED if trial.state == TrialState.FAIL else FINISHED
            _ending.end_run(run, status, ended or run.began)


def log_study(study: optuna.Study) -> None:
    """Record the best trial of a study on the current run, as parameters `best.<name>` and `best.value`.

    A run of trackdsl does this at its end if trials were tracked in its process. Call this function if other processes
    have run the trials, or if plain MLflow has begun the run.

    Args:
        study: the study.

    Example:
        >>> log_study(optuna.load_study(study_name="churn", storage=storage))  # doctest: +SKIP
    """
    run = _current("log_study")
    if run is not None:
        with guarded("log_study", run):
            _optuna_study.log_study(run, study)


class _Plan:
    """The checked options for recording trials."""

    def __init__(self, name: str, tags: Mapping[str, Any] | None, metric_name: str | Sequence[str] | None) -> None:
        try:
            name.format(number=0, study="")
        except (AttributeError, IndexError, KeyError, ValueError):
            raise OptionError(
                f"name={name!r}: the name of a trial's run is a string that may contain {{number}} and {{study}}.",
                option="name",
            ) from None
        self._name = name
        self.tags = clean_tags(tags)
        self._metrics = [metric_name] if isinstance(metric_name, str) else list(metric_name or ())

    def name(self, study: optuna.Study | None, number: int) -> str:
        return self._name.format(number=number, study="" if study is None else study.study_name)

    def record(
        self,
        run: Run,
        parent: Run | None,
        study: optuna.Study | None,
        trial: Any,
        ended: TrialState,
        values: Sequence[float] | None,
    ) -> None:
        """Record a trial at its end."""
        with guarded("recording a trial", run):
            run.log_params(trial.params)
            run.set_tags(
                {
                    "optuna.trial": trial.number,
                    "optuna.state": ended.name,
                    **({} if study is None else {"optuna.study": study.study_name}),
                    **{f"optuna.distribution.{name}": str(kind) for name, kind in trial.distributions.items()},
                    **trial.user_attrs,
                }
            )
            for step, value in sorted(getattr(trial, "intermediate_values", {}).items()):
                run.log_metric("intermediate_value", value, step=step)
            # Optuna uses the last intermediate value as the value of a pruned trial, which may look like the best.
            if values is not None and ended == TrialState.COMPLETE:
                run.log_metrics(dict(zip(self._names(study, len(values)), values, strict=True)))
            if parent is not None and study is not None:
                given = None if values is None else list(values)
                complete = ended == TrialState.COMPLETE
                _optuna_study.record_trial(parent, study, trial.number, dict(trial.params), given, complete)

    def _names(self, study: optuna.Study | None, count: int) -> list[str]:
        names = self._metrics or list((None if study is None else study.metric_names) or ())
        if len(names) == count:
            return names
        return ["value"] if count == 1 else [f"values.{number}" for number in range(count)]


def _tracked(objective: Any, plan: _Plan) -> Any:
    if not callable(objective):
        raise OptionError(f"@track_trials decorates a function, not {objective!r}.", option="objective")
    site = site_of(objective)
    options = Options("stage", None, True)

    def wrapper(*args: Any, **kwargs: Any) -> Any:
        if state.disabled:
            return objective(*args, **kwargs)
        trial = next((given for given in (*args, *kwargs.values()) if isinstance(given, BaseTrial)), None)
        if trial is None:
            raise OptionError("@track_trials decorates an objective, which takes an optuna.Trial.", option="objective")
        scope = _begin(plan, options, site, trial)
        try:
            result = objective(*args, **kwargs)
        except BaseException as error:
            _end(plan, scope, trial, None, error)
            raise
        _end(plan, scope, trial, result, None)
        return result

    return functools.update_wrapper(wrapper, objective)


def _begin(plan: _Plan, options: Options, site: Site, trial: Any) -> Scope | None:
    with guarded("beginning a trial"):
        name = plan.name(getattr(trial, "study", None), trial.number)
        return open_scope(options, name, None, {}, plan.tags, site, object())
    return None


def _end(plan: _Plan, scope: Scope | None, trial: Any, result: Any, error: BaseException | None) -> None:
    if scope is None:
        return
    failure: BaseException | None = error
    try:
        with guarded("recording a trial", scope.run):
            study = getattr(trial, "study", None)
            known = trial if study is None else _frozen(study, trial)
            reported = getattr(known, "intermediate_values", {})
            ended, values, reason = _optuna_study.state_and_values(study, result, error, reported)
            plan.record(scope.run, scope.run.parent, study, known, ended, values)
            if study is not None:
                _here.last = (study.study_name, trial.number, trial.datetime_start)
            if ended == TrialState.PRUNED:
                failure = None
            elif reason:
                failure = ValueError(reason)
    finally:
        close_scope(scope, failure)


def _frozen(study: optuna.Study, trial: Any) -> FrozenTrial:
    """The trial as the storage has it, with the intermediate values."""
    trials = study.get_trials(deepcopy=False)
    number = trial.number
    if number < len(trials) and trials[number].number == number:
        return trials[number]
    return next(found for found in trials if found.number == number)


def _current(doing: str) -> Run | None:
    scope = _context.current()
    return scope.run if scope is not None else _roots.run_outside(doing)

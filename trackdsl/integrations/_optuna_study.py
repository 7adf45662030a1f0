"""Records a study on the run around it: its settings, each better value, and the best trial at the end."""

from __future__ import annotations

import contextlib
import functools
import weakref
from typing import Any
from weakref import WeakKeyDictionary

import optuna
from optuna.study import StudyDirection
from optuna.trial import TrialState

from trackdsl._core import runtime
from trackdsl._core.runtime import ForkSafeLock, Phase
from trackdsl._recording.emit import guarded
from trackdsl._runs import ending as _ending
from trackdsl._runs.run import Run

_lock = ForkSafeLock()
#: The studies below each run, by name.
_studies: WeakKeyDictionary[Run, dict[str, _StudyOfRun]] = WeakKeyDictionary()
runtime.register("studies of runs", Phase.RUNS, reset=_studies.clear)


class _StudyOfRun:
    """A study whose trials are runs below one run.

    Args:
        study: the study, which is not kept alive.
        prefix: the prefix of all names that are recorded for the study.

    Attributes:
        best: number and value of the best trial of this process.
        params: the parameters of that trial.
    """

    def __init__(self, study: optuna.Study, prefix: str) -> None:
        self.study = weakref.ref(study)
        self.prefix = prefix
        self.best: tuple[int, float] | None = None
        self.params: dict[str, Any] = {}


def record_trial(
    run: Run, study: optuna.Study, number: int, params: dict[str, Any], values: list[float] | None, complete: bool
) -> None:
    """Record a trial on the run around its study.

    Args:
        run: the run.
        study: the study.
        number: the trial's number.
        params: the trial's parameters.
        values: the values that the objective has returned, or None.
        complete: whether the trial is complete.
    """
    below = _below(run, study)
    if not complete or values is None or len(study.directions) != 1:
        return
    value = values[0]
    with _lock.current:
        if below.best is not None and not _is_better(value, below.best[1], study):
            return
        below.best, below.params = (number, value), params
    with contextlib.suppress(ValueError):  # No trial is complete. Trials of other processes count too.
        if _is_better(study.best_value, value, study):
            return
    run.log_metric(f"{below.prefix}best_value", value, step=number)


def log_study(run: Run, study: optuna.Study) -> None:
    """Record the best trial of a study on the run around it."""
    below = _below(run, study)
    _write_best(run, below, study)


def _is_better(value: float, other: float, study: optuna.Study) -> bool:
    return value > other if study.direction is StudyDirection.MAXIMIZE else value < other


def _below(run: Run, study: optuna.Study) -> _StudyOfRun:
    with _lock.current:
        known = _studies.setdefault(run, {})
        found = known.get(study.study_name)
        if found is not None:
            return found
        below = known[study.study_name] = _StudyOfRun(study, f"{study.study_name}." if known else "")
        _ending.call_before_end(run, functools.partial(_at_end, weakref.ref(run), below))
    run.set_tags(
        {
            f"{below.prefix}optuna.study": study.study_name,
            f"{below.prefix}optuna.directions": ",".join(direction.name for direction in study.directions),
            f"{below.prefix}optuna.sampler": type(study.sampler).__name__,
            f"{below.prefix}optuna.pruner": type(study.pruner).__name__,
        }
    )
    return below


def _at_end(ref: weakref.ref[Run], below: _StudyOfRun) -> None:
    run = ref()
    if run is not None:
        with guarded("the best trial", run):
            _write_best(run, below, below.study())


def _write_best(run: Run, below: _StudyOfRun, study: optuna.Study | None) -> None:
    number, value, params = (*below.best, below.params) if below.best is not None else (None, 0.0, {})
    if study is not None and len(study.directions) > 1:
        run.set_tag(f"{below.prefix}optuna.best_trials", ",".join(str(trial.number) for trial in study.best_trials))
        return
    if study is not None:
        with contextlib.suppress(ValueError):  # No trial is complete, or none is feasible.
            best = study.best_trial
            number, value, params = best.number, best.values[0], best.params
    if number is None:
        return
    recorded = {"best.trial": number, "best.value": value, **{f"best.{name}": given for name, given in params.items()}}
    run.log_params({f"{below.prefix}{name}": given for name, given in recorded.items()})


def state_and_values(
    study: optuna.Study | None, result: Any, error: BaseException | None, reported: dict[int, float]
) -> tuple[TrialState, list[float] | None, str]:
    """The state and the values of a trial, by Optuna's rules: see `_tell_with_warning` in optuna/study/_tell.py.

    Args:
        study: the study; None for a trial without one.
        result: the return value of the objective.
        error: the exception that it has raised, or None.
        reported: the intermediate values, by step.

    Returns:
        the state, the values, and the reason if the return value makes the trial fail.
    """
    if isinstance(error, optuna.TrialPruned):
        last = reported[max(reported)] if reported else float("nan")
        return TrialState.PRUNED, None if last != last else [last], ""
    if error is not None:
        return TrialState.FAIL, None, ""
    given = list(result) if hasattr(result, "__iter__") and not isinstance(result, str) else [result]
    try:
        values = [float(value) for value in given]
    except (TypeError, ValueError):
        return TrialState.FAIL, None, "the objective did not return a number"
    if any(value != value for value in values):
        return TrialState.FAIL, None, "the objective has returned NaN"
    if study is not None and len(values) != len(study.directions):
        reason = f"the objective has returned {len(values)} values, and the study has {len(study.directions)}"
        return TrialState.FAIL, None, reason
    return TrialState.COMPLETE, values, ""

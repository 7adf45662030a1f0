"""Begin and end the scopes of calls and blocks: a run, a run that is resumed, or a section of a run."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Mapping

from trackdsl._config import resolve as settings
from trackdsl._core import context as _context
from trackdsl._core.context import Scope
from trackdsl._core.events import Scalar
from trackdsl._core.patching import closed, opened
from trackdsl._core.recursion_limit import release
from trackdsl._decorate import parentage as _parentage
from trackdsl._decorate.options import Options
from trackdsl._decorate.resume import VARIABLE, name_of, open_again, take_run_id
from trackdsl._decorate.source import Site
from trackdsl._recording.emit import append_tags, fault, guarded, record_metrics
from trackdsl._runs import ranks as _ranks
from trackdsl._runs.ending import close_run
from trackdsl._runs.lifecycle import open_run
from trackdsl._runs.run import Run
from trackdsl.errors import log_once, logger, was_logged
from trackdsl.errors._user_code import call_site
from trackdsl.store_format.tags import EXPERIMENT_TAG

_clock = time.perf_counter_ns
_when_opened: list[Callable[[Scope], None]] = []


def call_when_opened(call: Callable[[Scope], None]) -> None:
    """Register a function that is called with each scope of a run, right after it is current. It raises no error."""
    if call not in _when_opened:
        _when_opened.append(call)


def call_no_more_when_opened(call: Callable[[Scope], None]) -> None:
    """Undo `call_when_opened`."""
    if call in _when_opened:
        _when_opened.remove(call)


def open_scope(
    options: Options,
    name: str,
    experiment: str | None,
    params: dict[str, Scalar],
    tags: dict[str, str],
    site: Site | None,
    owner: object,
) -> Scope:
    """Begin a run, and make it current. The current scope, the options and the settings decide where it goes."""
    outer = _context.current()
    resumed, of_launch = _to_resume(options, outer)
    if resumed is not None:
        return _entered(open_again(resumed, options, name, experiment, params, tags, site, owner))
    if around := _parentage.task_tags() if outer is None else outer.tags:
        tags = {**tags, **around}
    parent, target, home = _parentage.destination(outer, options.tracking_uri, experiment, options.ranks)
    if parent is not None and outer is None:
        tags = {**tags, **_ranks.tags_below(options.ranks)}
    if parent is not None and experiment is not None:
        tags = {**tags, EXPERIMENT_TAG: experiment}
        if experiment != parent.experiment:
            _log_nested(experiment, parent)
    sampled = options.system_metrics
    if sampled is None:
        sampled = 0.0 if parent is not None else settings.system_metrics()
    rank = None
    if parent is None and (shared := _ranks.shared(name, home, target, options.ranks, of_launch)) is not None:
        parent, rank, name = shared
    run = open_run(
        name=name,
        decorator=options.decorator,
        parent=parent,
        target=target,
        experiment=home,
        params=params,
        tags=tags,
        site=site,
        system_metrics=sampled,
        rank=rank,
        traces=options.traces,
    )
    return _entered(Scope(run, outer, owner, 0 if outer is None else outer.step))


def _to_resume(options: Options, outer: Scope | None) -> tuple[str | Run | None, str | None]:
    """The run to resume instead of a new one, and the run to resume as the root of the ranks of a launch."""
    resumed = options.run_id
    if outer is not None:
        return resumed, None
    if resumed is None and VARIABLE in os.environ:
        resumed = take_run_id(options.tracking_uri)
        if resumed is not None and _ranks.leaves_run_to_first(options.ranks):
            resumed = None
    if resumed is None or _ranks.records_nothing(options.ranks):
        return None, None
    # Several ranks cannot share one run.
    return (None, name_of(resumed)) if _ranks.share_root(options.ranks) else (resumed, None)


def _entered(scope: Scope) -> Scope:
    """Make the scope of a run current."""
    try:
        opened(scope)
        _context.enter(scope)
        for call in _when_opened:
            call(scope)
    except BaseException as error:  # Ctrl-C before the caller has the scope.
        close_scope(scope, error)
        raise
    return scope


def _log_nested(experiment: str, parent: Run) -> None:
    """Log once that a run is not in the experiment that it names."""
    key = f"nested:{parent.experiment}:{experiment}"
    if was_logged(key):
        return
    log_once(
        f"trackdsl: experiment({experiment!r}) at {call_site()} is inside the run {parent.path!r}: its run is a "
        "child of that run, in the same MLflow experiment, with the tag trackdsl.experiment. For a root run in "
        f"{experiment!r}, call it outside of that run.",
        key=key,
    )


def open_section(run: Run, outer: Scope | None, name: str, owner: object) -> Scope:
    """Begin a section of a run."""
    scope = Scope(run, outer, owner, 0 if outer is None else outer.step)
    scope.section = name
    scope.index = run.next_index(name)
    _context.enter(scope)
    scope.entered = _clock()
    return scope


def close_scope(scope: Scope, error: BaseException | None) -> None:
    """End a run or a section, and make the scope around it current again."""
    try:
        if scope.section is None:
            if scope.ends_run:
                close_run(scope.run, error)
        else:
            seconds = (_clock() - scope.entered) / 1e9
            record_metrics(scope.run, {f"{scope.section}/seconds": seconds}, scope.index)
    except Exception as trouble:
        with contextlib.suppress(RecursionError):
            if error is None:
                fault("leaving a call", trouble)
            else:  # The user's own exception is being raised, and is never replaced.
                logger.warning("trackdsl: leaving a call failed: %s: %s", type(trouble).__name__, trouble)
    finally:
        try:
            _let_go(scope)
        except BaseException:  # Ctrl-C may interrupt the first attempt; the scope must be left all the same.
            _let_go(scope)
            raise


def _let_go(scope: Scope) -> None:
    """Leave a scope, and release what it holds. A second call does no harm."""
    if scope.section is None:
        closed(scope)
    _context.leave(scope)
    if scope.budget is not None:
        release(scope.budget)
    scope.owner = None


def tag_closed_early(scope: Scope) -> None:
    """Tag the run of a generator that its caller closed before the end."""
    if scope.section is None:
        with guarded("closing a generator", scope.run):
            append_tags(scope.run, {"trackdsl.closed_early": "true"})


def under(name: str, params: Mapping[str, Scalar]) -> dict[str, Scalar]:
    """The parameters of a section, with its name before theirs."""
    return {f"{name}.{key}": value for key, value in params.items()}

"""A decorated call: it opens a run or a section, records what the function returned, and ends the run."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

from trackdsl._core import context as _context
from trackdsl._core.context import Scope
from trackdsl._core.events import Scalar
from trackdsl._core.recursion_limit import EVERY, RecursionBudget, raise_limit, release, shallow
from trackdsl._core.redaction import mask_name
from trackdsl._core.suppression import suppression
from trackdsl._decorate import name_templates
from trackdsl._decorate import parentage as _parentage
from trackdsl._decorate.arguments import CallPlan
from trackdsl._decorate.last_run import LastRun, forget_last_run
from trackdsl._decorate.options import Options
from trackdsl._decorate.returns import ReturnPlan
from trackdsl._decorate.scopes import close_scope, open_scope, open_section, tag_closed_early, under
from trackdsl._decorate.source import Site, site_of
from trackdsl._recording import artifacts as _artifacts
from trackdsl._recording import datasets as _datasets
from trackdsl._recording.emit import append_params, fault, guarded
from trackdsl._recording.flatten import Flat
from trackdsl._runs.run import Run

Args = tuple[Any, ...]
Kwargs = dict[str, Any]
#: Begin a call, and end it with its scope, its result, its exception and its arguments.
Enter = Callable[[Args, Kwargs], "Scope | None"]
Leave = Callable[["Scope | None", Any, "BaseException | None", Args, Kwargs], None]


class Call:
    """One decorated function, and what happens when it is called.

    Args:
        fn: the function.
        options: the options of `experiment` or `stage`; None if only `track_returns` decorates the function.
        returns: how its return values are recorded, or None.
        behind: only for `track_returns`: a call that this one wraps, further inside, whose run gets the values.

    Attributes:
        wrapper: the object that has the attribute `last_run`: the wrapper, if it is a function.

    Raises:
        OptionError, TemplateError: the options do not fit the function.
    """

    def __init__(
        self, fn: Callable[..., Any], options: Options | None, returns: ReturnPlan | None, behind: Call | None = None
    ) -> None:
        self.fn = fn
        self.options = options
        self.returns = returns
        self.plan = CallPlan(
            fn, False if options is None else options.params, "track_returns" if options is None else options.decorator
        )
        self.wrapper: Any = LastRun()
        self._behind = behind
        self._noted = False
        self.enter: Enter = self._enter_nothing
        self.leave: Leave = self._leave_returns
        if behind is not None:
            behind._noted = True
        if options is not None:
            self._prepare(options)

    def _prepare(self, options: Options) -> None:
        function = self.plan.name
        name = options.name if options.decorator == "stage" else options.run_name
        self._name = mask_name(name or function)
        self._experiment = mask_name(options.name) if options.decorator == "experiment" and options.name else None
        names = self.plan.names
        self._templated = name_templates.check(name, names, function) if name else False
        self._experiment_templated = (
            name_templates.check(self._experiment, names, function) if self._experiment else False
        )
        self._site: Site = site_of(self.fn)
        self._tags = options.static_tags()
        section = options.decorator == "stage" and not options.nested
        self.enter = self._enter_section if section else self._enter_run
        self.leave = self._leave_section if section else self._leave_run

    def _enter_run(self, args: Args, kwargs: Kwargs) -> Scope | None:
        options = self.options
        assert options is not None
        plan = self.plan
        try:
            params: dict[str, Scalar] = {}
            flat = plan.params(params, args, kwargs) if plan.records else None
            name, experiment = self._names(args, kwargs)
            scope = open_scope(options, name, experiment, params, self._tags, self._site, self)
        except Exception as error:
            with contextlib.suppress(RecursionError):  # On a full stack, even the report would fail.
                fault("entering a call", error)
            return None
        self.wrapper.last_run = scope.run
        try:
            depth = scope.depth = scope.depth + 1
            if not depth % EVERY:
                scope.budget = raise_limit()
            if flat or plan.datasets:
                self._record_rest(scope.run, flat, args, kwargs)
        except BaseException as error:  # Ctrl-C: if `enter` raises, the wrapper does not call `leave`.
            close_scope(scope, error)
            raise
        return scope

    def _record_rest(self, run: Run, flat: Flat | None, args: Args, kwargs: Kwargs, prefix: str = "") -> None:
        """Record what parameters cannot hold: large arguments, and datasets."""
        with guarded("recording arguments", run):
            if flat:
                _artifacts.keep_whole(run, flat, prefix)
            for marker, value in self.plan.dataset_arguments(args, kwargs):
                _datasets.record_input(run, value, marker.name, marker.context)

    def _enter_section(self, args: Args, kwargs: Kwargs) -> Scope | None:
        outer = _context.current()
        run = outer.run if outer is not None else _parentage.run_around()
        if run is None:
            return self._enter_run(args, kwargs)
        scope = None
        try:
            with guarded("entering a call"):
                name = self._names(args, kwargs)[0]
                scope = open_section(run, outer, name, self)
                self.wrapper.last_run = run
                scope.depth += 1
                if not scope.depth % EVERY:
                    scope.budget = raise_limit()
                if scope.index == 0 and self.plan.records:
                    params: dict[str, Scalar] = {}
                    flat = self.plan.params(params, args, kwargs)
                    append_params(run, under(name, params))
                    self._record_rest(run, flat, args, kwargs, f"{name}.")
        except BaseException as error:
            if scope is not None:
                close_scope(scope, error)
            raise
        return scope

    def _enter_nothing(self, _args: Args, _kwargs: Kwargs) -> Scope | None:
        if self._behind is not None:
            # A cache may answer without a run. Then the run of an earlier call must not get the values of this call.
            _last_run.set(None)
        scope = _context.current()
        budget = None if shallow() else raise_limit()
        return scope if budget is None else _DeepScope(scope, budget)

    def _leave_run(
        self, scope: Scope | None, result: Any, error: BaseException | None, args: Args, kwargs: Kwargs
    ) -> None:
        if scope is None:
            return
        try:
            if error is None and self.returns is not None:
                self.returns.record(scope.run, result, scope.step, self.plan, args, kwargs)
        finally:
            # Set it again: a recursive or concurrent call may have set it since.
            self.wrapper.last_run = scope.run
            if self._noted:
                _last_run.set((self, scope.run))
            close_scope(scope, error)

    def abandon(self, scope: Scope | None, error: BaseException) -> None:
        """End a call whose end was interrupted, for example by Ctrl-C. Does nothing if the call has ended."""
        if suppression.on:
            suppression.recover()
        if scope is not None and scope.owner is self:
            close_scope(scope, error)

    def _leave_section(
        self, scope: Scope | None, result: Any, error: BaseException | None, args: Args, kwargs: Kwargs
    ) -> None:
        if scope is None or scope.section is None:
            self._leave_run(scope, result, error, args, kwargs)
            return
        try:
            if error is None and self.returns is not None:
                self.returns.record(scope.run, result, scope.index, self.plan, args, kwargs, f"{scope.section}/")
        finally:
            close_scope(scope, error)

    def _leave_returns(
        self, scope: Scope | None, result: Any, error: BaseException | None, args: Args, kwargs: Kwargs
    ) -> None:
        if type(scope) is _DeepScope:
            release(scope.budget)
            scope = scope.outer
        if error is not None or self.returns is None:
            return
        noted = _last_run.get() if self._behind is not None else None
        if noted is not None and noted[0] is self._behind:
            run, step = noted[1], 0
        elif scope is not None:
            run, step = scope.run, scope.step
        else:
            outside = _parentage.run_outside(f"@track_returns on {self.plan.name}")
            if outside is None:
                return
            run, step = outside, 0
        self.wrapper.last_run = run
        self.returns.record(run, result, step, self.plan, args, kwargs)

    def record_yield(self, scope: Scope | None, item: Any, index: int, met: dict[str, None]) -> None:
        """Record the numbers that a generator yields, with its index as step. Their names go into `met`."""
        run, scope = self._run_of_yields(scope)
        if run is not None and self.returns is not None:
            section = f"{scope.section}/" if scope is not None and scope.section else ""
            self.returns.record_numbers(run, item, index, met, section)

    def report_unmet(self, scope: Scope | None, met: dict[str, None]) -> None:
        """Report the names given to `track_returns` that no yielded value has."""
        run, _ = self._run_of_yields(scope)
        if run is not None and self.returns is not None:
            self.returns.report_unmet_by_yields(run, met)

    def _run_of_yields(self, scope: Scope | None) -> tuple[Run | None, Scope | None]:
        if self.returns is None:
            return None, None
        scope = scope if self.options is not None else _context.current()
        run = scope.run if scope is not None else _parentage.run_outside(f"@track_returns on {self.plan.name}")
        return run, scope

    def tag_closed_early(self, scope: Scope | None) -> None:
        """Tag the run of a generator that its caller closed before the end."""
        if scope is not None and self.options is not None:
            tag_closed_early(scope)

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        forget_last_run(self.wrapper)  # In another process the function has not been called yet.

    def _names(self, args: Args, kwargs: Kwargs) -> tuple[str, str | None]:
        name, experiment = self._name, self._experiment
        if self._templated or self._experiment_templated:
            shown = self.plan.shown(args, kwargs)
            name = mask_name(name_templates.fill(name, shown)) if self._templated else name
            if experiment and self._experiment_templated:
                experiment = mask_name(name_templates.fill(experiment, shown))
        return name, experiment


class _DeepScope(Scope):
    """The scope of a call that opens none itself, but has raised the recursion limit.

    Args:
        outer: the scope around it.
        budget: the raised limit, which is released at the end of the call.
    """

    __slots__ = ()

    def __init__(self, outer: Scope | None, budget: RecursionBudget) -> None:
        self.outer = outer
        self.owner = None
        self.budget = budget


#: The run that a call has just ended, with the call, for a `track_returns` around it.
_last_run: ContextVar[tuple[Call, Run] | None] = ContextVar("trackdsl_last_run", default=None)

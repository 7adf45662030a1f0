"""The current run: one ContextVar with the innermost scope of a chain of scopes."""

from __future__ import annotations

from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from trackdsl._core import runtime
from trackdsl._core.runtime import Phase

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from trackdsl._core.handle import RunHandle
    from trackdsl._core.recursion_limit import RecursionBudget


class Scope:
    """An open run, section of a run, or `steps` loop.

    Attributes:
        run: the run that records what happens inside.
        outer: the scope around this one.
        owner: the block or call that opened it, which finds it again when it exits.
        step: the default step of metrics.
        depth: the number of decorated calls from the outermost to here.
        budget: the raised recursion limit for the frames of these calls, or None.
        plain: what plain MLflow sees as its active run; set when MLflow first asks.
    """

    __slots__ = ("budget", "depth", "entered", "index", "outer", "owner", "plain", "run", "section", "step")

    plain: object

    #: The tags of a run that begins directly inside; see `TaskScope`.
    tags: Mapping[str, str] | None = None
    #: Whether its run ends when the scope is left.
    ends_run = True

    def __init__(self, run: RunHandle, outer: Scope | None, owner: object, step: int) -> None:
        # In practice a `Run`. This package cannot import that class, which is in a higher layer.
        self.run: Any = run
        self.outer = outer
        self.owner = owner
        self.step = step
        self.depth: int = 0 if outer is None else outer.depth
        self.budget: RecursionBudget | None = None
        # For sections only (`nested=False`): the name, the index of the call, the time of entry in nanoseconds.
        self.section: str | None = None
        self.index = 0
        self.entered = 0


class JoinedScope(Scope):
    """A scope of a run that something else of the program keeps open. Leaving it does not end the run."""

    __slots__ = ()

    ends_run = False


class TaskScope(Scope):
    """The scope around a task of a cluster engine: the run that submitted it, and the tags of the task."""

    __slots__ = ("tags",)

    def __init__(self, run: RunHandle, outer: Scope | None, owner: object, step: int, tags: Mapping[str, str]) -> None:
        super().__init__(run, outer, owner, step)
        self.tags = tags


_current: ContextVar[Scope | None] = ContextVar("trackdsl_scope", default=None)

current = _current.get
enter = _current.set
runtime.register("the current scope", Phase.SCOPES, reset=lambda: enter(None))
_on_left_open: list[Callable[[Scope, Scope], None]] = []


def call_when_left_open(call: Callable[[Scope, Scope], None]) -> None:
    """Register a function that is called when a scope is left while others inside it are open.

    Args:
        call: takes the innermost of those others, and the scope that is left.
    """
    if call not in _on_left_open:
        _on_left_open.append(call)


def leave(scope: Scope) -> None:
    """Make the scope around `scope` current again. Nothing happens if `scope` is not open in this context."""
    innermost = _current.get()
    inside = innermost
    while inside is not None:
        if inside is scope:
            _current.set(scope.outer)
            if innermost is not scope and innermost is not None:
                for call in _on_left_open:
                    call(innermost, scope)
            return
        inside = inside.outer


def take_out(scope: Scope) -> None:
    """Remove a scope from the chain of the current context. Scopes that were opened inside it stay open."""
    inside, found = None, _current.get()
    while found is not None and found is not scope:
        inside, found = found, found.outer
    if found is None:
        return
    if inside is None:
        _current.set(scope.outer)
    else:
        inside.outer = scope.outer


def step_of(run: RunHandle) -> int:
    """The default step of metrics of `run` here: that of the innermost scope of this run, else 0."""
    scope = _current.get()
    while scope is not None and scope.run is not run:
        scope = scope.outer
    return 0 if scope is None else scope.step


def find(owner: object) -> Scope | None:
    """The innermost scope of the current context that `owner` opened."""
    scope = _current.get()
    while scope is not None and scope.owner is not owner:
        scope = scope.outer
    return scope

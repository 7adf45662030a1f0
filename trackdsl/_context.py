"""Which run is current: the one ContextVar, and the chain of scopes that hangs on it."""

from __future__ import annotations

from contextvars import ContextVar
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from trackdsl._run import Run


class Scope:
    """One level of the language: a run, a section of a run, or a `steps` loop.

    Attributes:
        run: where everything recorded inside lands.
        outer: the scope around this one.
        owner: the block or call that opened it, to find it again at the exit.
        step: the default step of metrics.
    """

    __slots__ = ("entered", "index", "outer", "owner", "run", "section", "step")

    def __init__(self, run: Run, outer: Scope | None, owner: object, step: int) -> None:
        self.run = run
        self.outer = outer
        self.owner = owner
        self.step = step
        # Of sections alone (`nested=False`): the name, the index of the call, the time of entry in nanoseconds.
        self.section: str | None = None
        self.index = 0
        self.entered = 0


_current: ContextVar[Scope | None] = ContextVar("trackdsl_scope", default=None)

current = _current.get
enter = _current.set


def leave(scope: Scope) -> None:
    """Make the scope around `scope` current again, unless another one has already taken its place."""
    innermost = _current.get()
    inside = innermost
    while inside is not None:
        if inside is scope:
            _current.set(scope.outer)
            return
        inside = inside.outer


def step_of(run: Run) -> int:
    """The default step of metrics of `run` here: of the innermost scope that is about it, else 0."""
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

"""Runs that the program opens with plain MLflow inside a scope: each has a scope of its own until it ends."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from typing import Any

import mlflow

from trackdsl._core import context as _context
from trackdsl._core.context import Scope
from trackdsl._runs.ending import choose_status
from trackdsl._runs.lifecycle import adopt_run
from trackdsl._runs.run import Run
from trackdsl.mlflow_bridge._private import ActiveStack, showing
from trackdsl.mlflow_bridge._runs import ScopeRun
from trackdsl.store_format.tags import ID_TAG


class UserRun(mlflow.ActiveRun):
    """A run that the program has opened with plain MLflow inside a scope. It has a scope of its own until it ends.

    Args:
        active: MLflow's own object.
        run: our handle on the run.
        ours: whether it is the run of an open scope, opened again. Only the scope ends it.

    Attributes:
        ended: whether it is no longer active.
        kept: MLflow's own list, to which it moved when the scope around it was left.
    """

    def __init__(self, active: mlflow.ActiveRun, run: Run, *, ours: bool) -> None:
        super().__init__(active)  # type: ignore[no-untyped-call]
        self.run = run
        self.ours = ours
        self.pid = os.getpid()
        self.ended = False
        self.kept: list[Any] | None = None

    def __exit__(self, exc_type: Any, exc_val: Any, exc_tb: Any) -> bool:
        # Some tools end a run and open it again in between, so it is identified by its id.
        again = [user for user in users_here() if user.info.run_id == self.info.run_id]
        user = again[-1] if again else self
        if not user.ended:
            finish(user, "FINISHED" if exc_type is None else "FAILED")
        return exc_type is None

    def __reduce__(self) -> tuple[Any, ...]:
        return mlflow.ActiveRun, (mlflow.entities.Run(self.info, self.data),)


class ShownRuns(list[Any]):
    """The active runs of a scope, as MLflow sees them. Adding or removing a run opens or ends a scope."""

    def _follow(self, before: list[Any]) -> None:
        """Open and end scopes after a change of the list."""
        if _context.current() is None:  # The program uses the list outside of any scope.
            return
        for active in before:
            if isinstance(active, UserRun) and not any(active is each for each in self):
                forget(active)
        for index, active in enumerate(self):
            if not isinstance(active, (ScopeRun, UserRun)) and not any(active is each for each in before):
                list.__setitem__(self, index, opened_by_user(active))


def _changing(name: str) -> Callable[..., Any]:
    change = getattr(list, name)

    @functools.wraps(change)
    def changed(self: ShownRuns, *args: Any) -> Any:
        before = list(self)
        result = change(self, *args)
        self._follow(before)
        return result

    return changed


for _name in ("append", "clear", "extend", "insert", "pop", "remove", "__delitem__", "__iadd__", "__setitem__"):
    setattr(ShownRuns, _name, _changing(_name))


def users_here() -> list[UserRun]:
    """The runs that the program has opened with plain MLflow inside the current scope, the innermost last."""
    return chain_here()[1]


def chain_here() -> tuple[ScopeRun | None, list[UserRun]]:
    """The run of the current scope, None outside of any, and the runs as `users_here` returns them."""
    scope = _context.current()
    users: list[UserRun] = []
    while scope is not None:
        owner, outer = scope.owner, scope.outer
        if isinstance(owner, UserRun):
            if not owner.ended:
                users.insert(0, owner)
        elif outer is None or outer.run is not scope.run:  # Else this is a section or a loop inside the run's scope.
            return _entry_of(scope), users
        scope = outer
    return None, users


def _entry_of(scope: Scope) -> ScopeRun:
    entry = getattr(scope, "plain", None)
    if entry is None:
        entry = scope.plain = ScopeRun(scope.run)
    assert isinstance(entry, ScopeRun)
    return entry


class _Replaced:
    """The originals of what the bridge has replaced in MLflow.

    Attributes:
        stack: MLflow's own list of active runs; None if this MLflow keeps it elsewhere.
        end_run: MLflow's own `end_run`.
    """

    stack: ActiveStack | None = None
    end_run: Any = None


replaced = _Replaced()


def set_stack(stack: ActiveStack) -> None:
    """Register MLflow's own list of active runs."""
    replaced.stack = stack


def set_end_run(end_run: Any) -> None:
    """Register MLflow's own `end_run`."""
    replaced.end_run = end_run


def opened_by_user(active: mlflow.ActiveRun) -> UserRun:
    """Open a scope for a run that plain MLflow has opened inside a scope."""
    outer = _context.current()
    assert outer is not None
    ids = active.data.tags.get(ID_TAG), active.info.run_id  # A resumed run may be known by either id.
    scope: Scope | None = outer
    while scope is not None and scope.run.id not in ids:
        scope = scope.outer
    if scope is not None:
        user = UserRun(active, scope.run, ours=True)
    else:
        run = adopt_run(active.info.run_id, active.info.experiment_id, outer.run.target)
        run.name = active.info.run_name or run.name
        run.parent, run.path = outer.run, f"{outer.run.path}/{run.name}"
        user = UserRun(active, run, ours=False)
    _context.enter(Scope(user.run, outer, user, outer.step))
    return user


def finish(user: UserRun, *args: Any, **kwargs: Any) -> None:
    """End a run that the program has opened inside a scope, even if it is not the innermost.

    Args:
        user: the run.
        args: the positional arguments of MLflow's `end_run`.
        kwargs: the keyword arguments.
    """
    try:
        # A forked child does not end runs of its parent.
        if not user.ours and user.pid == os.getpid():
            with showing([user]):
                replaced.end_run(*args, **kwargs)
        elif user.ours:
            choose_status(user.run, str(args[0] if args else kwargs.get("status", "FINISHED")))
    finally:
        forget(user)


def forget(user: UserRun) -> None:
    """Remove a run that has ended from the scopes and from MLflow's list."""
    user.ended = True
    if user.kept is not None:
        user.kept[:] = [active for active in user.kept if active is not user]
    scope = _context.find(user)
    if scope is not None:
        _context.take_out(scope)


def keep_open(innermost: Scope, left: Scope) -> None:
    """Keep runs active that the program has opened with plain MLflow in a scope that is left, as without the scope.

    Args:
        innermost: the innermost scope inside the one that is left.
        left: the scope that is left.
    """
    found = []
    scope: Scope | None = innermost
    while scope is not None and scope is not left:
        if isinstance(scope.owner, UserRun) and not scope.owner.ended and not scope.owner.ours:
            found.append(scope.owner)
        scope = scope.outer
    for user in reversed(found):
        outer = _context.current()
        if outer is not None:
            _context.enter(Scope(user.run, outer, user, outer.step))
        elif replaced.stack is not None:
            user.kept = replaced.stack.own()
            user.kept.append(user)

"""The active runs of plain MLflow, derived from the scopes, so that they are right in every task and thread."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from typing import Any, NamedTuple

import mlflow

from trackdsl._core import context as _context
from trackdsl._core.context import Scope
from trackdsl._runs.ending import choose_status
from trackdsl._runs.lifecycle import adopt_run
from trackdsl._runs.run import AdoptedRun, Run
from trackdsl.errors import TrackdslError, format_error, report, reraise_from_signal
from trackdsl.mlflow_bridge._private import ActiveStack, is_shown, showing
from trackdsl.mlflow_bridge._runs import ScopeRun


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


class ActiveRuns(NamedTuple):
    """The active runs where plain MLflow is called.

    Attributes:
        entry: the run of the scope; None if MLflow cannot use it.
        users: the runs that the program has opened with plain MLflow inside that scope, the innermost last.
    """

    entry: ScopeRun | None
    users: list[UserRun]


def here() -> ActiveRuns | None:
    """The active runs here; None outside of any scope, and where MLflow's own list counts."""
    try:
        if is_shown() or (_replaced.stack is not None and _replaced.stack.is_replaced()):
            return None
        return _place()
    except TrackdslError:
        raise
    except Exception as error:
        _report_fault(error)
        return None


def _place() -> ActiveRuns | None:
    entry, users = _chain()
    if not users and plain_run_here() is not None:
        return None
    if entry is not None and not entry.is_usable():
        entry = None
    return ActiveRuns(entry, users) if entry is not None or users else None


def shown() -> list[Any] | None:
    """The active runs for MLflow; None for MLflow's own list."""
    place = here()
    if place is None:
        return None
    entry, users = place
    if entry is None:
        return ShownRuns(users)
    entry.vain_ends = 0
    return ShownRuns([entry, *users])


def uri() -> str | None:
    """The tracking URI of the current scope; None if MLflow cannot get its run."""
    try:
        entry = _chain()[0]
        return None if entry is None else entry.uri()
    except TrackdslError:
        raise
    except Exception as error:
        _report_fault(error)
        return None


def store(real: Any) -> Any:
    """The store for MLflow: the real one, or a temporary one if the run around is not recorded."""
    scope = _context.current()
    if scope is None or not scope.run.target.discards:
        return real
    from trackdsl.mlflow_bridge._discarded import Discarding  # It brings SQLAlchemy.

    return Discarding(real)


def _report_fault(error: Exception) -> None:
    reraise_from_signal(error)
    report("mlflow-bridge", f"trackdsl cannot send a plain MLflow call to the run around it: {format_error(error)}")


def active_experiment() -> str | None:
    """The id of MLflow's active experiment inside the current scope; None if MLflow's own counts.

    It is the experiment that the program has set inside the scope or a scope around it, else that of the scope's run.
    """
    try:
        place = _place()
        if place is None or place.entry is None or place.entry.run.target.discards:
            return None
        chosen = chosen_experiment()
        if chosen is not None:
            return chosen
        return str(place.entry.info.experiment_id) if place.entry.resolve() else None
    except TrackdslError:
        raise
    except Exception as error:
        _report_fault(error)
        return None


def choose_experiment(id_: str) -> None:
    """Note that the program has set the active experiment. This counts inside the current scope only."""
    entry = _chain()[0]
    if entry is not None:
        entry.chosen = id_


def chosen_experiment() -> str | None:
    """The id of the experiment that the program has set in the current scope or one around it; None for none."""
    scope = _context.current()
    while scope is not None:
        entry = getattr(scope, "plain", None)
        if isinstance(entry, ScopeRun) and entry.chosen is not None:
            return entry.chosen
        outer = scope.outer
        if scope.run.parent is None and outer is not None and outer.run is not scope.run:
            return None  # A root run in another store, inside of another scope.
        scope = outer
    return None


def parent_for(uri: str) -> str | None:
    """MLflow's id of the parent of a run that a client creates here; None for a root.

    Args:
        uri: the tracking URI of the client.
    """
    if is_shown():  # `start_run` is running, and has set the parent.
        return None
    try:
        entry, users = _chain()
        if entry is None or isinstance(entry.run, AdoptedRun) or not entry.is_at(uri):
            return None
        if users:
            return str(users[-1].info.run_id)
        return str(entry.info.run_id) if entry.is_available() and entry.resolve() else None
    except TrackdslError:
        raise
    except Exception as error:
        _report_fault(error)
        return None


def plain_run_here() -> ScopeRun | None:
    """The run of plain MLflow that is current here, because a section or loop is in it; None for another run."""
    entry = _chain()[0]
    if entry is None or not isinstance(entry.run, AdoptedRun):
        return None
    return entry if entry.ended or _is_active(entry.run) else None


def users_here() -> list[UserRun]:
    """The runs that the program has opened with plain MLflow inside the current scope, the innermost last."""
    return _chain()[1]


def keys_here() -> list[object]:
    """The runs of the current scope and of those around it."""
    keys: list[object] = []
    scope = _context.current()
    while scope is not None:
        if not keys or keys[-1] is not scope.run:
            keys.append(scope.run)
        scope = scope.outer
    return keys


def _chain() -> tuple[ScopeRun | None, list[UserRun]]:
    scope = _context.current()
    users: list[UserRun] = []
    while scope is not None:
        owner, outer = scope.owner, scope.outer
        if isinstance(owner, UserRun):
            if not owner.ended:
                users.insert(0, owner)
        elif (
            outer is None or outer.run is not scope.run
        ):  # Otherwise the scope is a section or a loop of a run further out.
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
    """What the bridge has replaced in MLflow.

    Attributes:
        stack: MLflow's own list of active runs; None if this MLflow keeps it elsewhere.
        end_run: MLflow's own `end_run`.
    """

    stack: ActiveStack | None = None
    end_run: Any = None


_replaced = _Replaced()


def set_stack(stack: ActiveStack) -> None:
    """Register MLflow's own list of active runs."""
    _replaced.stack = stack


def set_end_run(end_run: Any) -> None:
    """Register MLflow's own `end_run`."""
    _replaced.end_run = end_run


def _is_active(run: AdoptedRun) -> bool:
    active = [] if _replaced.stack is None else _replaced.stack.own()
    return any(each.info.run_id == run.mlflow_run_id for each in active)


def opened_by_user(active: mlflow.ActiveRun) -> UserRun:
    """Open a scope for a run that plain MLflow has opened inside a scope."""
    outer = _context.current()
    assert outer is not None
    ids = active.data.tags.get("trackdsl.id"), active.info.run_id  # A resumed run may be known by either id.
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
                _replaced.end_run(*args, **kwargs)
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
        elif _replaced.stack is not None:
            user.kept = _replaced.stack.own()
            user.kept.append(user)

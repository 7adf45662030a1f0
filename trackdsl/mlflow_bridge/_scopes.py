"""The active runs of plain MLflow, derived from the scopes, so that they are right in every task and thread."""

from __future__ import annotations

from typing import Any, NamedTuple

from trackdsl._core import context as _context
from trackdsl._runs.run import AdoptedRun
from trackdsl.errors import TrackdslError, format_error, report, reraise_from_signal
from trackdsl.mlflow_bridge._private import is_shown
from trackdsl.mlflow_bridge._runs import ScopeRun
from trackdsl.mlflow_bridge._user_runs import ShownRuns, UserRun, chain_here, replaced


class ActiveRuns(NamedTuple):
    """The active runs where plain MLflow is called.

    Attributes:
        entry: the run of the scope; None if MLflow cannot use it.
        users: the runs that the program has opened with plain MLflow inside that scope, the innermost last.
    """

    entry: ScopeRun | None
    users: list[UserRun]

    @property
    def innermost(self) -> ScopeRun | UserRun | None:
        """The run that plain MLflow records to."""
        return self.users[-1] if self.users else self.entry


def here() -> ActiveRuns | None:
    """The active runs here; None outside of any scope, and where MLflow's own list counts."""
    try:
        if is_shown() or (replaced.stack is not None and replaced.stack.is_replaced()):
            return None
        return _active_runs()
    except TrackdslError:
        raise
    except Exception as error:
        _report_fault(error)
        return None


def _active_runs() -> ActiveRuns | None:
    entry, users = chain_here()
    if not users and plain_run_here() is not None:
        return None
    if entry is not None and not entry.is_usable():
        entry = None
    return ActiveRuns(entry, users) if entry is not None or users else None


def shown() -> list[Any] | None:
    """The active runs for MLflow; None for MLflow's own list."""
    found = here()
    if found is None:
        return None
    entry, users = found
    if entry is None:
        return ShownRuns(users)
    entry.unmatched_ends = 0
    return ShownRuns([entry, *users])


def uri() -> str | None:
    """The tracking URI of the current scope; None if MLflow cannot get its run."""
    try:
        entry = chain_here()[0]
        return None if entry is None else entry.uri()
    except TrackdslError:
        raise
    except Exception as error:
        _report_fault(error)
        return None


def store(real: Any) -> Any:
    """The store for MLflow: the real one, or a temporary one if the enclosing run is not recorded."""
    scope = _context.current()
    if scope is None or not scope.run.target.discards:
        return real
    from trackdsl.mlflow_bridge._discarded import Discarding  # It imports SQLAlchemy.

    return Discarding(real)


def _report_fault(error: Exception) -> None:
    reraise_from_signal(error)
    report("mlflow-bridge", f"trackdsl cannot send a plain MLflow call to the enclosing run: {format_error(error)}")


def active_experiment() -> str | None:
    """The id of MLflow's active experiment inside the current scope; None if MLflow's own counts.

    It is the experiment that the program has set inside the scope or a scope around it, else that of the scope's run.
    """
    try:
        found = _active_runs()
        if found is None or found.entry is None or found.entry.run.target.discards:
            return None
        chosen = chosen_experiment()
        if chosen is not None:
            return chosen
        return str(found.entry.info.experiment_id) if found.entry.resolve() else None
    except TrackdslError:
        raise
    except Exception as error:
        _report_fault(error)
        return None


def choose_experiment(id_: str) -> None:
    """The program has set the active experiment. This counts inside the current scope only."""
    entry = chain_here()[0]
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
        entry, users = chain_here()
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
    entry = chain_here()[0]
    if entry is None or not isinstance(entry.run, AdoptedRun):
        return None
    return entry if entry.ended or _is_active(entry.run) else None


def keys_here() -> list[object]:
    """The runs of the current scope and of those around it."""
    keys: list[object] = []
    scope = _context.current()
    while scope is not None:
        if not keys or keys[-1] is not scope.run:
            keys.append(scope.run)
        scope = scope.outer
    return keys


def _is_active(run: AdoptedRun) -> bool:
    active = [] if replaced.stack is None else replaced.stack.own()
    return any(each.info.run_id == run.mlflow_run_id for each in active)

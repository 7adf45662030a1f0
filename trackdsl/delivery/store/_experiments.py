"""The experiments of a store by their names: looked up once, and created if they are missing."""

from __future__ import annotations

from typing import Protocol

from trackdsl.delivery.store._errors import Refused, RunBlocked, Unavailable, deleted_experiment
from trackdsl.delivery.store._fallback_encoding import cased_name

#: See mlflow/utils/validation.py.
_MOST_IN_A_NAME = 500


class NamedExperiments(Protocol):
    """A store whose experiments have names."""

    def experiment_by_name(self, name: str) -> tuple[str, str, str] | None:
        """The id, the name and the lifecycle stage of an experiment; None if there is none of this name."""

    def create_experiment(self, name: str) -> None:
        """Create an experiment, unless another process has done so."""

    def may_fold_keys(self) -> bool:
        """Whether the store may treat keys as equal that differ in case."""


class Experiments:
    """Finds and creates experiments.

    Args:
        store: has them.
    """

    def __init__(self, store: NamedExperiments) -> None:
        self._store = store
        self._ids: dict[str, str] = {}
        self._folds: bool | None = None

    def id_of(self, name: str) -> str:
        """The store's id of an experiment, which is created if there is none of this name.

        Raises:
            Refused: the store accepts no such name.
            RunBlocked: the experiment is deleted.
            Unavailable: the store cannot be reached.
        """
        known = self._ids.get(name)
        if known is None:
            known = self._ids[name] = self._find_or_create(name)
        return known

    def forget(self) -> None:
        """Look them up again: one may have been deleted since."""
        self._ids.clear()

    def folds_case(self) -> bool:
        """Whether the store treats names as equal that differ in case, as it then does with all keys."""
        if self._folds is None:
            self._folds = False
            if self._store.may_fold_keys():
                name = cased_name(self._ids)
                row = self._store.experiment_by_name(name.swapcase())
                self._folds = row is not None and row[1] != name.swapcase()
        return self._folds

    def _find_or_create(self, name: str) -> str:
        row = self._store.experiment_by_name(name)
        if row is None:
            if not name or len(name) > _MOST_IN_A_NAME:
                raise Refused(f"an experiment's name has 1 to {_MOST_IN_A_NAME} characters")
            self._store.create_experiment(name)
            row = self._store.experiment_by_name(name)
            if row is None:
                raise Unavailable(f"the experiment {name!r} was removed a moment ago")
        experiment_id, _, stage = row
        if stage != "active":
            raise RunBlocked(deleted_experiment(repr(name), experiment_id), experiment=True)
        return experiment_id

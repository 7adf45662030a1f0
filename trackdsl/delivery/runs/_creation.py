"""Creating runs at the store: no run may be created twice, so a run that may exist is looked up first."""

from __future__ import annotations

import time
from collections.abc import Callable

from trackdsl._core import events
from trackdsl.delivery._timing import timing
from trackdsl.delivery.batches._compose import Pending
from trackdsl.delivery.state._blocked import check_experiment
from trackdsl.delivery.state._run_map import DeliveredRun, RunMap
from trackdsl.delivery.store._errors import Denied, NotYet, Refused, RunBlocked, Unavailable, deleted_experiment
from trackdsl.delivery.store._fallback_encoding import Keys, ascii_fallbacks, fitting_fallbacks, plain_tags
from trackdsl.delivery.store._sink import Batch, NewRun, Sink
from trackdsl.store_format import limits as _limits


class RunCreation:
    """Creates the runs of one journal, each once.

    Args:
        refuse: called with what the store refused, and its answer.
    """

    def __init__(self, refuse: Callable[[str, Exception], None]) -> None:
        self._refuse = refuse
        #: Runs that may exist, because the store was asked to create them and gave no answer.
        self._doubted: set[bytes] = set()
        #: Runs that do not exist, although their stretch failed: the store was not asked to create them.
        self._unsent: set[bytes] = set()
        self._late: dict[bytes, float] = {}
        #: Experiments, as programs name them, in which runs can be created.
        self._active: set[str] = set()
        #: Experiments in which no run can be created, and why, as of the last attempt.
        self._unusable: dict[tuple[str, ...], str] = {}

    def create(
        self, sink: Sink, event: events.Open, parent: DeliveredRun | None, tags: dict[str, str], *, in_doubt: bool
    ) -> tuple[DeliveredRun, Pending]:
        """Create a run, or find it if it may exist already.

        Returns:
            the run, and what is still to be written to it: the whole texts of tags that were cut, and tags that the
                store refuses at creation.

        Raises:
            RunBlocked: this run cannot be created now, while others can.
            Unavailable: the store cannot be reached.
        """
        key = _experiment_key(event, parent)
        try:
            if key in self._unusable:
                raise RunBlocked(self._unusable[key])
            return self._create(sink, event, parent, tags, in_doubt)
        except RunBlocked as error:
            if error.experiment:
                self._unusable[key] = str(error)
            raise
        except Denied as error:
            if not sink.answers():
                raise
            # If this user may not write to an experiment, only one of a thousand runs has to ask.
            self._unusable[key] = str(error)
            raise RunBlocked(str(error), experiment=True) from None

    def ask_again(self) -> None:
        """Check again whether runs can be created in experiments where none could."""
        self._unusable.clear()

    def _create(
        self, sink: Sink, event: events.Open, parent: DeliveredRun | None, tags: dict[str, str], in_doubt: bool
    ) -> tuple[DeliveredRun, Pending]:
        # A child of a plain MLflow run names no experiment: it goes to the experiment of its parent.
        experiment = parent.experiment_id if parent is not None else self._experiment_of_root(sink, event, tags)
        try:
            return self._find_or_create(sink, event, experiment, tags, in_doubt)
        except Refused as error:
            self._active.clear()
            check_experiment(sink, experiment, error)
            return self._create_elsewhere(sink, event, experiment, tags, error)

    def may_exist(self, id_: bytes, in_doubt: bool) -> bool:
        """Whether a run may exist that is not written down.

        Args:
            id_: our id of it.
            in_doubt: whether its event may have been applied before.
        """
        return (in_doubt and id_ not in self._unsent) or id_ in self._doubted

    def plan(
        self, sink: Sink, event: events.Open, parent: NewRun | DeliveredRun | None, tags: dict[str, str]
    ) -> tuple[NewRun, DeliveredRun, Pending] | None:
        """Prepare the creation of a run that does not exist, to create it together with others.

        Returns:
            the run to create, the same for the notes, and what is still to be written to it; None if it has to be
                created by `create`.

        Raises:
            Unavailable: the store cannot be reached.
        """
        known = None if parent is None else DeliveredRun("", parent.experiment_id)
        if _experiment_key(event, known) in self._unusable:
            return None
        try:
            experiment = self._experiment_of_root(sink, event, tags) if parent is None else parent.experiment_id
        except (Denied, RunBlocked, Refused):
            return None
        name, fitted, keys = _planned(sink, event, tags)
        self._unsent.add(event.run)
        link = parent.run_id if isinstance(parent, DeliveredRun) else parent
        new = NewRun(event.run, experiment, name, event.time // 1_000_000, fitted.batch.tags, link)
        return new, DeliveredRun("", experiment, params={}, keys=keys), Pending(texts=fitted.texts)

    def record_outcome(self, new: NewRun) -> None:
        """Record what became of a run that was to be created together with others."""
        if new.sent:
            self._unsent.discard(new.id_)
            (self._doubted.discard if new.run_id else self._doubted.add)(new.id_)
        if new.late:
            self._late[new.id_] = time.monotonic()

    def remaining(self, run: DeliveredRun, tags: dict[str, str]) -> Pending:
        """The rest of a run's first content, for a run that was created already; it can be written twice."""
        fitted = _fitted(tags)
        if run.keys is not None:
            fitted.batch = run.keys.deduplicate_keys(fitted.batch)
        return Pending(Batch(tags=plain_tags(fitted.batch.tags)[1]), fitted.texts)

    def remove_late_duplicates(self, sink: Sink, runs: RunMap) -> None:
        """Remove duplicate runs of requests that were given up and carried out later, once no more can arrive."""
        for id_, since in list(self._late.items()):
            if time.monotonic() - since < timing().late_request:
                raise NotYet("a request that was given up may still be carried out")
            run = runs.get(id_)
            if run is not None:
                sink.remove_others(id_.hex(), run.experiment_id, run.run_id)
            del self._late[id_]

    def _find_or_create(
        self, sink: Sink, event: events.Open, experiment: str, tags: dict[str, str], in_doubt: bool
    ) -> tuple[DeliveredRun, Pending]:
        name, fitted, keys = _planned(sink, event, tags)
        if self.may_exist(event.run, in_doubt):
            match = sink.find_run(event.run.hex(), experiment)
            if match is not None:
                # The run may have been created without those that not every store accepts.
                odd = plain_tags(fitted.batch.tags)[1]
                return DeliveredRun(*match), Pending(Batch(tags=odd), fitted.texts)
        self._doubted.add(event.run)
        self._unsent.discard(event.run)
        rest: dict[str, str] = {}
        try:
            run_id = self._create_run(sink, event, experiment, name, fitted.batch.tags)
        except Refused:
            plain, odd = plain_tags(fitted.batch.tags)
            if not odd and not ascii_fallbacks(name):
                raise
            # A run with fewer tags is better than none, which would delay all later events.
            name = (fitting_fallbacks(name, _limits.MAX_RUN_NAME) or [name])[-1]
            run_id = self._create_run(sink, event, experiment, name, plain)
            rest = odd
        self._doubted.discard(event.run)
        fitted.batch = Batch(tags=rest)
        return DeliveredRun(run_id, experiment, params={}, keys=keys, made=time.monotonic()), fitted

    def _create_run(self, sink: Sink, event: events.Open, experiment: str, name: str, tags: dict[str, str]) -> str:
        try:
            return sink.create_run(experiment, name, event.time // 1_000_000, tags)
        except Unavailable as error:
            if error.late:
                self._late[event.run] = time.monotonic()
            raise

    def _create_elsewhere(
        self, sink: Sink, event: events.Open, refused: str, tags: dict[str, str], error: Refused
    ) -> tuple[DeliveredRun, Pending]:
        """Create a run if the store was replaced: its experiment's id is gone, and the name leads to another one."""
        fresh = self._experiment_of_root(sink, event, tags)
        try:
            if fresh != refused:
                return self._find_or_create(sink, event, fresh, tags, in_doubt=False)
        except Refused as again:
            error = again
        # Nothing of this run could be written, so it waits until the cause is fixed.
        raise RunBlocked(str(error))

    def _experiment_of_root(self, sink: Sink, event: events.Open, tags: dict[str, str]) -> str:
        named = event.tags.get(events.EXPERIMENT_ID) if event.experiment is None else None
        if not named:
            return self._experiment(sink, event.experiment or "Default", tags)
        try:
            if named not in self._active and sink.experiment_is_deleted(named):
                raise RunBlocked(deleted_experiment(named, named), experiment=True)
        except Refused as error:
            # An id of another store, or of one that was replaced.
            self._refuse(f"the experiment with the id {named[:100]!r}", error)
            tags["trackdsl.refused.experiment"] = f"id {named}"
            return self._experiment(sink, event.experiment or "Default", tags)
        self._active.add(named)
        return named

    def _experiment(self, sink: Sink, name: str, tags: dict[str, str]) -> str:
        try:
            return sink.experiment(name)
        except Refused as error:
            # A name that MLflow refuses must not stop the runs of this experiment, nor later events.
            self._refuse(f"the experiment {name[:100]!r}", error)
            tags["trackdsl.refused.experiment"] = name
            return sink.experiment("Default")


def _planned(sink: Sink, event: events.Open, tags: dict[str, str]) -> tuple[str, Pending, Keys | None]:
    """A run's name, its tags with the whole texts of those that were cut, and its keys if the store may fold them."""
    fitted = _fitted(tags)
    # MLflow refuses this tag if it differs from the run's name.
    own_name = fitted.batch.tags.pop("mlflow.runName", event.name)
    name = _limits.fit_text(own_name, _limits.MAX_RUN_NAME) or event.decorator
    keys = Keys({}) if sink.folds_keys() else None
    if keys is not None:
        fitted.batch = keys.deduplicate_keys(fitted.batch)
    return name, fitted, keys


def _fitted(tags: dict[str, str]) -> Pending:
    fitted = Pending()
    fitted.add_tags(tags)
    return fitted


def _experiment_key(event: events.Open, parent: DeliveredRun | None) -> tuple[str, ...]:
    """A key that is equal for all runs of one experiment."""
    if parent is not None:
        return ("id", parent.experiment_id)
    return (event.experiment or "", event.tags.get(events.EXPERIMENT_ID, "") if event.experiment is None else "")

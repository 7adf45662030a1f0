"""Creating runs at the store: the one thing that cannot be done twice, so that it is looked up where in doubt."""

from __future__ import annotations

import time
from collections.abc import Callable

from trackdsl._core import events
from trackdsl.delivery import _fallback_encoding as _otherwise
from trackdsl.delivery._blocked import check_experiment, deleted_experiment
from trackdsl.delivery._compose import Pending
from trackdsl.delivery._run_map import DeliveredRun, RunMap
from trackdsl.delivery._sink import Batch, Denied, NotYet, Refused, RunBlocked, Sink, Unavailable
from trackdsl.store_format import limits as _limits

#: How long a server may take over a request that nobody waits for any more, in seconds.
_LATE_PATIENCE = 20.0


class RunCreation:
    """Creates the runs of one journal, each once.

    Args:
        refuse: called with what the store refused, and its answer.
    """

    def __init__(self, refuse: Callable[[str, Exception], None]) -> None:
        self._refuse = refuse
        self._doubted: set[bytes] = set()
        self._late: dict[bytes, float] = {}
        #: Ids of experiments, as programs gave them, that runs can be made in.
        self._active: set[str] = set()
        #: Experiments that no run can be made in, and why, as of the last try.
        self._unusable: dict[tuple[str, ...], str] = {}

    def create(
        self, sink: Sink, event: events.Open, parent: DeliveredRun | None, tags: dict[str, str], *, in_doubt: bool
    ) -> tuple[DeliveredRun, Pending]:
        """Create a run, or find it where it may be there already.

        Returns:
            the run, and what is still to be written to it: the whole texts of tags that were cut, and tags that the
            store does not take.

        Raises:
            RunBlocked: it cannot be made as things are, and others can.
            Unavailable: the store is away.
        """
        place = _place_of(event, parent)
        try:
            if place in self._unusable:
                raise RunBlocked(self._unusable[place])
            return self._create(sink, event, parent, tags, in_doubt)
        except RunBlocked as error:
            if error.experiment:
                self._unusable[place] = str(error)
            raise
        except Denied as error:
            if not sink.answers():
                raise
            # Of a thousand runs in an experiment that this user may not write to, one asks.
            self._unusable[place] = str(error)
            raise RunBlocked(str(error), experiment=True) from None

    def ask_again(self) -> None:
        """Find out anew whether runs can be made in experiments where none could."""
        self._unusable.clear()

    def _create(
        self, sink: Sink, event: events.Open, parent: DeliveredRun | None, tags: dict[str, str], in_doubt: bool
    ) -> tuple[DeliveredRun, Pending]:
        # A child of a plain MLflow run names no experiment: it goes where its parent is.
        experiment = parent.experiment_id if parent is not None else self._experiment_of_root(sink, event, tags)
        try:
            return self._find_or_create(sink, event, experiment, tags, in_doubt)
        except Refused as error:
            self._active.clear()
            check_experiment(sink, experiment, error)
            return self._create_elsewhere(sink, event, experiment, tags, error)

    def rest(self, run: DeliveredRun, tags: dict[str, str]) -> Pending:
        """What is still to be written to a run that was made already; what it has may be written twice."""
        fitted = _fitted(tags)
        if run.keys is not None:
            fitted.batch = run.keys.tell_apart(fitted.batch)
        return Pending(Batch(tags=_otherwise.plain_tags(fitted.batch.tags)[1]), fitted.texts)

    def settle(self, sink: Sink, runs: RunMap) -> None:
        """Remove what requests have made that were given up and carried out all the same, once no more can come."""
        for id_, since in list(self._late.items()):
            if time.monotonic() - since < _LATE_PATIENCE:
                raise NotYet("a request that was given up may still be carried out")
            run = runs.get(id_)
            if run is not None:
                sink.remove_others(id_.hex(), run.experiment_id, run.run_id)
            del self._late[id_]

    def _find_or_create(
        self, sink: Sink, event: events.Open, experiment: str, tags: dict[str, str], in_doubt: bool
    ) -> tuple[DeliveredRun, Pending]:
        fitted = _fitted(tags)
        # MLflow refuses a tag of this name that says anything else.
        own_name = fitted.batch.tags.pop("mlflow.runName", event.name)
        name = _limits.fit_text(own_name, _limits.MAX_RUN_NAME) or event.word
        keys = _otherwise.Keys({}) if sink.folds_keys() else None
        if keys is not None:
            fitted.batch = keys.tell_apart(fitted.batch)
        plain, odd = _otherwise.plain_tags(fitted.batch.tags)
        if in_doubt or event.run in self._doubted:
            found = sink.find_run(event.run.hex(), experiment)
            if found is not None:
                # It may have been made without these.
                return DeliveredRun(*found), Pending(Batch(tags=odd), fitted.texts)
        self._doubted.add(event.run)
        rest: dict[str, str] = {}
        try:
            run_id = self._create_run(sink, event, experiment, name, fitted.batch.tags)
        except Refused:
            if not odd and not _otherwise.plainer(name):
                raise
            # A run that is told less of is better than none, which would hold up all that is behind it.
            run_id = self._create_run(sink, event, experiment, (_otherwise.plainer(name) or [name])[-1], plain)
            rest = odd
        self._doubted.discard(event.run)
        return DeliveredRun(run_id, experiment, params={}, keys=keys, made=time.monotonic()), Pending(
            Batch(tags=rest), fitted.texts
        )

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
        """Where a store has begun anew, the parent's experiment is gone, and its name leads to another."""
        fresh = self._experiment_of_root(sink, event, tags)
        try:
            if fresh != refused:
                return self._find_or_create(sink, event, fresh, tags, in_doubt=False)
        except Refused as again:
            error = again
        # Nothing of this run could be written, so it waits until somebody has mended the cause.
        raise RunBlocked(str(error))

    def _experiment_of_root(self, sink: Sink, event: events.Open, tags: dict[str, str]) -> str:
        named = event.tags.get(events.EXPERIMENT_ID) if event.experiment is None else None
        if not named:
            return self._experiment(sink, event.experiment or "Default", tags)
        try:
            if named not in self._active and sink.experiment_is_deleted(named):
                raise RunBlocked(deleted_experiment(named, named), experiment=True)
        except Refused as error:
            # An id of another store, or of one that has begun anew.
            self._refuse(f"the experiment with the id {named[:100]!r}", error)
            tags["trackdsl.refused.experiment"] = f"id {named}"
            return self._experiment(sink, event.experiment or "Default", tags)
        self._active.add(named)
        return named

    def _experiment(self, sink: Sink, name: str, tags: dict[str, str]) -> str:
        try:
            return sink.experiment(name)
        except Refused as error:
            # A name that MLflow does not take must not keep the runs from it, nor those behind them.
            self._refuse(f"the experiment {name[:100]!r}", error)
            tags["trackdsl.refused.experiment"] = name
            return sink.experiment("Default")


def _fitted(tags: dict[str, str]) -> Pending:
    fitted = Pending()
    for key, value in tags.items():
        fitted.add_tag(key, value)
    return fitted


def _place_of(event: events.Open, parent: DeliveredRun | None) -> tuple[str, ...]:
    """The same for all runs that go to one experiment."""
    if parent is not None:
        return ("id", parent.experiment_id)
    return (event.experiment or "", event.tags.get(events.EXPERIMENT_ID, "") if event.experiment is None else "")

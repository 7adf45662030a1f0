"""Events that were read from a journal and not written yet, grouped by run to save requests."""

from __future__ import annotations

import math
from collections.abc import Callable

from trackdsl._core import events
from trackdsl.delivery.batches import _compose
from trackdsl.delivery.batches._compose import Pending
from trackdsl.delivery.batches._model_points import Link, ModelPoints
from trackdsl.delivery.batches._own_tags import OwnTags
from trackdsl.delivery.batches._single_writes import SingleWrites
from trackdsl.delivery.state._blocked import check_experiment
from trackdsl.delivery.state._run_map import DeliveredRun
from trackdsl.delivery.store._errors import Refused
from trackdsl.delivery.store._fallback_encoding import Keys, is_encoding_of
from trackdsl.delivery.store._sink import Batch, Sink


class Outbox:
    """Collects and writes what belongs to runs.

    Args:
        refuse: called with what the store refused, and its answer.
        prepare: called before anything is written, to write down what must be written down first.
        models: the points of logged models.
        own_tags: adds to tags that the runs have.
    """

    def __init__(
        self,
        refuse: Callable[[str, Exception], None],
        prepare: Callable[[], None],
        models: ModelPoints,
        own_tags: OwnTags,
    ) -> None:
        self._refuse = refuse
        self._writes = SingleWrites(refuse)
        self._prepare = prepare
        self._models = models
        self._own_tags = own_tags
        self._pending: dict[bytes, tuple[DeliveredRun, Pending]] = {}

    def ids(self) -> list[bytes]:
        """Our ids of the runs for which something was collected."""
        return list(self._pending)

    def discard(self, id_: bytes) -> None:
        """Forget what was collected for one run."""
        self._pending.pop(id_, None)

    def clear(self) -> None:
        """Forget everything that was collected: it will be read again."""
        self._pending.clear()

    def of(self, id_: bytes, run: DeliveredRun) -> Pending:
        """The content that is to be written to a run."""
        entry = self._pending.get(id_)
        if entry is None:
            entry = self._pending[id_] = run, Pending()
        return entry[1]

    def add_metric(
        self, id_: bytes, run: DeliveredRun, key: str, value: float, time: int, step: int, link: Link | None = None
    ) -> None:
        """Add a point; `time` in milliseconds since 1970."""
        pending = self.of(id_, run)
        pending.add_metric(key, value, time, step, link)
        if math.isinf(value):
            pending.add_tag(
                f"trackdsl.infinite.{key}", f"{value} at step {step} is stored by MLflow as the largest float"
            )

    def add_params(self, sink: Sink, id_: bytes, run: DeliveredRun, values: dict[str, events.Scalar]) -> None:
        """Add parameters. The first value of a name is kept, also if the store has it already."""
        if not values:
            return
        if run.params is None:
            try:
                run.params = sink.params(run.run_id)
            except Refused:  # The run is deleted for good; MLflow refuses what is written to it, which is reported.
                run.params = {}
        pending = self.of(id_, run)
        if not run.params and (texts := _compose.fitting_params(values)) is not None:
            run.params.update(texts)
            pending.batch.params.update(texts)
            return
        fresh = Pending()
        fresh.add_params(values)
        if not run.params:
            run.params.update(fresh.batch.params)
            pending.add(fresh)
            return
        for key, text in fresh.batch.params.items():
            known = run.params.setdefault(key, text)
            if is_encoding_of(known, text):
                pending.batch.params[key] = known
            else:
                # MLflow would refuse the whole batch: the first value is kept, the later one becomes a tag.
                pending.add_tag(f"trackdsl.param.later.{key}", text)
        pending.batch.tags.update(fresh.batch.tags)
        pending.texts.update(fresh.texts)

    def flush(self, sink: Sink, id_: bytes) -> None:
        """Write what was collected for one run.

        Raises:
            RunBlocked: its experiment is deleted.
        """
        entry = self._pending.pop(id_, None)
        if entry is None:
            return
        self._prepare()
        run, pending = entry
        batch = pending.batch
        batch.tags = self._own_tags.completed(sink, run, batch.tags, pending.files)
        if sink.folds_keys():
            run.keys = run.keys or _keys_of(sink, run.run_id)
            batch = run.keys.deduplicate_keys(batch)
        for part in [batch] if sink.own_ids else _compose.split(batch):
            gone = self._writes.write(sink, run, part)
            if gone is not None:
                self._refuse(f"everything else of run {run.run_id}, which is deleted", gone)
                return
        self._write_model_points(sink, run, batch, pending)
        for path, text in pending.texts.items():
            self._writes.write_text(sink, run, text, path)

    def _write_model_points(self, sink: Sink, run: DeliveredRun, batch: Batch, pending: Pending) -> None:
        if not batch.metrics:
            return
        try:
            self._models.write(sink, run, batch.metrics, pending.links)
        except Refused as error:
            check_experiment(sink, run.experiment_id, error)
            self._writes.omit(sink, run, f"metrics of the models of run {run.run_id}", "log_metrics.model", error)


def _keys_of(sink: Sink, run_id: str) -> Keys:
    try:
        return Keys(sink.keys(run_id))
    except Refused:  # The run is deleted for good; MLflow refuses what is written to it, which is reported.
        return Keys({})
